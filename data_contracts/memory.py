"""How much memory registering will take: estimated from the first batch, said, and refused above a limit.

Held are one batch, the columns that rules name (as Great Expectations' pandas columns), the row ids with their splits,
and, where near-duplicates are asked for, a sketch and an index entry of each row.
"""

import os
from typing import TYPE_CHECKING, Any

from infra.errors import WrongInput

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract

BASE = 400 << 20
"""Bytes of the interpreter with pyarrow, pandas and Great Expectations."""
ID_BYTES = 300
"""A row: its id as text (120), the digest that counts equal rows in a dictionary (140), its index and split."""
SKETCH_BYTES = 7000
"""A row: 128 hashes and its bands' entries in the index (measured: about 6 kB)."""
RULED = 7
"""A rule's column against its bytes in Arrow: as Python's texts in pandas, with Great Expectations' masks, in the two
memory-mapped spools and in the profile. Peak and estimate in MB, on 200,000 rows: ten columns 558 and 622, five short
texts 615 and 602, texts of 1,000 characters 1,718 and 1,880; on a million rows of ten columns 1,353 and 1,438."""


class Memory:
    """The estimate of one registration. Raises WrongInput as soon as it is above the limit."""

    def __init__(self, contract: "Contract", source_bytes: int, limit: int | None):
        from data_contracts.rules import columns_of_rules

        self.contract = contract
        self.rules = columns_of_rules(contract)
        self.source_bytes = source_bytes
        self.limit = limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self.rule_bytes = self.rows = 0

    def first(self, batch: "pa.RecordBatch") -> str:
        """Judge by the first batch, before anything else is read. Returns the sentence to say."""
        facts = batch.schema.metadata or {}
        if b"file_rows" in facts:  # the first file's rows, as many to the byte in the others
            size = max(int(facts[b"file_bytes"]), 1)
            rows = int(int(facts[b"file_rows"]) * max(self.source_bytes / size, 1))
        else:
            rows = int(self.source_bytes / max(batch.nbytes / max(batch.num_rows, 1), 1))
        rows = max(rows, batch.num_rows)
        rule_bytes = sum(batch.column(name).nbytes for name in self.rules if name in batch.schema.names)
        needed = self._needed(rows, rule_bytes / max(batch.num_rows, 1) * rows)
        self._check(needed, f"about {rows:,} rows")
        return f"about {rows:,} rows, {needed / 1e9:.1f} GB of memory"

    def add(self, batch: "pa.RecordBatch") -> None:
        """Count a cast batch: a compressed source may hold more rows than its size says."""
        self.rows += batch.num_rows
        self.rule_bytes += sum(batch.column(name).nbytes for name in self.rules)
        self._check(self._needed(self.rows, self.rule_bytes), f"{self.rows:,} rows so far")

    def _needed(self, rows: int, rule_bytes: float) -> int:
        sketches = rows * SKETCH_BYTES if (self.contract.duplicates or {}).get("near") else 0
        return int(BASE + rows * ID_BYTES + RULED * rule_bytes + sketches)

    def _check(self, needed: int, rows: str) -> None:
        if needed > self.limit:
            raise WrongInput(
                f"contract {self.contract.path}: registering {rows} takes about {needed / 1e9:.1f} GB of memory, the "
                f"limit is {self.limit / 1e9:.1f} GB: set memory_limit_gb (SLIPWAY_MEMORY_LIMIT_GB) higher, give fewer "
                "rows, or drop rules or slipway.duplicates.near from the contract"
            )


def source_bytes(fingerprint: dict[str, Any]) -> int:
    """The size of a source, where its fingerprint lists files as [name, bytes, ...]; else 0."""
    files = fingerprint.get("files")
    if not isinstance(files, list):
        return 0
    return sum(one[1] for one in files if isinstance(one, list | tuple) and len(one) > 1 and isinstance(one[1], int))
