"""The inference log: what a model saw and what it said, for `slipway monitor`.

    inference/<model>/<UTC day of writing>/<uuid>.parquet        written whole by one put, never changed

Any server may drop files there. The key `slipway.inference` in a file's metadata is the JSON `{"format": 1}`, and with
probabilities `{"format": 1, "labels": [...]}`. Its columns (docs/inference.md says the same for other programs):

    id              string          whatever names the answer when its label comes; need not be unique
    time            timestamp       with a time zone: when it was asked, or what moment it is about
    version         integer         N of the model version NAME/N that answered
    model           string, may be absent     digest of that version's files
    input.<column>  the contract's type; of a column that the contract marks as personal, its hash as a string
    prediction      string; the hash of a personal label
    confidence      double          0 to 1, null where the model gives none
    probabilities   list of floats, may be absent      in the order of `labels`

Other columns are left alone. A file that does not fit is named with its reason, and the others are read.
"""

import json
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from infra.errors import SlipwayError, WrongInput
from infra.store import NotFound, Store

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract
    from flows.models import ModelVersion

FORMAT = 1
METADATA = b"slipway.inference"
INPUT = "input."
FLUSH_S = 5.0
"""An answer is in the store at most so much later: what a kill -9 of the server loses."""
BATCH_ROWS = 8192
"""Rows that are written before those seconds are over."""
WAITING_ROWS = 200_000
"""Answers that wait for a store which is away; then the oldest are dropped, and counted."""


def logged_inputs(contract: "Contract") -> list[str]:
    """The input columns that the log holds: all but images, whose pixels are no log's affair."""
    return [name for name in contract.inputs if contract.column(name).type != "image"]


@dataclass(frozen=True)
class Answered:
    """Rows and the answers to them, in one order."""

    ids: Sequence[str]
    times: Sequence[datetime]
    rows: Sequence[dict[str, Any]]
    """Input columns as the model was given them."""
    answers: Sequence[dict[str, Any]]
    """`label`, and `confidence` and `scores` where the model gives them."""


class LogFormat:
    """The files of one model version under its contract."""

    def __init__(self, version: "ModelVersion", contract: "Contract", labels: Sequence[str] = ()):
        import pyarrow as pa

        from data_contracts.row_sample import personal_columns
        from data_contracts.rows import arrow_type

        self.version, self.contract, self.personal = version, contract, personal_columns(contract)
        # A personal label is logged as its hash, and then no probabilities: their labels would stand in the metadata.
        self.labels = [] if contract.label in self.personal else list(labels)
        self.inputs = {name: arrow_type(contract.column(name).arrow) for name in logged_inputs(contract)}
        facts = {"format": FORMAT, **({"labels": self.labels} if self.labels else {})}
        self.schema = pa.schema(
            [
                pa.field("id", pa.string(), nullable=False),
                pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
                pa.field("version", pa.int64(), nullable=False),
                pa.field("model", pa.string()),
                *((INPUT + name, pa.string() if name in self.personal else kind) for name, kind in self.inputs.items()),
                pa.field("prediction", pa.string(), nullable=False),
                ("confidence", pa.float64()),
                *([("probabilities", pa.list_(pa.float32()))] if self.labels else []),
            ],
            metadata={METADATA: json.dumps(facts).encode()},
        )

    def shown(self, label: str) -> str:
        """A label as the log holds it."""
        from data_contracts.row_sample import hidden

        return hidden(label, self.contract) if self.contract.label in self.personal else label

    def table(self, parts: Iterable[Answered]) -> "pa.Table":
        """The rows of a file. Raises ValueError or pa.ArrowException for values that are none of the contract's."""
        import pyarrow as pa

        from data_contracts.row_sample import hidden

        parts = list(parts)
        ids = [one for part in parts for one in part.ids]
        rows = [one for part in parts for one in part.rows]
        answers = [one for part in parts for one in part.answers]
        columns: dict[str, Any] = {
            "id": ids,
            "time": [one for part in parts for one in part.times],
            "version": [self.version.version] * len(ids),
            "model": [self.version.model] * len(ids),
            "prediction": [self.shown(str(one["label"])) for one in answers],
            "confidence": [one.get("confidence") for one in answers],
        }
        for name, kind in self.inputs.items():
            values = pa.array([row.get(name) for row in rows], kind, from_pandas=True)  # not a number is no value
            if name in self.personal:
                values = [None if one is None else hidden(one, self.contract) for one in values.to_pylist()]
            columns[INPUT + name] = values
        if self.labels:
            columns["probabilities"] = [
                [one["scores"][label] for label in self.labels] if one.get("scores") else None for one in answers
            ]
        return pa.table([pa.array(columns[one.name], one.type) for one in self.schema], schema=self.schema)


