"""A draft contract: a sample is profiled, and what it shows is written down for a person to prune.

What is drafted registers as it is: types that nearly all of the sample's values have, ranges and categories as
warnings, splits that are not empty. Every guess carries its reason as a comment.
"""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from data_contracts import hints
from data_contracts.contract import parse_contract
from data_contracts.draft_roles import LONG_TEXT, Seen
from data_contracts.draft_server import Found, look
from data_contracts.draft_text import Text
from data_contracts.source import Unreadable, load_source
from infra.errors import WrongInput

SAMPLE_ROWS = 20_000
SAMPLE_BATCHES = 64


def draft(address: str) -> str:
    """The contract of a file or folder, as YAML with comments. Raises WrongInput for what no source reads."""
    path = Path(address.removeprefix("file://"))
    if not path.exists():
        raise WrongInput(f"source {path}: no such file or folder; give one that is there")
    found = look(path)
    path = found.folder or path
    sample, columns, unreadable = _sample(found, path)
    marks: list[str] = []
    seen = [_see(column, sample, found, marks) for column in columns]
    return Text(found, path, seen, marks, unreadable, len(next(iter(sample.values()), []))).text()


def _sample(found: Found, path: Path) -> tuple[dict[str, list[Any]], list[tuple[str, str]], int]:
    """Values of the first rows by column, (name, physical name) of each, and how many rows could not be parsed."""
    document: dict[str, Any] = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "draft",
        "version": "1.0.0",
        "servers": [found.section(str(path))],
        "schema": [{"name": "rows", "properties": [found.property(name) for name in found.columns]}],
    }
    if found.split:
        document["customProperties"] = [{"property": "slipway.split", "value": found.split}]
    provisional = parse_contract(yaml.safe_dump(document), f"draft of {path}")
    rows: dict[str, list[Any]] = {column.name: [] for column in provisional.columns}
    unreadable = 0
    stream = load_source(provisional.source).read(provisional, str(path), path.parent, None)
    for batch in islice(stream, SAMPLE_BATCHES):
        if isinstance(batch, Unreadable):
            unreadable += 1
            continue
        for name, values in rows.items():
            column = batch.column(name)
            values += [True] * len(column) if name in provisional.images else column.to_pylist()
        if len(next(iter(rows.values()))) >= SAMPLE_ROWS:
            break
    if not any(rows.values()):
        raise WrongInput(f"source {path}: none of its first rows could be read; is it what its name says?")
    return rows, [(column.name, column.there) for column in provisional.columns], unreadable


def _see(column: tuple[str, str], sample: dict[str, list[Any]], found: Found, marks: list[str]) -> Seen:
    name, physical = column
    if name in found.types:
        kind, width = found.types[name]
        values = [value for value in sample[name] if value is not None and value == value]
        if kind == "array":  # a format of texts gives the text of a list
            values = [json.loads(value) if isinstance(value, str) else value for value in values]
        return _remark(
            Seen(name, physical, kind, width, values, len(sample[name]) - len(values), found.items.get(name))
        )
    texts = [None if value is None or value == "" else str(value) for value in sample[name]]
    present = [text for text in texts if text is not None]
    own = hints.missing_marks(present)
    if own:
        marks += [mark for mark in own if mark not in marks]
        present = [text for text in present if text not in own]
    seen = Seen(name, physical, "string", None, list(present), len(texts) - len(present))
    if present:
        seen.kind, seen.odd = hints.type_of(present)
        readers: dict[str, Any] = {"integer": int, "number": float}
        if seen.kind in readers:
            good = [text for text in present if hints.type_of([text])[0] in ("integer", "number")]
            seen.values = [
                readers[seen.kind](text) for text in good if seen.kind == "number" or text.strip("+- ").isdigit()
            ]
    return _remark(seen)


def _remark(seen: Seen) -> Seen:
    total = len(seen.values) + seen.missing
    seen.personal = hints.personal(seen.name, seen.kind, seen.values[:2000])
    if not seen.values:
        seen.notes.append("without any value in the sample: its type is a guess")
    elif seen.missing:
        seen.notes.append(f"{seen.missing / total:.1%} of the sample has no value")
    if seen.odd:
        seen.notes.append(f"{seen.odd:.1%} of the values are no {seen.kind}: those rows would be quarantined")
    if seen.values and len(seen.values) > 1 and seen.distinct == 1 and seen.kind != "image":
        seen.notes.append("the same in every row of the sample")
    if seen.kind == "string" and seen.mean_length > LONG_TEXT:
        spoken = hints.language([str(value) for value in seen.values[:2000]])
        if spoken:
            seen.notes.append(f"looks like {spoken}")
    if seen.personal:
        seen.notes.append(f"may be the {seen.personal}: kept out of reports until you take the mark off")
    return seen
