"""What a file is, told by its bytes and its first rows: format, encoding, delimiter, quoting, header.

A guess is for a draft, which a person reads; registering goes by what the contract says and guesses nothing.
"""

import csv
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_contracts.places import Place
from data_contracts.text_lines import detect_encoding
from infra.errors import WrongInput

HEAD = 1 << 20
"""Bytes that a guess looks at."""
RECORDS = 400
MAX_PREAMBLE = 10
DELIMITERS = (",", "\t", ";", "|", " ")
SEPARATORS = ("\t", ";", "|", ",", " ")
MAX_LABELS = 50
NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?%?")
MAGIC = {
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"\xff\xff\xff\xff": "arrow",
    b"PK\x03\x04": "a ZIP archive (xlsx, docx, npz ...)",
    b"%PDF": "PDF",
    b"SQLite format 3": "an SQLite database",
    b"\x89HDF": "HDF5",
    b"\x93NUMPY": "a NumPy array",
    b"\x80\x04": "a pickle",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"Obj\x01": "Avro",
    b"ORC": "ORC",
    b"\xd0\xcf\x11\xe0": "an old Office document",
}


def detect(path: Path) -> tuple[dict[str, Any], list[str]]:
    """(server section's keys, names of the file's columns; none where the file itself says them). Raises WrongInput."""
    where = f"source {path}"
    place = Place(path.name, str(path), path)
    with open(path, "rb") as file:
        head: bytes = file.read(HEAD)
    if not head:
        raise WrongInput(f"{where}: is empty; give a file with rows")
    if head[:2] == b"\x1f\x8b":
        try:
            head = zlib.decompressobj(31).decompress(head, HEAD)
        except zlib.error as error:
            raise WrongInput(f"{where}: is not whole gzip ({error}); write it again") from None
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            if kind in ("parquet", "arrow"):
                return {"format": kind}, []
            raise WrongInput(f"{where}: is {kind}, which no source reads; export it as CSV, JSONL or Parquet")
    server: dict[str, Any] = {}
    encoding = detect_encoding(place)
    if encoding != "utf-8":
        server["encoding"] = encoding
    elif b"\0" in head[:1024]:
        raise WrongInput(f"{where}: holds NUL bytes; it is binary, which no source reads; export it as CSV or Parquet")
    # NOTE the last character may be cut in two, so what cannot be decoded is left out here, and only here.
    text = head.decode("utf-8-sig" if encoding == "utf-8" else encoding, errors="ignore")
    if len(head) >= HEAD:
        text = text[: text.rfind("\n") + 1] or text
    return _text_format(text, path, server, where)


