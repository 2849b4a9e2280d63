"""Answers of a model version to rows: a few from the command line, or a file of them; what it said goes into the log.

Nothing of a model is loaded before its files were held against their digests and its author's signature.
"""

import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts import registry
from data_contracts.contract import DERIVED, image_columns
from data_contracts.splits import SPLITS
from flows import references
from flows.evaluate import load_predictor
from flows.inference.log import BATCH_ROWS, Answered, LogFormat, now, write
from flows.inference.parts import Parts, grouped
from flows.models import ModelVersion
from flows.promotion.signatures import verified_files
from infra.digests import digest_file
from infra.errors import WrongInput, choices
from infra.progress import Progress
from infra.store import Store

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from data_contracts.asked_file import Asked
    from data_contracts.contract import Contract

FORMAT = 1
METADATA = b"slipway.predictions"


@dataclass(frozen=True)
class Served:
    """A model version that may answer."""

    version: ModelVersion
    contract: "Contract"
    columns: list[str]
    """What it reads."""
    params: dict[str, Any] = field(default_factory=dict)
    """What a request may set, and what it is otherwise."""


def served(store: Store, reference: str) -> Served:
    """The champion, or what the reference says, after it was verified. Raises WrongInput and Refused."""
    version = references.resolve(store, reference if "@" in reference or "/" in reference else f"{reference}@champion")
    files = verified_files(store, version)
    contract = registry.contract_of(store, registry.resolve(store, version.dataset))
    return Served(version, contract, list(files["input_columns"]), dict(files.get("params") or {}))


