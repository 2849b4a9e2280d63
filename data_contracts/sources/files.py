"""Files: CSV, TSV, JSONL or Parquet, one path or a glob; several files are read in the order of their path's bytes.

A CSV's or JSONL's values stay text until the contract's types are known ("007" is a postcode, or seven: the contract
says). A row that cannot be parsed is kept apart with file and line; a file that is empty, truncated, not in its
encoding or not what its format says refuses the whole registration.
"""

import csv
import glob
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from data_contracts.source import Unreadable
from infra.errors import WrongInput, choices

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract
    from infra.progress import Progress

    Found = Iterator[pa.RecordBatch | Unreadable]

SERVER = {"path": str, "format": str, "encoding": str, "delimiter": str, "header": bool, "quoting": bool}
"""path: relative to the contract's folder, may be a glob; format: csv, tsv, jsonl or parquet; encoding: default utf-8;
delimiter: one character; header: false when the first line is a row; quoting: false when quotes are plain text."""

FORMATS = {"csv": "csv", "tsv": "tsv", "jsonl": "jsonl", "ndjson": "jsonl", "parquet": "parquet"}
BATCH_ROWS = 8192
MAX_FIELD = 1 << 24
"""Characters; a longer CSV field is a quote that was never closed."""


def _paths(contract: "Contract", uri: str | None) -> list[Path]:
    """The files in order. Raises WrongInput where there is none."""
    if uri is not None:
        pattern = uri.removeprefix("file://")
    else:
        pattern = os.path.join(os.path.dirname(contract.path), contract.server["path"].removeprefix("file://"))
    if os.path.isdir(pattern):
        raise WrongInput(
            f"source {pattern}: is a folder; name a file, or a glob such as {os.path.join(pattern, '*.csv')}"
        )
    names = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
    paths = [Path(name) for name in sorted(names, key=os.fsencode) if not os.path.isdir(name)]
    if not paths:
        raise WrongInput(f"source {pattern}: no such file; mend `servers[0].path` in {contract.path} or give --source")
    for path in paths:
        if not path.is_file() or not os.access(path, os.R_OK):
            raise WrongInput(f"source {path}: cannot be read; it must be a file that you may open")
    return paths


def _format(contract: "Contract", path: Path) -> str:
    ending = path.suffix.lstrip(".").lower()
    said = str(contract.server.get("format", "")).lower()
    kind = FORMATS.get(ending) or FORMATS.get(said)
    if kind is None:
        raise WrongInput(f"source {path}: format '{said or ending}' is not read; {choices(said or ending, FORMATS)}")
    return kind


def fingerprint(contract: "Contract", uri: str | None, cache: Path) -> dict[str, Any]:
    paths = _paths(contract, uri)
    stats = [(os.path.abspath(path), path.stat()) for path in paths]
    return {"files": [[path, stat.st_size, stat.st_mtime_ns] for path, stat in stats]}


def read(contract: "Contract", uri: str | None, cache: Path, progress: "Progress | None") -> "Found":
    paths = _paths(contract, uri)
    kinds = [_format(contract, path) for path in paths]
    total = sum(path.stat().st_size for path in paths)
    before = 0
    for path, kind in zip(paths, kinds, strict=True):
        if path.stat().st_size == 0:
            raise WrongInput(f"source {path}: is empty; give a file with rows")

        def say(bytes_read: int, before: int = before, path: Path = path) -> None:
            if progress is not None:
                progress.update((before + bytes_read) / 1e6, total / 1e6, f"reading {path.name} (MB)")

        rows = 0
        reader = {"csv": _read_delimited, "tsv": _read_delimited, "jsonl": _read_jsonl, "parquet": _read_parquet}[kind]
        for found in reader(contract, path, kind, say):
            rows += 1 if isinstance(found, Unreadable) else found.num_rows
            yield found
        if not rows:
            raise WrongInput(f"source {path}: has no rows; give a file with at least one")
        before += path.stat().st_size