def write(store: Store, name: str, table: "pa.Table", place: str = "") -> str:
    """Put the rows of a model into its log as one file. place: `<day>/<name>` of rows that an earlier try may have put
    there already. Returns the file's key."""
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd")
    key = f"inference/{name}/{place or f'{datetime.now(UTC):%Y-%m-%d}/{uuid.uuid4().hex}'}.parquet"
    if place:
        store.create(key, sink.getvalue().to_pybytes())
    else:
        store.put(key, memoryview(sink.getvalue()))
    return key


class LogWriter:
    """Writes the log beside what answers: `add` only hands over, a thread makes files. Close it, or use it in `with`.

    A store that is away costs no answer: what waits is written when it is back.
    """

    def __init__(self, store: Store, form: LogFormat, say: Any = lambda line: None):
        self.store, self.form, self.say = store, form, say
        self.written = self.dropped = 0
        """Rows."""
        self._handed: SimpleQueue[Answered] = SimpleQueue()
        self._waiting: list[Answered] = []
        self._unseen = 0
        """Rows handed over since the thread last looked; nearly, for it is counted without a lock."""
        self._wake, self._ended, self._away = threading.Event(), False, False
        self._thread = threading.Thread(target=self._run, name="inference log", daemon=True)
        self._thread.start()

    def add(self, answered: Answered) -> None:
        self._handed.put(answered)
        self._unseen += len(answered.ids)
        if self._unseen >= BATCH_ROWS:
            self._wake.set()

    def __enter__(self) -> "LogWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what waits. Raises SlipwayError when the store does not take it."""
        self._ended = True
        self._wake.set()
        self._thread.join()
        self._flush()
        if self._waiting:
            lost = sum(len(one.ids) for one in self._waiting)
            raise SlipwayError(f"inference log of {self.form.version.name}: {lost:,} answers could not be written")

    def _run(self) -> None:
        while not self._ended:
            self._wake.wait(FLUSH_S)
            self._wake.clear()
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        self._unseen = 0
        try:
            while True:
                self._waiting.append(self._handed.get_nowait())
        except Empty:
            pass
        if not self._waiting:
            return
        try:
            table = self.form.table(self._waiting)
        except (ValueError, TypeError, pa.ArrowException) as error:
            self._drop(f"answers that do not fit the contract are not logged ({error})", len(self._waiting))
            return
        try:
            write(self.store, self.form.version.name, table)
        except (SlipwayError, OSError) as error:
            if not self._away:
                self.say(f"the inference log waits for the store ({error})")
            self._away = True
            while sum(len(one.ids) for one in self._waiting) > WAITING_ROWS:
                self._drop("the store is away: the oldest answers are not logged", 1)
            return
        self._away = False
        self.written += table.num_rows
        self._waiting.clear()

    def _drop(self, why: str, parts: int) -> None:
        rows = sum(len(one.ids) for one in self._waiting[:parts])
        del self._waiting[:parts]
        self.dropped += rows
        self.say(f"{why}; {self.dropped:,} so far")


def now(rows: int) -> list[datetime]:
    return [datetime.fromtimestamp(time.time(), UTC)] * rows


# Reading ------------------------------------------------------------------------------------------------------------


@dataclass
class Log:
    """What of a model's log was read."""

    table: "pa.Table"
    """Columns id, time, version, input.*, prediction, confidence; of the version that was asked for."""
    files: int = 0
    misfits: list[str] = field(default_factory=list)
    """One line for each file that does not fit the schema."""
    others: dict[int, int] = field(default_factory=dict)
    """Answers of other versions that were passed over, by version."""


