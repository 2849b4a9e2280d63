"""Rows on their way from a source into a version: cast, named, counted; none vanishes.

Cast rows are spooled to one Arrow file and memory-mapped back, so that what is held is one batch, the row ids and
the columns that some rule names.
"""

import json
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts.contract import Contract
from data_contracts.corrections import Corrections
from data_contracts.memory import Memory
from data_contracts.row_sample import hidden, personal_columns
from data_contracts.rows import RowIds, cast, encode, said_plainly, schema_of
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
    repeated: int = 0
    """Rows that equal an earlier one in every column."""

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


def take_in(
    contract: Contract,
    uri: str | None,
    cache: Path,
    folder: Path,
    progress: Progress | None,
    corrections: Corrections | None = None,
    memory: Memory | None = None,
) -> Intake:
    """Read the source to its end into a file in `folder`. Raises WrongInput for one that cannot be read."""
    import pyarrow as pa

    source = load_source(contract.source)
    spool = folder / "rows.arrow"
    with pa.OSFile(str(spool), "wb") as file, pa.ipc.new_file(file, schema_of(contract)) as writer:
        reading = _Reading(contract, writer, corrections or Corrections(), memory)
        for found in source.read(contract.as_read, uri, cache, progress):
            if isinstance(found, Unreadable):
                reading.unreadable(found)
                continue
            if memory is not None and reading.rows_in == 0:
                said = memory.first(found)
                if progress is not None:
                    progress.say(said)
            reading.batch(found)
    table = pa.ipc.open_file(pa.memory_map(str(spool))).read_all()
    return Intake(table, reading.ids, reading.quarantined, reading.rows_in, reading.origins, reading.names.repeated)


class _Reading:
    """What has been read of a source so far. A corrected row takes the place of the raw one."""

    def __init__(self, contract: Contract, writer: Any, corrections: Corrections, memory: Memory | None):
        self.contract, self.writer, self.corrections, self.memory = contract, writer, corrections, memory
        self.personal = personal_columns(contract)
        self.names = RowIds()
        self.ids: list[str] = []
        self.quarantined: list[Quarantined] = []
        self.origins: list[tuple[int, str, int]] = []
        self.files: list[str] | None = None
        """The file of each row of the batch at hand, where each row is a file."""
        self.rows_in = 0

    def unreadable(self, found: Unreadable) -> None:
        self.rows_in += 1
        self.files = None
        row_id = self.names.of_raw(found.raw)
        if row_id in self.corrections.by_row:
            self._mended(row_id, {}, found.file, found.row, found.line, found.raw)
            return
        place: dict[str, Any] = {"file": found.file, "row": found.row, "line": found.line, "raw": found.raw}
        self.quarantined.append(Quarantined(row_id, ["row:parse"], f"row {found.reason}", **place))

    def batch(self, found: "pa.RecordBatch") -> None:
        self.rows_in += found.num_rows
        metadata = {key.decode(): value.decode() for key, value in (found.schema.metadata or {}).items()}
        file, first = metadata.get("file", ""), int(metadata.get("row", 1))
        self.files = json.loads(metadata["files"]) if "files" in metadata else None
        batch, faults = cast(found, self.contract)
        start = 0
        for end in [*sorted(faults), found.num_rows]:
            if end > start:
                self._add(batch.slice(start, end - start), file, first + start)
            if end < found.num_rows:
                self._fault(found.slice(end, 1).to_pylist()[0], faults[end], file, first + end)
            start = end + 1

    def _fault(self, values: dict[str, Any], fault: tuple[str, str], file: str, row: int) -> None:
        """A row that could not be cast."""
        row_id = self.names.of_values(values)
        if row_id in self.corrections.by_row:
            self._mended(row_id, values, file, row)
            return
        column, problem = fault
        reason = f"{column}: {self._shown(column, values.get(column), problem)}"
        file, row = self._place(file, row)
        self.quarantined.append(Quarantined(row_id, [f"{column}:type"], reason, file, row, values=_json(values)))

    def _place(self, file: str, row: int) -> tuple[str, int]:
        return (file, row) if self.files is None else (self.files[row - 1], 1)

    def _shown(self, column: str, value: Any, problem: str) -> str:
        if column not in self.personal or not problem.startswith("'"):
            return problem
        return f"{hidden(value, self.contract)} {problem[problem.rfind(chr(39)) + 2 :]}"

    def _add(self, part: "pa.RecordBatch", file: str, row: int) -> None:
        ids = self.names.of(part)
        start = 0
        corrected = [place for place, row_id in enumerate(ids) if row_id in self.corrections.by_row]
        for end in [*corrected, part.num_rows]:
            if end > start:
                self._keep(part.slice(start, end - start), ids[start:end], file, row + start)
            if end < part.num_rows:
                self._mended(ids[end], part.slice(end, 1).to_pylist()[0], file, row + end)
            start = end + 1

    def _mended(
        self,
        row_id: str,
        values: dict[str, Any],
        file: str,
        row: int,
        line: int | None = None,
        raw: bytes | None = None,
    ) -> None:
        """Put the corrected row in the place of the raw one."""
        batch, faults = self.corrections.mend(row_id, values, self.contract)
        if faults:  # the contract has changed since
            column, problem = faults[0]
            reason = f"{column}: {self._shown(column, None, problem)} (as corrected)"
            file, row = self._place(file, row)
            place: dict[str, Any] = {"line": line, "raw": raw, "values": None if raw is not None else _json(values)}
            self.quarantined.append(Quarantined(row_id, [f"{column}:type"], reason, file, row, **place))
            return
        mended = self.names.of(batch)
        self.corrections.applied[row_id] = mended[0]
        self._keep(batch, mended, file, row)

    def _keep(self, batch: "pa.RecordBatch", ids: list[str], file: str, row: int) -> None:
        if self.memory is not None:
            self.memory.add(batch)
        if self.files is None:
            self.origins.append((len(self.ids), file, row))
        else:
            self.origins += [(len(self.ids) + n, *self._place(file, row + n)) for n in range(batch.num_rows)]
        self.ids += ids
        self.writer.write_batch(batch)


def _json(values: dict[str, Any]) -> str:
    def plain(value: Any) -> Any:
        exact = value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
        if isinstance(value, bytes):
            return f"{len(value)} bytes, sha256 {digest_bytes(value)}"  # pixels
        return value if exact else said_plainly(value)

    return canonical({name: plain(value) for name, value in values.items()}).decode()


def duplicates(intake: Intake, contract: Contract, left_out: Container[int] = ()) -> dict[int, int]:
    """Rows that an earlier one equals in the contract's `slipway.duplicates` columns: index -> the earlier one's.

    What filters left out neither repeats a row nor is repeated.
    """
    if contract.duplicates is None or contract.duplicates["keep"] == "all":
        return {}
    first: dict[bytes, int] = {}
    repeated = {}
    index = 0
    for batch in intake.table.select(contract.duplicates["columns"]).to_batches():
        for row in encode(batch):
            if index not in left_out:
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