def _text_format(text: str, path: Path, server: dict[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise WrongInput(f"{where}: holds nothing but blank lines; give a file with rows")
    first = lines[0].strip()
    suffix = next((one for one in reversed(path.suffixes) if one != ".gz"), "").lower()
    # Delimited files may begin with a bracket too; a file called .csv that is JSON is told by its first line.
    if suffix in (".json", ".jsonl", ".ndjson") or (first.startswith("{") and first.endswith("}")):
        if first.startswith("{") and (len(lines) > 1 or suffix != ".json") and _is_object(first):
            return server | {"format": "jsonl"}, []
        return server | {"format": "json"}, []
    if first.startswith("[") and (first.startswith("[{") or len(first) == 1):
        return server | {"format": "json"}, []
    return _delimited(lines, text, suffix, server)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _delimited(lines: list[str], text: str, suffix: str, server: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    found = [
        (*_fit(text, delimiter, quoting), delimiter, quoting) for delimiter in DELIMITERS for quoting in (True, False)
    ]
    # More consistent, then quotes understood, then more columns; a space parts words, so it has to be perfect.
    usable = [one for one in found if one[1] > 1 and (one[0] > 0.995 if one[2] == " " else one[0] > 0.8)]
    if suffix in (".tsv", ".tab"):
        usable = [one for one in usable if one[2] == "\t"] or usable
    best = max(usable, key=lambda one: (round(one[0], 2), one[3], one[2] != " ", one[1]), default=None)
    joined = _joined(lines) if suffix not in (".csv", ".tsv", ".tab") and (best is None or best[1] == 2) else None
    if joined is not None:
        separator, at = joined
        names = ["text", "label"] if at == "last" else ["label", "text"]
        return server | {"format": "lines", "separator": separator, "separator_at": at}, names
    if best is None:
        header = (
            suffix in (".csv", ".tsv") and len(lines) > 1 and has_header([[line.strip()] for line in lines[:RECORDS]])
        )
        if suffix in (".csv", ".tsv"):
            return _named(server | {"format": suffix[1:]}, [[line.strip('" ')] for line in lines[:RECORDS]], header)
        return server | {"format": "lines"}, ["text"]
    _, _, delimiter, quoting = best
    server = server | {"format": "tsv" if delimiter == "\t" else "csv"}
    if delimiter not in (",", "\t"):
        server["delimiter"] = delimiter
    if not quoting:
        server["quoting"] = False
    rows = records(text, delimiter, quoting)
    width = Counter(len(row) for row in rows).most_common(1)[0][0]
    first = next((number for number, row in enumerate(rows) if len(row) >= width), 0)
    if first and first <= MAX_PREAMBLE:  # lines that say something else, before the rows or their header
        server["skip"] = _lines_before(text, rows[first], delimiter, quoting)
        rows = rows[first:]
        named = records(text, delimiter, quoting)[first - 1]
        if len(named) == width - 1 and not has_header(rows) and has_header([["row", *named], *rows]):
            return server | {"columns": ["row", *named], "header": False}, ["row", *named]  # as R writes row names
    elif len(rows[0]) > width and all(len(row) <= len(rows[0]) for row in rows):
        server["fill"] = True
        rows = [row + [""] * (len(rows[0]) - len(row)) for row in rows]
    return _named(server, rows, has_header(rows))


def _lines_before(text: str, row: list[str], delimiter: str, quoting: bool) -> int:
    """Number of the line, from 0, that is this record."""
    for number, line in enumerate(text.splitlines()):
        if records(line, delimiter, quoting) == [row]:
            return number
    return 0


def _named(server: dict[str, Any], rows: list[list[str]], header: bool) -> tuple[dict[str, Any], list[str]]:
    width = Counter(len(row) for row in rows).most_common(1)[0][0]
    names = rows[0] if header else []
    if header and len(names) == len(set(names)) and all(name.strip() for name in names) and "row_id" not in names:
        return server, names
    # Without names, or with blank or repeated ones, each column is given one.
    given: list[str] = []
    for number in range(1, (len(names) or width) + 1):
        name = names[number - 1].strip() if names else ""
        name = name or f"column_{number}"
        given.append(name if name not in given and name != "row_id" else f"{name}_{number}")
    server = server | {"columns": given}
    if not header:
        server["header"] = False
    return server, given


def records(text: str, delimiter: str, quoting: bool) -> list[list[str]]:
    """The first records, as far as they can be parsed; blank lines left out."""
    kind: Any = csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE
    found: list[list[str]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=kind, strict=True)
    while len(found) < RECORDS:
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error:
            row = ["?"]
        if row:
            found.append(row)
    return found


def _fit(text: str, delimiter: str, quoting: bool) -> tuple[float, int]:
    """Share of the first records that have the commonest number of fields, and that number."""
    rows = records(text, delimiter, quoting)
    width, count = Counter(len(row) for row in rows[:RECORDS]).most_common(1)[0]
    if not quoting and sum(cell.startswith('"') != cell.endswith('"') for row in rows for cell in row) > len(rows) // 2:
        return 0.0, width
    longest = len(rows[0])
    if longest > 2 and all(2 <= len(row) <= longest for row in rows) and count < len(rows):
        return max(count / len(rows), 0.9), longest  # rows that end early, below a header that does not
    return count / len(rows), width


def _joined(lines: list[str]) -> tuple[str, str] | None:
    """The separator that joins each line's text and its label, and where it stands: `text;label`, `3 text`."""
    sample = lines[:RECORDS] if len(lines) > 20 else []
    found = []
    for separator in SEPARATORS:
        for at in ("last", "first") if separator != "," else ("last",):
            parts = [line.rsplit(separator, 1) if at == "last" else line.split(separator, 1) for line in sample]
            if not parts or any(len(part) != 2 for part in parts):
                continue
            labels = {part[1 if at == "last" else 0].strip() for part in parts}
            texts = {part[0 if at == "last" else 1] for part in parts}
            length = sum(map(len, texts)) / len(texts)
            few = 2 <= len(labels) <= min(MAX_LABELS, len(sample) // 5) and max(map(len, labels)) <= 30
            if few and length > 15 and len(texts) > len(sample) // 2 and all(labels):
                commonest = Counter(part[1 if at == "last" else 0] for part in parts).most_common(1)[0][1]
                found.append((commonest, separator, at))
    # A full stop follows the last space of most sentences: what is nearly always the same is no label.
    commonest, separator, at = min(found, default=(len(sample), "", ""), key=lambda one: (one[1] == " ", one[0]))
    return (separator, at) if commonest < 0.9 * len(sample) else None


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first record names the columns: text over numbers, or short words that the columns do not hold."""
    first, body = [cell.strip() for cell in rows[0]], [row for row in rows[1:] if len(row) == len(rows[0])]
    if not body or any(NUMBER.fullmatch(cell) for cell in first) or not any(first):
        return False
    votes = 0
    for index, name in enumerate(first):
        cells = [row[index].strip() for row in body]
        numeric = sum(bool(NUMBER.fullmatch(cell)) for cell in cells if cell)
        if name in cells:
            votes -= 2
        elif numeric > 0.8 * max(sum(map(bool, cells)), 1) and any(cells):
            votes += 2
        elif re.fullmatch(r"[^\W\d][\w .#/()%-]{0,40}", name) and len(name.split()) <= 4:
            votes += 1
        elif len(name) > 60 or re.search(r"[.!?]$", name):
            votes -= 1
    return votes > 0
