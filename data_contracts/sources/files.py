"""Files: CSV, TSV, lines, JSON, JSONL, Parquet or Arrow; one path, a glob, or a folder and the contract's patterns.

A row that cannot be parsed is kept apart with file and line; a file that is empty, truncated, not in its encoding or
not what its format says refuses the whole registration. Text files may be gzipped. Parquet and Arrow files are opened
by a process of their own.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts.embedded_images import TABLE_ROWS, decode_images, derived_names
from data_contracts.native import Native, names_of
from data_contracts.native import Unreadable as NotDecoded
from data_contracts.places import Place, places
from data_contracts.source import Unreadable
from data_contracts.text_files import (
    BATCH_ROWS,
    Say,
    check_columns,
    origin,
    read_delimited,
    read_json,
    read_jsonl,
    read_lines,
)
from infra.errors import WrongInput, choices

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract
    from infra.progress import Progress

    Found = Iterator[pa.RecordBatch | Unreadable]

SERVER = {
    "path": str,
    "format": str,
    "files": list,
    "encoding": str,
    "encodings": dict,
    "delimiter": str,
    "header": bool,
    "quoting": bool,
    "columns": list,
    "skip": int,
    "fill": bool,
    "separator": str,
    "separator_at": str,
    "records": str,
    "mode": str,
}
"""path: relative to the contract's folder; a file, a glob, or a folder with `files` (names and globs below it; default:
those that slipway.split.files names); format: csv, tsv, lines, json, jsonl, parquet or arrow; encoding: default utf-8,
or `detect`; encodings: file -> its own; delimiter: one character; header: false when the first line is a row; quoting:
false when quotes are plain text; columns: what the file's columns are called, instead of its header; skip: lines before
the header that say something else; fill: true when a row that ends early has no value in its last columns; separator:
what joins the two columns of a line, at its `first` or its `last` (separator_at); records: the key that a JSON document
keeps its rows under; mode: what images in Parquet and Arrow are converted to, as for source images."""

FORMATS = {
    "csv": "csv",
    "tsv": "tsv",
    "lines": "lines",
    "json": "json",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "parquet": "parquet",
    "arrow": "arrow",
    "feather": "arrow",
    "ipc": "arrow",
}
READERS = {"csv": read_delimited, "tsv": read_delimited, "lines": read_lines, "json": read_json, "jsonl": read_jsonl}


def _format(contract: "Contract", place: Place) -> str:
    suffixes = [suffix.lower() for suffix in Path(place.name).suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    ending = suffixes[-1].lstrip(".") if suffixes else ""
    said = str(contract.server.get("format", "")).lower()
    # A file is named for what it holds, but emotion's `train.txt` and a CSV called `x.data` are what the contract says.
    kind = "lines" if said == "lines" else FORMATS.get(ending) or FORMATS.get(said)
    if kind is None:
        raise WrongInput(
            f"source {place.address}: format '{said or ending}' is not read; {choices(said or ending, FORMATS)}"
        )
    return kind


def fingerprint(contract: "Contract", uri: str | None, cache: Path) -> dict[str, Any]:
    return {"files": [place.fingerprint() for place in places(contract, uri, cache)]}


def read(contract: "Contract", uri: str | None, cache: Path, progress: "Progress | None") -> "Found":
    found = places(contract, uri, cache)
    kinds = [_format(contract, place) for place in found]
    for place, kind in zip(found, kinds, strict=True):
        if contract.images and kind in READERS:
            raise WrongInput(
                f"source {place.address}: column '{contract.images[0]}': no {kind} holds images; where it names their "
                "files, read it with slipway.source: images"
            )
    paths = [place.local() for place in found]
    sizes = [path.stat().st_size for path in paths]
    before = 0
    with Native() as native:
        for place, kind, size in zip(found, kinds, sizes, strict=True):
            if size == 0:
                raise WrongInput(f"source {place.address}: is empty; give a file with rows")

            def say(bytes_read: int, before: int = before, name: str = place.name) -> None:
                if progress is not None:
                    progress.update((before + bytes_read) / 1e6, sum(sizes) / 1e6, f"reading {name} (MB)")

            rows = 0
            reader = READERS.get(kind)
            batches = reader(contract, place, kind, say) if reader else _table(contract, place, kind, native, say)
            for batch in batches:
                rows += 1 if isinstance(batch, Unreadable) else batch.num_rows
                yield batch
            if not rows:
                raise WrongInput(f"source {place.address}: has no rows; give a file with at least one")
            before += size


def _table(contract: "Contract", place: Place, kind: str, native: Native, say: Say) -> "Found":
    derived = derived_names(contract)
    columns = tuple(column for column in contract.columns if column.name not in derived)
    wanted = [column.there for column in columns]
    path = place.local()
    try:
        batches = native.table(path, kind, wanted, TABLE_ROWS if contract.images else BATCH_ROWS)
        head = next(batches)
        check_columns(replace(contract, columns=columns), place, names_of(head, f"source {place.address}"))
        total, size = int(head.schema.metadata[b"rows"]), path.stat().st_size
        first = 1
        with Native() as decoder:
            for batch in batches:
                batch = batch.select(wanted).rename_columns([column.name for column in columns])
                if contract.images:
                    decoded = decode_images(batch, contract, decoder, place.name, first)
                    yield from (one if isinstance(one, Unreadable) else _sized(one, total, size) for one in decoded)
                else:
                    yield _sized(batch.replace_schema_metadata(origin(place, first)), total, size)
                first += batch.num_rows
                say(int(size * (first - 1) / max(total, first)))
    except NotDecoded as error:
        name = {"parquet": "Parquet", "arrow": "Arrow"}[kind]
        raise WrongInput(f"source {place.address}: is not whole {name} ({error}); write it again") from None


def _sized(batch: "pa.RecordBatch", rows: int, size: int) -> "pa.RecordBatch":
    """The batch with what its file says of itself, for the estimate: a compressed one's size tells little."""
    facts = {"file_rows": str(rows), "file_bytes": str(size)} if rows else {}
    return batch.replace_schema_metadata((batch.schema.metadata or {}) | facts)
