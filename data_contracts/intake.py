"""Rows on their way from a source into a version: cast, named, counted; none vanishes.

Cast rows are spooled to one Arrow file and memory-mapped back, so that what is held is one batch, the row ids and
the columns that some rule names.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts.contract import Contract
from data_contracts.rows import RowIds, cast, encode, schema_of
from data_contracts.source import Unreadable, load_source
from infra.digests import canonical, digest_bytes
from infra.progress import Progress

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class Quarantined:
    """A row that is kept out, and why."""

    row_id: str
    rules: list[str]
    """`column:rule` of each rule it breaks; what of the reason counts for the version's digest."""
    reason: str
    file: str
    row: int
    """Number of the row in its file, from 1, the header not counted."""
    line: int | None = None
    """Where in the file a row that could not be parsed begins, from 1."""
    values: str | None = None
    """JSON of the row's values, as the source gave them or, when the cast went well, after it."""
    raw: bytes | None = None
    """Bytes of a row that could not be parsed; the pixels of an image that breaks a rule."""


@dataclass
class Intake:
    table: "pa.Table"
    """The rows that could be cast, in source order, memory-mapped."""
    ids: list[str]
    quarantined: list[Quarantined]
    rows_in: int
    origins: list[tuple[int, str, int]] = field(default_factory=list)
    """(index in the table, file, row number) where each unbroken stretch begins."""

    def origin(self, index: int) -> tuple[str, int]:
        """File and row number of a row of the table."""
        start, file, row = self.origins[bisect_right(self.origins, index, key=lambda entry: entry[0]) - 1]
        return file, row + index - start

    def files(self, indices: Sequence[int]) -> list[str]:
        """The file that each of some rows, in rising order, is from."""
        found: list[str] = []
        stretch = 0
        for index in indices:
            while stretch + 1 < len(self.origins) and self.origins[stretch + 1][0] <= index:
                stretch += 1
            found.append(self.origins[stretch][1])
        return found


def take_in(contract: Contract, uri: str | None, cache: Path, folder: Path, progress: Progress | None) -> Intake:
    """Read the source to its end into a file in `folder`. Raises WrongInput for one that cannot be read."""
    import pyarrow as pa

    source = load_source(contract.source)
    schema = schema_of(contract)
    names = RowIds()
    ids: list[str] = []
    quarantined: list[Quarantined] = []
    origins: list[tuple[int, str, int]] = []
    rows_in = 0
    spool = folder / "rows.arrow"
    with pa.OSFile(str(spool), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for found in source.read(contract, uri, cache, progress):
            if isinstance(found, Unreadable):
                rows_in += 1
                row_id, reason = names.of_raw(found.raw), f"row {found.reason}"
                place: dict[str, Any] = {"file": found.file, "row": found.row, "line": found.line, "raw": found.raw}
                quarantined.append(Quarantined(row_id, ["row:parse"], reason, **place))
                continue
            rows_in += found.num_rows
            metadata = {key.decode(): value.decode() for key, value in (found.schema.metadata or {}).items()}
            file_name, first = metadata.get("file", ""), int(metadata.get("row", 1))
            batch, faults = cast(found, contract)
            for row, (column, problem) in sorted(faults.items()):
                values = found.slice(row, 1).to_pylist()[0]
                row_id, reason = names.of_values(values), f"{column}: {problem}"
                kept: dict[str, Any] = {"file": file_name, "row": first + row, "values": _json(values)}
                quarantined.append(Quarantined(row_id, [f"{column}:type"], reason, **kept))
            start = 0
            for end in [*sorted(faults), found.num_rows]:
                if end > start:
                    origins.append((len(ids), file_name, first + start))
                    part = batch.slice(start, end - start)
                    ids += names.of(part)
                    writer.write_batch(part)
                start = end + 1
    table = pa.ipc.open_file(pa.memory_map(str(spool))).read_all()
    return Intake(table, ids, quarantined, rows_in, origins)


def _json(values: dict[str, Any]) -> str:
    def plain(value: Any) -> Any:
        exact = value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
        if isinstance(value, bytes):
            return f"{len(value)} bytes, sha256 {digest_bytes(value)}"  # pixels
        return value if exact else str(value)

    return canonical({name: plain(value) for name, value in values.items()}).decode()


def duplicates(intake: Intake, contract: Contract) -> dict[int, int]:
    """Rows that an earlier one equals in the contract's `slipway.duplicates` columns: index -> the earlier one's."""
    if contract.duplicates is None:
        return {}
    first: dict[bytes, int] = {}
    repeated = {}
    index = 0
    for batch in intake.table.select(contract.duplicates["columns"]).to_batches():
        for row in encode(batch):
            earlier = first.setdefault(row, index)
            if earlier != index:
                repeated[index] = earlier
            index += 1
    return repeated


def quarantine_failing(intake: Intake, rows: dict[int, list[tuple[str, str]]]) -> None:
    """Add the rows that fail a rule, in source order, to the intake's quarantine."""
    for index, failed in sorted(rows.items()):
        file, row = intake.origin(index)
        whole = intake.table.slice(index, 1).to_pylist()[0]
        values = _json(whole)
        pixels = next((value for value in whole.values() if isinstance(value, bytes)), None)
        rules, reasons = zip(*sorted(failed), strict=True)
        bad = Quarantined(intake.ids[index], list(rules), "; ".join(reasons), file, row, values=values, raw=pixels)
        intake.quarantined.append(bad)


def most_common(quarantined: list[Quarantined], limit: int = 3) -> str:
    """What is wrong most often, for one line: `age:type 12 times (age: 'x' is not an integer)`."""
    counts = Counter(rule for entry in quarantined for rule in entry.rules)
    examples: dict[str, Quarantined] = {}
    for entry in quarantined:
        for rule in entry.rules:
            examples.setdefault(rule, entry)
    return "; ".join(
        f"{rule} {count:,} times (first: {examples[rule].file} row {examples[rule].row}: {examples[rule].reason[:120]})"
        for rule, count in counts.most_common(limit)
    )


def quarantine_table(entries: list[Quarantined]) -> "pa.Table":
    import pyarrow as pa

    columns: dict[str, tuple[Any, pa.DataType]] = {
        "row_id": ([entry.row_id for entry in entries], pa.string()),
        "rules": ([entry.rules for entry in entries], pa.list_(pa.string())),
        "reason": ([entry.reason for entry in entries], pa.string()),
        "file": ([entry.file for entry in entries], pa.string()),
        "row": ([entry.row for entry in entries], pa.int64()),
        "line": ([entry.line for entry in entries], pa.int64()),
        "values": ([entry.values for entry in entries], pa.string()),
        "raw": ([entry.raw for entry in entries], pa.binary()),
    }
    return pa.table({name: pa.array(values, kind) for name, (values, kind) in columns.items()})
