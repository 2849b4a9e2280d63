"""Text files as rows: delimited, line by line, JSONL and JSON. Values stay text until the contract's types are known.

"007" is a postcode, or seven: the contract says. A row that cannot be parsed is kept apart with file and line.
"""

import csv
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from data_contracts.lists import list_text
from data_contracts.places import Place
from data_contracts.source import Unreadable
from data_contracts.text_lines import NUL, Lines, open_lines
from infra.errors import WrongInput, choices

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract

    Found = Iterator[pa.RecordBatch | Unreadable]
Say = Callable[[int], None]

BATCH_ROWS = 8192
MAX_FIELD = 1 << 24
"""Characters; a longer CSV field is a quote that was never closed."""
MAX_JSON = 1 << 28
"""Characters of a JSON document, which is held whole; JSONL has no such limit."""


def check_columns(contract: "Contract", place: Place, there: list[str]) -> None:
    for column in contract.columns:
        if column.there not in there:
            raise WrongInput(
                f"source {place.address}: has no column '{column.there}', which contract {contract.path} names; "
                f"{choices(column.there, there)}"
            )


def text_batch(names: list[str], rows: list[list[str | None]], place: Place, first: int) -> "pa.RecordBatch":
    import pyarrow as pa

    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    return pa.record_batch(columns, schema=pa.schema([(name, pa.string()) for name in names], origin(place, first)))


def origin(place: Place, first: int) -> dict[str, str]:
    return {"file": place.name, "row": str(first)}


class Batches:
    """Gathers rows into batches, which end where a row could not be parsed: rows are numbered without a gap."""

    def __init__(self, contract: "Contract", place: Place, lines: Lines, say: Say):
        self.names = [column.name for column in contract.columns]
        self.place, self.lines, self.say = place, lines, say
        self.rows: list[list[str | None]] = []
        self.number = 0

    def good(self, row: list[str | None]) -> "Found":
        self.number += 1
        self.rows.append(row)
        if len(self.rows) >= BATCH_ROWS:
            yield from self.end()

    def bad(self, line: int, raw: str, reason: str) -> "Found":
        yield from self.end()
        self.number += 1
        yield Unreadable(self.place.name, self.number, line, self.lines.encode(raw), reason)

    def end(self) -> "Found":
        if self.rows:
            yield text_batch(self.names, self.rows, self.place, self.number - len(self.rows) + 1)
            self.say(self.lines.position())
            self.rows = []


def read_delimited(contract: "Contract", place: Place, kind: str, say: Say) -> "Found":
    """CSV and TSV. What `slipway.columns` says are the file's columns, in their order, whatever its header says."""
    server = contract.server
    delimiter = server.get("delimiter", "\t" if kind == "tsv" else ",")
    if len(delimiter) != 1 or delimiter in '\r\n"':
        raise WrongInput(f"contract {contract.path}: servers[0].delimiter {delimiter!r} cannot be one")
    csv.field_size_limit(MAX_FIELD)
    # strict: text after a closing quote and a quote that is never closed are faults, not values
    quoting: Any = csv.QUOTE_MINIMAL if server.get("quoting", True) else csv.QUOTE_NONE
    with open_lines(contract, place) as lines:
        for _ in range(server.get("skip", 0)):
            next(lines, None)
        lines.take()
        reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
        there = list(server.get("columns") or [])
        if server.get("header", True):
            names = _header(reader, place, lines, named=bool(there))
            if there and len(names) != len(there):
                raise WrongInput(
                    f"source {place.address}: line 1: the header has {len(names)} columns, slipway.columns of "
                    f"contract {contract.path} {len(there)}; name each"
                )
            there = there or names
        there = there or [column.there for column in contract.columns]
        check_columns(contract, place, there)
        chosen = [there.index(column.there) for column in contract.columns]
        batches = Batches(contract, place, lines, say)
        while True:
            line = lines.number + 1
            row, reason = _record(reader, place, line)
            raw = lines.take()
            if row is None:
                break
            if row == [] and not reason:
                continue  # an empty line is no row in any CSV reader
            if "\0" in raw:
                reason = NUL
            elif undecoded := lines.undecoded(raw):
                reason = undecoded
            elif len(row) < len(there) and server.get("fill", False) and not reason:
                row += [""] * (len(there) - len(row))
            elif len(row) != len(there) and not reason:
                reason = f"has {len(row)} fields, not {len(there)}"
            if reason:
                yield from batches.bad(line, raw, reason)
            else:
                yield from batches.good([row[index] for index in chosen])
        yield from batches.end()


def _header(reader: Any, place: Place, lines: Lines, named: bool) -> list[str]:
    names, reason = _record(reader, place, 1)
    undecoded = lines.undecoded(lines.take())
    if undecoded:
        raise WrongInput(f"source {place.address}: line 1: the header {undecoded}")
    if names is None:
        raise WrongInput(f"source {place.address}: is empty; give a file with rows")
    for name in names if not named else ():
        if not name.strip() or names.count(name) > 1:
            reason = f"the column '{name}' twice" if name.strip() else "a column without a name"
    if reason or not names:
        raise WrongInput(
            f"source {place.address}: line 1: the header has {reason or 'no column'}; mend it, list the names in "
            "slipway.columns, or set slipway.header: false"
        )
    return names


def _record(reader: Any, place: Place, line: int) -> tuple[list[str] | None, str]:
    """The next record and what is wrong with it; None at the end. Raises WrongInput when a quote is never closed."""
    try:
        return next(reader), ""
    except StopIteration:
        return None, ""
    except csv.Error as error:
        if "end of data" in str(error) or "field limit" in str(error):
            raise WrongInput(
                f"source {place.address}: line {line}: a quote opened there is never closed; mend it (was the file "
                "cut off?), or set slipway.quoting: false"
            ) from None
        return [], f"is not CSV: {error} (where quotes are plain text, set slipway.quoting: false)"