def _check_columns(contract: "Contract", path: Path, there: list[str]) -> None:
    for column in contract.columns:
        if column.name not in there:
            raise WrongInput(
                f"source {path}: has no column '{column.name}', which contract {contract.path} names; "
                f"{choices(column.name, there)}"
            )


def _text_batch(names: list[str], rows: list[list[str | None]], path: Path, first: int) -> "pa.RecordBatch":
    import pyarrow as pa

    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    return pa.record_batch(columns, schema=pa.schema([(name, pa.string()) for name in names], _origin(path, first)))


def _origin(path: Path, first: int) -> dict[str, str]:
    return {"file": path.name, "row": str(first)}


class _Lines:
    """Lines of a text file, remembering those handed out since the last `take`, and how many bytes were read."""

    def __init__(self, path: Path, encoding: str):
        self.path, self.encoding = path, encoding
        self.number = 0
        self.recent: list[str] = []
        self.file: IO[str] = open(path, encoding=encoding, newline="")  # noqa: SIM115 closed by `with` below

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        try:
            line = self.file.readline()
        except UnicodeDecodeError as error:
            raise WrongInput(
                f"source {self.path}: is not {self.encoding.removesuffix('-sig')} after line {self.number} "
                f"(byte 0x{error.object[error.start]:02x}); save it as UTF-8 or set the server's encoding"
            ) from None
        if not line:
            raise StopIteration
        self.number += 1
        self.recent.append(line)
        return line

    def take(self) -> str:
        text = "".join(self.recent)
        self.recent.clear()
        return text

    def encode(self, text: str) -> bytes:
        return text.rstrip("\r\n").encode(self.encoding.removesuffix("-sig"))

    def position(self) -> int:
        return self.file.buffer.tell()  # type: ignore[attr-defined]


def _open(contract: "Contract", path: Path) -> _Lines:
    import codecs

    encoding = contract.server.get("encoding", "utf-8")
    try:
        encoding = codecs.lookup(encoding).name
        "".encode(encoding)
    except (LookupError, TypeError):
        raise WrongInput(
            f"contract {contract.path}: servers[0].encoding '{encoding}' is unknown; write utf-8 or latin-1"
        ) from None
    return _Lines(path, "utf-8-sig" if encoding == "utf-8" else encoding)


def _read_delimited(contract: "Contract", path: Path, kind: str, say: Callable[[int], None]) -> "Found":
    server = contract.server
    delimiter = server.get("delimiter", "\t" if kind == "tsv" else ",")
    if len(delimiter) != 1 or delimiter in '\r\n"':
        raise WrongInput(f"contract {contract.path}: servers[0].delimiter {delimiter!r} cannot be one")
    csv.field_size_limit(MAX_FIELD)
    quoted = server.get("quoting", True)
    with _open(contract, path) as lines:
        # strict: text after a closing quote and a quote that is never closed are faults, not values
        quoting: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
        names = [column.name for column in contract.columns]
        if server.get("header", True):
            names = _header(reader, path, lines)
            _check_columns(contract, path, names)
        rows: list[list[str | None]] = []
        number = first = 1
        while True:
            line = lines.number + 1
            row, reason = _record(reader, path, line)
            raw = lines.take()
            if row == [] and not reason:
                continue  # an empty line is no row in any CSV reader
            if row is not None and len(row) != len(names) and not reason:
                reason = f"has {len(row)} fields, not {len(names)}"
            if rows and (row is None or reason or len(rows) >= BATCH_ROWS):
                yield _text_batch(names, rows, path, first)
                say(lines.position())
                rows = []
            if row is None:
                return
            if reason:
                yield Unreadable(path.name, number, line, lines.encode(raw), reason)
            else:
                if not rows:
                    first = number
                rows.append(list(row))
            number += 1


