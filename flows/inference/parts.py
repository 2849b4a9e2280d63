"""The answers to a file, part by part, so that the same command goes on after an interruption.

`.NAME.parts/` beside the output `NAME`:

    job.json           what is answered, by which model; of another job, or of none, the folder is begun anew
    <number>.parquet   the answers to some rows, in the file's order, whole or absent; its metadata hold their counts

When the last part is there they become the output, and the folder goes.
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
COUNTS = b"slipway.counts"


class Parts:
    """job: what the answers depend on, as JSON."""

    def __init__(self, out: Path, job: dict[str, Any]):
        self.out, self.folder = out, out.with_name(f".{out.name}.parts")
        place, asked = self.folder / "job.json", {"format": FORMAT, **job}
        try:
            found = json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
        if found.get("asked") != asked:
            self.discard()
            self.folder.mkdir()
            found = {"asked": asked, "id": uuid.uuid4().hex, "day": f"{datetime.now(UTC):%Y-%m-%d}"}
            place.write_text(json.dumps(found), encoding="utf-8")
        self.name = f"{found['day']}/{found['id']}"
        """The same however often it is gone on with: of what is logged of a part, beside the part's number."""

    def counts(self, number: int) -> dict[str, int] | None:
        """Of a part that is there; None where it is not."""
        from pyarrow import parquet

        path = self._path(number)
        return json.loads(parquet.read_schema(path).metadata[COUNTS]) if path.is_file() else None

    def add(self, number: int, table: "pa.Table", counts: dict[str, int]) -> None:
        from pyarrow import parquet

        aside = self._path(number).with_suffix(".new")
        metadata = {**(table.schema.metadata or {}), COUNTS: json.dumps(counts).encode()}
        parquet.write_table(table.replace_schema_metadata(metadata), aside, compression="zstd")
        os.replace(aside, self._path(number))

    def finish(self, schema: "pa.Schema", total: int) -> None:
        """Put the output together of parts 0 to total - 1, whole or absent."""
        from pyarrow import parquet

        aside = self.folder / "whole.new"
        with parquet.ParquetWriter(aside, schema, compression="zstd") as writer:
            for number in range(total):
                writer.write_table(parquet.read_table(self._path(number)).replace_schema_metadata(schema.metadata))
        os.replace(aside, self.out)
        self.discard()

    def discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.parquet"


def grouped(batches: Iterator[Any], rows: int) -> Iterator[list[Any]]:
    """Batches in a row (each with its `row_ids`) until they have so many rows together."""
    group: list[Any] = []
    for one in batches:
        group.append(one)
        if sum(len(one.row_ids) for one in group) >= rows:
            yield group
            group = []
    if group:
        yield group