def read_lines(contract: "Contract", place: Place, kind: str, say: Say) -> "Found":
    """One row a line: the contract's one column, or two joined by the first or the last `slipway.separator`."""
    separator, columns = contract.server.get("separator"), contract.columns
    at = contract.server.get("separator_at", "last")
    if at not in ("first", "last"):
        raise WrongInput(f"contract {contract.path}: slipway.separator_at '{at}'; there is: first, last")
    if len(columns) != (2 if separator else 1):
        raise WrongInput(
            f"contract {contract.path}: format lines with{'' if separator else 'out'} slipway.separator gives "
            f"{'2 columns' if separator else '1 column'}, the schema has {len(columns)}"
        )
    with open_lines(contract, place) as lines:
        batches = Batches(contract, place, lines, say)
        header = contract.server.get("header", False)
        for line in lines:
            lines.take()
            text = line.rstrip("\r\n")
            if not text or (header and lines.number == 1):
                continue
            parts = [text]
            if separator:
                parts = text.split(separator, 1) if at == "first" else text.rsplit(separator, 1)
            reason = NUL if "\0" in text else lines.undecoded(text)
            if reason:
                yield from batches.bad(lines.number, line, reason)
            elif len(parts) != len(columns):
                yield from batches.bad(lines.number, line, f"holds no {separator!r} between its two columns")
            else:
                yield from batches.good(list(parts))
        yield from batches.end()


def read_jsonl(contract: "Contract", place: Place, kind: str, say: Say) -> "Found":
    names = _wanted(contract)
    seen: set[str] = set()
    rows = good = 0
    with open_lines(contract, place) as lines:
        batches = Batches(contract, place, lines, say)
        for line in lines:
            lines.take()
            if not line.strip():
                continue
            rows += 1
            values, reason = None, lines.undecoded(line)
            if not reason:
                values, reason = _json_row(line, names, seen)
            if values is None:
                if not line.endswith(("\n", "\r")) and not line.rstrip().endswith("}"):
                    raise WrongInput(
                        f"source {place.address}: line {lines.number}: ends in the middle of a row; "
                        "the file is truncated"
                    )
                yield from batches.bad(lines.number, line, reason)
                continue
            good += 1
            yield from batches.good(values)
        if rows and not good:
            raise WrongInput(
                f"source {place.address}: is not JSONL (no line is a JSON object); one object a line is needed"
            )
        if good:
            check_columns(contract, place, sorted(seen))
        yield from batches.end()


def read_json(contract: "Contract", place: Place, kind: str, say: Say) -> "Found":
    """A list of objects, or an object that holds one under `slipway.records`."""
    names = _wanted(contract)
    key, where = contract.server.get("records"), f"source {place.address}"
    seen: set[str] = set()
    with open_lines(contract, place) as lines:
        text = lines.whole(MAX_JSON)
        try:
            body = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
        except RecursionError:
            raise WrongInput(f"{where}: is nested too deep to be rows; write a list of flat objects") from None
        except ValueError as error:
            raise WrongInput(f"{where}: is not JSON ({str(error)[:100]}); mend it (was the file cut off?)") from None
        if key is not None:
            if not isinstance(body, dict) or key not in body:
                raise WrongInput(f"{where}: has no '{key}', which slipway.records of contract {contract.path} names")
            body = body[key]
        if not isinstance(body, list):
            lists = [name for name, value in body.items() if isinstance(value, list)] if isinstance(body, dict) else []
            hint = f"; set slipway.records to one of: {', '.join(lists[:8])}" if lists else ""
            raise WrongInput(f"{where}: is not a list of objects{hint}")
        batches = Batches(contract, place, lines, say)
        for number, entry in enumerate(body, start=1):
            values, reason = _json_values(entry, names, seen)
            if values is None:
                yield from batches.bad(number, json.dumps(entry), reason)
            else:
                yield from batches.good(values)
        if seen:
            check_columns(contract, place, sorted(seen))
        yield from batches.end()


def _wanted(contract: "Contract") -> dict[str, bool]:
    """What the columns are called in the data -> whether they hold lists."""
    return {column.there: column.type == "array" for column in contract.columns}


def _json_row(line: str, names: dict[str, bool], seen: set[str]) -> tuple[list[str | None] | None, str]:
    """The contract's columns of one object as text, and of a bad line the reason. JSON's 7 is a CSV's 7."""
    try:
        body = json.loads(line, parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError) as error:
        return None, f"is not JSON ({str(error).splitlines()[0][:80]})"
    return _json_values(body, names, seen)


def _json_values(body: Any, names: dict[str, bool], seen: set[str]) -> tuple[list[str | None] | None, str]:
    """A list goes on as JSON text, for the cast to take apart again."""
    if not isinstance(body, dict):
        return None, "is not a JSON object"
    seen.update(body)
    values: list[str | None] = []
    for name, listed in names.items():
        value = body.get(name)
        if listed and isinstance(value, list):
            if any(isinstance(item, str) and "\0" in item for item in value):
                return None, f"'{name}' {NUL}"
            try:
                value = list_text(value)
            except ValueError as error:
                return None, f"'{name}' {error}, not a list of values"
        if isinstance(value, (dict, list)):
            return None, f"'{name}' holds {'an object' if isinstance(value, dict) else 'a list'}, not a value"
        if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
            return None, f"'{name}' holds half a character (a lone surrogate)"
        if isinstance(value, str) and "\0" in value:
            return None, f"'{name}' {NUL}"
        values.append(("true" if value else "false") if isinstance(value, bool) else value)
    return values, ""