def _header(reader: Any, path: Path, lines: _Lines) -> list[str]:
    names, reason = _record(reader, path, 1)
    lines.take()
    if names is None:
        raise WrongInput(f"source {path}: is empty; give a file with rows")
    for name in names:
        if not name.strip() or names.count(name) > 1:
            reason = f"the column '{name}' twice" if name.strip() else "a column without a name"
    if reason or not names:
        raise WrongInput(
            f"source {path}: line 1: the header has {reason or 'no column'}; mend it, or set slipway.header: false"
        )
    return names


def _record(reader: Any, path: Path, line: int) -> tuple[list[str] | None, str]:
    """The next record and what is wrong with it; None at the end. Raises WrongInput when a quote is never closed."""
    try:
        return next(reader), ""
    except StopIteration:
        return None, ""
    except csv.Error as error:
        if "end of data" in str(error) or "field limit" in str(error):
            raise WrongInput(
                f"source {path}: line {line}: a quote opened there is never closed; mend it (was the file cut off?), "
                "or set slipway.quoting: false"
            ) from None
        return [], f"is not CSV: {error} (where quotes are plain text, set slipway.quoting: false)"


def _read_jsonl(contract: "Contract", path: Path, kind: str, say: Callable[[int], None]) -> "Found":
    names = [column.name for column in contract.columns]
    seen: set[str] = set()
    rows: list[list[str | None]] = []
    number = first = good = 0
    with _open(contract, path) as lines:
        for line in lines:
            lines.take()
            if not line.strip():
                continue
            number += 1
            values, reason = _json_row(line, names, seen)
            if values is None:
                if not line.endswith(("\n", "\r")) and not line.rstrip().endswith("}"):
                    raise WrongInput(
                        f"source {path}: line {lines.number}: ends in the middle of a row; the file is truncated"
                    )
                if rows:
                    yield _text_batch(names, rows, path, first)
                    rows = []
                yield Unreadable(path.name, number, lines.number, lines.encode(line), reason)
                continue
            if not rows:
                first = number
            good += 1
            rows.append(values)
            if len(rows) >= BATCH_ROWS:
                yield _text_batch(names, rows, path, first)
                rows = []
                say(lines.position())
        if number and not good:
            raise WrongInput(f"source {path}: is not JSONL (no line is a JSON object); one object a line is needed")
        if good:
            _check_columns(contract, path, sorted(seen))
        if rows:
            yield _text_batch(names, rows, path, first)
            say(lines.position())


def _json_row(line: str, names: list[str], seen: set[str]) -> tuple[list[str | None] | None, str]:
    """The contract's columns of one object as text, and of a bad line the reason. JSON's 7 is a CSV's 7."""
    try:
        body = json.loads(line, parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError) as error:
        return None, f"is not JSON ({str(error).splitlines()[0][:80]})"
    if not isinstance(body, dict):
        return None, "is not a JSON object"
    seen.update(body)
    values: list[str | None] = []
    for name in names:
        value = body.get(name)
        if isinstance(value, (dict, list)):
            return None, f"'{name}' holds {'an object' if isinstance(value, dict) else 'a list'}, not a value"
        if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
            return None, f"'{name}' holds half a character (a lone surrogate)"
        values.append(("true" if value else "false") if isinstance(value, bool) else value)
    return values, ""


def _read_parquet(contract: "Contract", path: Path, kind: str, say: Callable[[int], None]) -> "Found":
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            there = file.schema_arrow.names
            _check_columns(contract, path, there)
            names = [column.name for column in contract.columns]
            first = 1
            for batch in file.iter_batches(BATCH_ROWS, columns=names):
                batch = batch.select(names)
                yield batch.replace_schema_metadata(_origin(path, first))
                first += batch.num_rows
                say(int(path.stat().st_size * (first - 1) / max(file.metadata.num_rows, 1)))
    except (pa.ArrowException, OSError) as error:
        raise WrongInput(
            f"source {path}: is not whole Parquet ({str(error).splitlines()[0][:120]}); write it again"
        ) from None