def log_keys(store: Store, name: str, since: datetime | None = None) -> list[str]:
    """The files of a model's log, those written on an earlier day than `since` left out."""
    after = f"inference/{name}/{since.astimezone(UTC):%Y-%m-%d}" if since else ""
    return [key for key in store.list(f"inference/{name}/", after) if key.endswith(".parquet")]


def read_log(store: Store, keys: Sequence[str], form: LogFormat) -> Log:
    """Read those files in a process of its own: another program may have written anything into them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from data_contracts.native import Native, Unreadable

    wanted = [one.name for one in form.schema if one.name != "probabilities"]
    empty = pa.table({name: pa.array([], form.schema.field(name).type) for name in wanted if name != "model"})
    found, parts = Log(empty), [empty]
    with Native() as native:
        for key in keys:
            try:
                table = _fitting(native.table(store.local_path(key), "parquet", wanted, BATCH_ROWS), form, wanted)
            except (WrongInput, Unreadable, NotFound) as error:
                reason = "is gone" if isinstance(error, NotFound) else f"is not whole Parquet ({error})"
                found.misfits.append(f"{key}: {error if isinstance(error, WrongInput) else reason}")
                continue
            found.files += 1
            for entry in table["version"].value_counts().to_pylist():
                if entry["values"] != form.version.version:
                    found.others[entry["values"]] = found.others.get(entry["values"], 0) + entry["counts"]
            parts.append(table.filter(pc.equal(table["version"], form.version.version)))
    found.table = pa.concat_tables(parts)
    return found


def _fitting(batches: Iterable["pa.RecordBatch"], form: LogFormat, wanted: list[str]) -> "pa.Table":
    """The file's rows in the log's types, without `model`. Raises WrongInput: what does not fit, and what would."""
    import pyarrow as pa
    import pyarrow.compute as pc

    head, *rest = batches
    needed = [name for name in wanted if name != "model"]
    for name in needed:
        if name not in head.schema.names:
            raise WrongInput(f"has no column '{name}'")
    if not rest:
        return form.schema.empty_table().select(needed)
    table = pa.Table.from_batches(rest)
    _check_metadata(table.schema.metadata or {})
    if not pa.types.is_timestamp(table.schema.field("time").type) or table.schema.field("time").type.tz is None:
        raise WrongInput(f"'time' is {table.schema.field('time').type}; write a timestamp with a time zone")
    for name in ("id", "time", "version", "prediction"):
        if table[name].null_count:
            raise WrongInput(f"'{name}' is null in {table[name].null_count:,} rows; each needs one")
    try:
        cast = pa.table({name: table[name].cast(form.schema.field(name).type) for name in needed})
    except pa.ArrowException as error:
        raise WrongInput(f"a column is of another type than {form.contract.name} says ({error})") from None
    sure = pc.min_max(cast["confidence"]).as_py()
    if sure["min"] is not None and not 0 <= sure["min"] <= sure["max"] <= 1:
        raise WrongInput(f"'confidence' goes from {sure['min']:g} to {sure['max']:g}; write 0 to 1")
    for name in form.personal & set(form.inputs):
        if pc.all(pc.match_substring_regex(cast[INPUT + name], "^#[0-9a-f]{16}$")).as_py() is False:  # None: no value
            raise WrongInput(f"'{INPUT}{name}' is personal and not hashed; write # and 16 hex digits")
    if "model" in table.column_names:
        own = table.filter(pc.equal(cast["version"], form.version.version))["model"].drop_null()
        strange = pc.unique(own.filter(pc.not_equal(own.cast(pa.string()), form.version.model))).to_pylist()
        if strange:
            raise WrongInput(f"'model' {strange[0][:12]} is not the digest of {form.version.ref}")
    return cast


def _check_metadata(metadata: dict[bytes, bytes]) -> None:
    from infra.artifacts import check_format

    try:
        facts = json.loads(metadata[METADATA])
    except KeyError:
        raise WrongInput(f"its metadata have no '{METADATA.decode()}'; write {{\"format\": {FORMAT}}}") from None
    except ValueError:
        raise WrongInput(f"'{METADATA.decode()}' in its metadata is not JSON; write {{\"format\": {FORMAT}}}") from None
    check_format(facts, FORMAT, f"'{METADATA.decode()}' in its metadata")
