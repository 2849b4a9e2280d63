"""The files of a version: rows by split, what was kept out, the contract, reports, metadata for other tools.

Every file carries its hash in its name. Rows are written batch by batch.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.card import card
from data_contracts.croissant import croissant
from data_contracts.filters import DUPLICATE
from data_contracts.intake import quarantine_table
from data_contracts.profile import profile
from data_contracts.repeats import repeats_table
from data_contracts.row_sample import hidden, personal_columns
from data_contracts.splits import SPLITS
from infra.digests import digest_file
from infra.store import Store

if TYPE_CHECKING:
    from data_contracts.draft import Draft

BATCH_ROWS = 65536
CORRECTIONS_FORMAT = 1


class VersionFiles:
    """Writes a draft's files below `prefix`; `facts` is the manifest's part that tells of them."""

    def __init__(self, draft: "Draft", store: Store, prefix: str, created: str):
        self.draft, self.store, self.prefix = draft, store, prefix
        self.files: dict[str, dict[str, Any]] = {}
        contract = draft.contract
        if draft.progress is not None:
            draft.progress.say("writing the version")
        rows = self._rows()
        self._table("quarantine", quarantine_table(draft.intake.quarantined))
        self._filtered()
        self._table("repeats", repeats_table(draft.repeated))
        self._json("validation", _masked(draft))
        self._json("profile", profile(rows, contract))
        self._text("contract.odcs.yaml", contract.text)
        self._json("corrections", {"format": CORRECTIONS_FORMAT, "corrected": self._corrected()})
        self.facts = {
            "counts": draft.counts,
            "corrected": len(draft.corrections.applied),
            "filtered_by": draft.filtered_by,
            "repeated": draft.intake.repeated,
            "warnings": draft.findings.warnings,
            "files": self.files,
        }
        # These two tell of the version as a whole, so they come last.
        self._json("croissant", croissant(contract, draft.digest, created, self.facts))
        self._text("README.md", card(contract, draft.digest, self.facts))

    def _put(self, name: str, path: Path) -> None:
        sha = digest_file(path)
        target = f"{name}-{sha}{''.join(path.suffixes)}"
        self.files[name] = {"name": target, "sha256": sha, "bytes": path.stat().st_size}
        self.store.upload(path, self.prefix + target)

    def _table(self, name: str, table: pa.Table) -> None:
        path = self.draft.folder / f"{name}.parquet"
        pq.write_table(table, path, compression="zstd")
        self._put(name, path)
        self.files[name]["rows"] = table.num_rows

    def _text(self, name: str, text: str) -> None:
        path = self.draft.folder / name
        path.write_text(text, encoding="utf-8")
        self._put(name.partition(".")[0], path)

    def _json(self, name: str, body: dict[str, Any]) -> None:
        self._text(f"{name}.json", json.dumps(body, indent=1, sort_keys=True, default=str))

    def _rows(self) -> pa.Table:
        """Write each split's rows, and `order`: the split of each kept row in source order. Returns all kept rows,
        memory-mapped from a spool of their own."""
        draft = self.draft
        schema = draft.intake.table.schema.insert(0, pa.field("row_id", pa.string()))
        spool = draft.folder / "kept.arrow"
        paths = {split: draft.folder / f"{split}.parquet" for split in SPLITS}
        writers = {split: pq.ParquetWriter(path, schema, compression="zstd") for split, path in paths.items()}
        with pa.OSFile(str(spool), "wb") as file, pa.ipc.new_file(file, schema) as kept:
            for batch, splits in self._batches(schema):
                kept.write_batch(batch)
                for split, writer in writers.items():
                    part = batch.filter(pc.equal(splits, split))
                    if part.num_rows:
                        writer.write_batch(part)
        for split, writer in writers.items():
            writer.close()
            self._put(f"data/{split}", paths[split])
            self.files[f"data/{split}"]["rows"] = draft.counts[split]
        self._table("order", pa.table({"split": pa.array(draft.splits, pa.string()).dictionary_encode()}))
        return pa.ipc.open_file(pa.memory_map(str(spool))).read_all()

    def _filtered(self) -> None:
        """What was left out, and why: row_id, reason (a filter's name, or `duplicate`), duplicate_of, values."""
        draft = self.draft
        table, ids = draft.intake.table, draft.intake.ids
        texts = ["row_id", "reason", "duplicate_of"]
        schema = pa.schema([*((name, pa.string()) for name in texts), ("values", pa.struct(list(table.schema)))])
        path = draft.folder / "filtered.parquet"
        filtered = [index for index, _ in draft.filtered()]
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for start in range(0, len(filtered), BATCH_ROWS):
                indices = filtered[start : start + BATCH_ROWS]
                firsts = [draft.duplicates.get(index) for index in indices]
                columns = [
                    [ids[index] for index in indices],
                    [draft.left_out.get(index, DUPLICATE) for index in indices],
                    [None if first is None else ids[first] for first in firsts],
                ]
                values = table.take(indices).to_struct_array().combine_chunks()
                arrays = [*(pa.array(column, pa.string()) for column in columns), values]
                writer.write_table(pa.table(arrays, schema=schema))
        self._put("filtered", path)
        self.files["filtered"]["rows"] = len(filtered)

    def _batches(self, schema: pa.Schema) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
        """Kept rows with their ids, and their splits."""
        draft, place = self.draft, 0
        for start in range(0, len(draft.kept), BATCH_ROWS):
            indices = draft.kept[start : start + BATCH_ROWS]
            first, last = indices[0], indices[-1] + 1
            part = draft.intake.table.slice(first, last - first)
            if last - first != len(indices):
                part = part.take([index - first for index in indices])
            named = part.add_column(0, "row_id", pa.array([draft.intake.ids[index] for index in indices], pa.string()))
            for batch in named.cast(schema).combine_chunks().to_batches():
                yield batch, pa.array(draft.splits[place : place + batch.num_rows], pa.string())
                place += batch.num_rows

    def _corrected(self) -> list[dict[str, Any]]:
        corrections = self.draft.corrections
        return [
            {
                "row_id": raw,
                "corrected_row_id": row_id,
                "who": corrections.by_row[raw].who,
                "time": corrections.by_row[raw].time,
                "before": corrections.by_row[raw].before,
                "after": corrections.by_row[raw].after,
            }
            for raw, row_id in sorted(corrections.applied.items())
        ]


def _masked(draft: "Draft") -> dict[str, Any]:
    """Great Expectations' report, values of personal columns as hashes."""
    report, contract = draft.findings.report, draft.contract
    personal = personal_columns(contract)
    for result in report["results"] if personal else ():
        arguments = result.get("expectation_config", {}).get("kwargs", {})
        named = [arguments[key] for key in arguments if key.startswith("column")]
        named = [name for entry in named for name in (entry if isinstance(entry, list) else [entry])]
        if personal & set(named):
            result["result"] = {key: _hide(key, value, contract) for key, value in result["result"].items()}
    return report


VALUES = ("partial_unexpected_list", "partial_unexpected_counts", "observed_value", "details")
"""Where Great Expectations puts values of a column; the rest of a result is counts, percentages and row numbers."""


def _hide(key: str, value: Any, contract: Any) -> Any:
    if key not in VALUES or value is None:
        return value
    if isinstance(value, list):
        return [_hide(key, one, contract) for one in value]
    if isinstance(value, dict):
        return {name: one if name == "count" else _hide(key, one, contract) for name, one in value.items()}
    return hidden(value, contract)
