"""A corpus: text files, one document each, in an encoding of its own where it has one.

Documents stay whole, so splits are of documents, by slipway.split's files or group; or each document is cut into
stretches, one a split, as language models that are measured on the end of one long text need it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts.places import Place, places
from data_contracts.source import Unreadable
from data_contracts.splits import SPLITS
from data_contracts.text_lines import NUL, open_lines
from infra.errors import WrongInput, choices

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract
    from infra.progress import Progress

    Found = Iterator[pa.RecordBatch | Unreadable]

SERVER = {"path": str, "format": str, "files": list, "encoding": str, "encodings": dict, "cut": dict}
"""path: a folder, a file or a glob; files: names or globs below the folder (default: those that slipway.split.files
names, else *.txt); encoding: default utf-8, or `detect`; encodings: file -> its own; cut: {train: 0.9, validation: 0.1}
cuts each document by characters, the training part first, then validation, then test. Columns: text, document (the
file), split (with cut)."""

MAX_DOCUMENT = 1 << 28
BATCH_CHARACTERS = 1 << 24
BATCH_ROWS = 1024


def fingerprint(contract: "Contract", uri: str | None, cache: Path) -> dict[str, Any]:
    return {"files": [place.fingerprint() for place in places(contract, uri, cache, default="**/*.txt")]}


def read(contract: "Contract", uri: str | None, cache: Path, progress: "Progress | None") -> "Found":
    cut = _cut(contract)
    there = ["text", "document", *(["split"] if cut else [])]
    for column in contract.columns:
        if column.there not in there:
            raise WrongInput(
                f"contract {contract.path}: schema.properties.{column.name}: a corpus has no '{column.there}'; "
                f"{choices(column.there, there)}"
            )
    found = places(contract, uri, cache, default="**/*.txt")
    rows: list[dict[str, str]] = []
    for number, place in enumerate(found, start=1):
        text = _text(contract, place)
        if "\0" in text or not text.strip():
            yield from _batch(contract, rows)
            reason = NUL if text.strip() else "is an empty document"
            yield Unreadable(place.name, 1, 1, text.encode(errors="replace")[: 1 << 20], reason)
            rows = []
        else:
            rows += [{"text": part, "document": place.name, "split": name} for name, part in _parts(text, cut)]
        if len(rows) >= BATCH_ROWS or sum(len(row["text"]) for row in rows) >= BATCH_CHARACTERS:
            yield from _batch(contract, rows)
            rows = []
        if progress is not None:
            progress.update(number, len(found), "documents read")
    yield from _batch(contract, rows)


def _cut(contract: "Contract") -> dict[str, float]:
    cut = contract.server.get("cut") or {}
    for name, share in cut.items():
        if name not in SPLITS:
            raise WrongInput(f"contract {contract.path}: slipway.cut: '{name}': {choices(name, SPLITS)}")
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise WrongInput(f"contract {contract.path}: slipway.cut.{name}: {share!r} is no share between 0 and 1")
    if cut and abs(sum(cut.values()) - 1) > 1e-9:
        raise WrongInput(f"contract {contract.path}: slipway.cut: the shares sum to {sum(cut.values()):g}, not to 1")
    return cut


def _parts(text: str, cut: dict[str, float]) -> Iterator[tuple[str, str]]:
    start, before = 0, 0.0
    for name in SPLITS:
        before += cut.get(name, 0)
        end = len(text) if before > 1 - 1e-9 else int(before * len(text))
        if end > start:
            yield name, text[start:end]
        start = end
    if not cut:
        yield "", text


def _text(contract: "Contract", place: Place) -> str:
    with open_lines(contract, place) as lines:
        return lines.whole(MAX_DOCUMENT)


def _batch(contract: "Contract", rows: list[dict[str, str]]) -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa

    if rows:
        metadata = {"files": json.dumps([row["document"] for row in rows])}
        columns = [pa.array([row[column.there] for row in rows], pa.string()) for column in contract.columns]
        schema = pa.schema([(column.name, pa.string()) for column in contract.columns], metadata)
        yield pa.record_batch(columns, schema=schema)