def predict_inputs(
    store: Store,
    model: Served,
    inputs: tuple[str, ...],
    log: bool = True,
    settings: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """One answer an input: a text, a picture's file, or a JSON list or object of the columns that the model reads.
    settings: `key=value` of what a request may set. say: is told where texts are longer than the model takes."""
    params = _params(model, settings)
    rows, ids = _parsed(model, inputs)
    predictor = load_predictor(store, model.version.model)
    answers = predictor(rows, **params)
    if predictor.truncated:
        say(f"{predictor.truncated:,} of {len(rows):,} inputs are longer than the model takes: the rest was cut")
    if log:
        form = LogFormat(model.version, model.contract, getattr(predictor, "labels", ()))
        write(store, model.version.name, form.table([Answered(ids, now(len(rows)), rows, answers)]))
    return list(answers)


def _params(model: Served, settings: Sequence[str]) -> dict[str, Any]:
    """Raises WrongInput for what the model does not know, or a value of another type."""
    found: dict[str, Any] = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        if key not in model.params:
            known = choices(key, model.params) if model.params else "its answers have no settings"
            raise WrongInput(f"--set {setting}: model {model.version.ref} knows no '{key}'; {known}")
        kind = type(model.params[key])
        try:
            found[key] = kind(text)
        except ValueError as error:
            what = "a number" if kind is float else "a whole number"
            raise WrongInput(f"--set {setting}: give {what}, such as {key}={model.params[key]}") from error
    return found


def zero_shot(store: Store, model: Served, texts: tuple[str, ...], labels: list[str]) -> list[dict[str, Any]]:
    """Which of these labels, none of which it was trained on, each text or picture is. Raises WrongInput."""
    if len(set(labels)) < 2:
        raise WrongInput(f"--labels {', '.join(labels)}: gives {len(set(labels))}; two are needed, parted by commas")
    return list(_embedder(store, model).classify(_queries(model, texts), labels))


def nearest(store: Store, model: Served, texts: tuple[str, ...], count: int) -> list[dict[str, Any]]:
    """The texts of the model's dataset nearest to each: row_id, text, score; of a model of pictures and texts, the
    pictures nearest to a text, and the captions nearest to a picture. Raises WrongInput."""
    return [{"nearest": found} for found in _embedder(store, model).search(_queries(model, texts), count)]


def library(store: Store, model: Served, row_ids: Collection[str]) -> "dict[str, np.ndarray]":
    """The pictures of these rows of the model's dataset, each (H, W) or (H, W, C). Raises WrongInput for a model of
    texts alone."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from training.images import table_arrays

    images = [name for name in model.columns if name in model.contract.images]
    if not images:
        raise WrongInput(f"--out: {model.version.ref} searches texts, which are no pictures; leave --out away")
    version = registry.resolve(store, model.version.dataset)
    found: dict[str, np.ndarray] = {}
    wanted = pa.array(sorted(row_ids), pa.string())
    for split in SPLITS:
        table = registry.read_split(store, version, split, list(image_columns(images[0])))
        table = table.filter(pc.is_in(table["row_id"].cast(pa.string()), wanted))
        found |= dict(zip(table["row_id"].to_pylist(), table_arrays(table, images[0]), strict=True))
    return found


def _queries(model: Served, inputs: tuple[str, ...]) -> list[str | Path]:
    """What is asked after: texts, and for a model of pictures the files that inputs name."""
    pictures = any(name in model.contract.images for name in model.columns)
    return [Path(one) if pictures and os.path.isfile(one) else one for one in inputs]


def _embedder(store: Store, model: Served) -> Any:
    predictor = load_predictor(store, model.version.model)
    if not hasattr(predictor, "search"):
        raise WrongInput(
            f"model {model.version.ref}: recipe '{model.version.experiment['recipe']}' embeds no texts, which --labels "
            "and --nearest need; ask one of sentence_embedding, text_search or clip"
        )
    return predictor


def predict_file(
    store: Store,
    model: Served,
    path: Path,
    out: Path,
    progress: Progress,
    *,
    id_column: str = "",
    time_column: str = "",
    log: bool = True,
) -> dict[str, int]:
    """Write one row of `out` (Parquet) for each row of `path`, in its order: id, label, confidence and, where the model
    gives them, probabilities; a row that cannot be read has no label and says why in `error`. `out` is whole or absent.

    id_column: the caller's ids, in place of row ids. time_column: what moment a row is about, in place of now. What was
    answered before an interruption is not asked again, nor logged twice. Returns {"rows", "answered", "faults",
    "truncated"}, the last those whose text is longer than the model takes. Raises WrongInput.
    """
    import pyarrow as pa

    from data_contracts.asked_file import read_asked

    if not out.parent.is_dir():
        raise WrongInput(f"--out {out}: there is no folder {out.parent}; make it or write elsewhere")
    more = {**({id_column: "string"} if id_column else {}), **({time_column: "timestamp"} if time_column else {})}
    predictor = load_predictor(store, model.version.model)
    form = LogFormat(model.version, model.contract, getattr(predictor, "labels", ()))
    schema = _out_schema(model, form.labels)
    counts = dict.fromkeys(("rows", "answered", "faults", "truncated"), 0)
    before = number = 0
    parts: Parts | None = None
    try:
        batches = read_asked(model.contract, path, model.columns, more, progress)
        for number, group in enumerate(grouped(batches, BATCH_ROWS), 1):
            parts = parts or Parts(out, _job(model, path, id_column, time_column, log))
            known = parts.counts(number - 1)
            if known is None:
                cut = predictor.truncated
                told = [_answer(predictor, model, asked, id_column, time_column) for asked in group]
                tables = [_out_table(schema, asked, *one, id_column) for asked, one in zip(group, told, strict=True)]
                known = {
                    "rows": sum(asked.batch.num_rows for asked in group),
                    "answered": sum(len(answered.ids) for answered, _ in told),
                    "faults": sum(len(faults) for _, faults in told),
                    "truncated": predictor.truncated - cut,
                }
                if log and known["answered"]:
                    # Under a name of the part's own: a part that is answered twice is logged once.
                    write(store, model.version.name, form.table([one for one, _ in told]), f"{parts.name}-{number:06d}")
                parts.add(number - 1, pa.concat_tables(tables), known)
            else:
                before += known["rows"]
                progress.say(f"{before:,} rows were answered before")
            counts = {name: total + known[name] for name, total in counts.items()}
        parts = parts or Parts(out, _job(model, path, id_column, time_column, log))
        parts.finish(schema, number)
    except WrongInput:
        if parts:
            parts.discard()
        raise
    except OSError as error:
        raise WrongInput(f"--out {out}: cannot be written ({error.strerror or error}); write elsewhere") from error
    if before:
        progress.tell(f"went on after an interruption: {before:,} rows had their answers")
    return counts


def _job(model: Served, path: Path, id_column: str, time_column: str, log: bool) -> dict[str, Any]:
    """What the answers to a file depend on."""
    asked = {"columns": model.columns, "id": id_column, "time": time_column, "log": log, "part_rows": BATCH_ROWS}
    return {"model": model.version.model, "version": model.version.ref, "file": digest_file(path), **asked}


def _parsed(model: Served, inputs: tuple[str, ...]) -> tuple[list[dict[str, Any]], list[str]]:
    """The inputs as the model reads them, and their row ids. Raises WrongInput."""
    from dataclasses import replace

    import pyarrow as pa

    from data_contracts.rows import RowIds, cast

    columns = model.columns
    given = [_values(text, columns) for text in inputs]
    images = [name for name in columns if name in model.contract.images]
    names = [one for name in columns for one in (image_columns(name) if name in images else [name])]
    contract = replace(model.contract, columns=tuple(model.contract.column(name) for name in names))
    values = {name: pa.array([row[name] for row in given], pa.string()) for name in columns}
    for name in images:
        values |= _pictures(name, [row[name] for row in given], contract)
    batch, faults = cast(pa.record_batch(values), contract)
    for row, (column, problem) in sorted(faults.items()):
        raise WrongInput(f"input {inputs[row]!r}: {column}: {problem}; the contract {contract.name} says so")
    return _rows(batch, model), RowIds().of(batch)


def _rows(batch: "pa.RecordBatch", model: Served) -> list[dict[str, Any]]:
    """What a predictor is asked, its pictures as arrays."""
    import pyarrow as pa

    table, columns = pa.Table.from_batches([batch]), {}
    for name in model.columns:
        if name in model.contract.images:
            from training.images import table_arrays

            columns[name] = table_arrays(table, name)
        else:
            columns[name] = table[name].to_pylist()
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _pictures(name: str, files: list[str | None], contract: "Contract") -> "dict[str, pa.Array]":
    """Pixels, width, height and mode of each file, read as those of a dataset are: by a process of its own, which a
    broken one may kill. Raises WrongInput."""
    import pyarrow as pa

    from data_contracts.embedded_images import image_mode
    from data_contracts.native import Native, Unreadable

    mode = image_mode(contract)
    found: list[dict[str, Any]] = []
    with Native() as native:
        for file in files:
            path = Path(file or "")
            if not path.is_file():
                raise WrongInput(f"input {file!r}: is no file; the model reads a picture, so give the name of one")
            try:
                pixels, facts = native.image(path, mode)
            except Unreadable as error:
                raise WrongInput(f"input {file!r}: {error}; give a picture such as a PNG or JPEG") from None
            found.append({name: pixels} | {f"{name}_{suffix}": facts[suffix] for suffix in DERIVED})
    kinds = {name: pa.large_binary(), f"{name}_mode": pa.string()}
    return {one: pa.array([row[one] for row in found], kinds.get(one, pa.int64())) for one in image_columns(name)}


def _values(text: str, columns: list[str]) -> dict[str, str | None]:
    """Column -> what the input says, as text: the contract's types are for the cast."""
    try:
        found = json.loads(text, parse_float=str, parse_int=str)
    except ValueError:
        found = None
    if isinstance(found, dict) and set(found) == set(columns):
        values = [found[name] for name in columns]
    elif len(columns) == 1:
        return {columns[0]: text}
    elif isinstance(found, list) and len(found) == len(columns):
        values = found
    else:
        raise WrongInput(
            f"input {text!r}: the model reads {', '.join(columns)}; give a JSON list of {len(columns)} values in that "
            "order, or an object"
        )
    said = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return dict(zip(columns, said, strict=True))


def _answer(
    predictor: Any, model: Served, asked: "Asked", id_column: str, time_column: str
) -> tuple[Answered, dict[int, str]]:
    """The answers to the rows that have none of `faults`, and these."""
    import pyarrow as pa

    faults = dict(asked.faults)
    for column in filter(None, (id_column, time_column)):
        for row, value in enumerate(asked.batch[column].to_pylist()):
            if value is None:
                faults.setdefault(row, f"{column}: is missing")
    good = [row for row in range(asked.batch.num_rows) if row not in faults]
    whole = asked.batch.take(pa.array(good, pa.int64()))
    rows = _rows(whole, model)
    ids = list(map(str, whole[id_column].to_pylist())) if id_column else [asked.row_ids[row] for row in good]
    times = [_moment(value) for value in whole[time_column].to_pylist()] if time_column else now(len(good))
    return Answered(ids, times, rows, predictor(rows) if rows else []), faults


def _moment(value: Any) -> datetime:
    """A timestamp or a date of the contract as a moment, UTC."""
    return value if isinstance(value, datetime) else datetime(value.year, value.month, value.day, tzinfo=UTC)


def _out_schema(model: Served, labels: list[str]) -> "pa.Schema":
    import pyarrow as pa

    facts = {"format": FORMAT, "model": model.version.ref, "digest": model.version.model, "labels": labels}
    return pa.schema(
        [
            ("id", pa.string()),
            ("label", pa.string()),
            ("confidence", pa.float64()),
            *([("probabilities", pa.list_(pa.float32()))] if labels else []),
            ("error", pa.string()),
        ],
        metadata={METADATA: json.dumps(facts).encode()},
    )


def _out_table(
    schema: "pa.Schema", asked: "Asked", answered: Answered, faults: dict[int, str], id_column: str
) -> "pa.Table":
    import pyarrow as pa

    labels = json.loads(schema.metadata[METADATA])["labels"]
    answers: Iterator[dict[str, Any]] = iter(answered.answers)
    given = asked.batch[id_column].to_pylist() if id_column else asked.row_ids
    rows = []
    for row in range(asked.batch.num_rows):
        one: dict[str, Any] = {"id": None if given[row] is None else str(given[row]), "error": faults.get(row)}
        if row not in faults:
            answer = next(answers)
            one |= {"label": str(answer["label"]), "confidence": answer.get("confidence")}
            if answer.get("scores"):
                one["probabilities"] = [answer["scores"][label] for label in labels]
        rows.append(one)
    return pa.Table.from_pylist(rows, schema=schema)
