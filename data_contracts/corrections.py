"""Quarantined rows that a person corrected: kept by raw row id, applied by every later register until withdrawn.

    datasets/<name>/corrections/<sequence>.json     {"who", "time", "corrected": [{"row_id", "before", "after"}]}
                                                    {"who", "time", "reason", "withdrawn": [row ids]}

A raw row id is the one that the row has in quarantine: of its bytes, of its values as they were read, or of its
values after the cast. `after` holds the columns that the person gave; the others stay as they were.
"""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts import sequence
from data_contracts.rows import arrow_type, cast, said_plainly
from infra.errors import WrongInput, choices
from infra.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract

FORMAT = 1
QUARANTINE_COLUMNS = ("rules", "reason", "file", "row", "line", "values", "raw")
"""Columns of an exported quarantine, which a corrected file may still hold."""


@dataclass(frozen=True, kw_only=True)
class Correction:
    row_id: str
    after: dict[str, Any]
    """Column -> value, of the columns that were corrected; plain JSON values."""
    before: Any
    """The row's values as they stand in quarantine, or its raw text."""
    who: str
    time: str


@dataclass
class Corrections:
    """The corrections in force, and during one reading of a source what became of them."""

    by_row: dict[str, Correction] = field(default_factory=dict)
    state: int = 0
    """Number of entries read: another number means that the source has to be read again."""
    applied: dict[str, str] = field(default_factory=dict)
    """Raw row id -> the corrected row's own."""

    def mend(
        self, row_id: str, values: dict[str, Any], contract: "Contract"
    ) -> "tuple[pa.RecordBatch, dict[int, tuple[str, str]]]":
        """The corrected row after its cast, and what does not fit, as `rows.cast` gives them."""
        import pyarrow as pa

        merged = values | self.by_row[row_id].after
        arrays = [_one(merged.get(column.name), arrow_type(column.arrow)) for column in contract.columns]
        return cast(pa.record_batch(arrays, names=[column.name for column in contract.columns]), contract)


def _one(value: Any, target: "pa.DataType") -> "pa.Array":
    import pyarrow as pa

    if value is None:
        return pa.nulls(1, target)
    if not isinstance(value, str | bool | int | float | bytes):
        value = said_plainly(value)
    try:
        return pa.array([value])
    except (OverflowError, pa.ArrowException):  # an integer of more than 64 bits
        return pa.array([str(value)])


def prefix(name: str) -> str:
    return f"datasets/{name}/corrections/"


def state(store: Store, name: str) -> int:
    """How many entries there are. Cheap."""
    return len(sequence.keys(store, prefix(name)))


def in_force(store: Store, name: str) -> Corrections:
    found = Corrections()
    for entry in sequence.entries(store, prefix(name), FORMAT):
        found.state += 1
        for row in entry.get("corrected", ()):
            found.by_row[row["row_id"]] = Correction(**row, who=entry["who"], time=entry["time"])
        for row_id in entry.get("withdrawn", ()):
            found.by_row.pop(row_id, None)
    return found


def record(store: Store, name: str, corrected: list[Correction]) -> None:
    """Append the corrections of one release; all of them are by one person."""
    rows = [{"row_id": one.row_id, "before": one.before, "after": one.after} for one in corrected]
    sequence.append(store, prefix(name), FORMAT, lambda _: {"who": corrected[0].who, "corrected": rows})


def withdraw(store: Store, name: str, row_id: str, who: str, reason: str) -> Correction:
    """Take a correction back: the next register quarantines the row again. Raises WrongInput listing what there is."""
    there = in_force(store, name).by_row
    matching = [known for known in there if row_id and known.startswith(row_id)]
    if len(matching) != 1:
        what = f"fits {len(matching)} corrections; write more of it" if matching else "has no correction in force"
        raise WrongInput(f"dataset {name}: row {row_id}: {what}; {choices(row_id, [known[:16] for known in there])}")
    facts = {"who": who, "reason": reason, "withdrawn": matching}
    sequence.append(store, prefix(name), FORMAT, lambda _: facts)
    return there[matching[0]]


def read_fixed(path: Path, contract: "Contract") -> dict[str, dict[str, Any]]:
    """Raw row id -> corrected values, from a CSV, JSONL or Parquet file. Raises WrongInput naming file, line and field.

    An empty cell of a CSV is an empty text, which the contract's null rule judges; a JSON line corrects its own keys.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise WrongInput(f"file {path}: '{path.suffix}' is not read; {choices(path.suffix, readers)}")
    try:
        rows = readers[path.suffix.lower()](path)
    except OSError as error:
        raise WrongInput(f"file {path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise WrongInput(f"file {path}: is not UTF-8 at byte {error.start}; save it as UTF-8") from None
    names = [column.name for column in contract.columns]
    lists = {column.name for column in contract.columns if column.type == "array"}
    fixed: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows, 1):
        row_id = row.get("row_id")
        if not isinstance(row_id, str) or not row_id:
            raise WrongInput(f"file {path}: row {number}: has no row_id; take it from the quarantine of the version")
        if row_id in fixed:
            raise WrongInput(f"file {path}: row {number}: row_id {row_id[:16]} stands there twice; keep one")
        for name in row:
            if name not in names and name not in ("row_id", *QUARANTINE_COLUMNS):
                raise WrongInput(f"file {path}: row {number}: column '{name}' is unknown; {choices(str(name), names)}")
        fixed[row_id] = {name: _plain(row[name], path, number, name, lists) for name in names if name in row}
        if not fixed[row_id]:
            raise WrongInput(f"file {path}: row {number}: corrects nothing; give at least one of {', '.join(names)}")
    if not fixed:
        raise WrongInput(f"file {path}: has no rows; give at least one with its row_id")
    return fixed


def _plain(value: Any, path: Path, number: int, name: str, lists: set[str]) -> Any:
    value = said_plainly(value) if isinstance(value, list) and name in lists else value
    if isinstance(value, list | dict | bytes) or (isinstance(value, float) and value - value != 0):
        raise WrongInput(f"file {path}: row {number}: {name} is no plain value; write text, a number, true or null")
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)


def _read_csv(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            for row in csv.DictReader(file, strict=True):
                if None in row or None in row.values():
                    raise WrongInput(f"file {path}: line {len(rows) + 2}: has not as many cells as the header")
                rows.append(row)
        except csv.Error as error:
            raise WrongInput(f"file {path}: is not CSV ({error})") from None
    return rows


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise WrongInput(f"file {path}: line {number}: is not JSON ({error})") from None
            if not isinstance(row, dict):
                raise WrongInput(f"file {path}: line {number}: is not an object; write {{'row_id': ..., ...}}")
            rows.append(row)
    return rows


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path).to_pylist()
    except pa.ArrowException as error:
        raise WrongInput(f"file {path}: is not Parquet ({error})") from None
