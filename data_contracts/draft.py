"""A version before it is in the store: every row of a source judged, split and counted, none vanished."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.contract import Contract
from data_contracts.intake import Intake, duplicates, most_common, quarantine_failing, quarantine_table, take_in
from data_contracts.profile import profile
from data_contracts.repeats import remarks, repeats
from data_contracts.splits import SPLITS, assign, key_columns, keys
from data_contracts.validation import Findings, columns_of_rules, validate
from infra.digests import digest, digest_file
from infra.errors import Refused, SlipwayError
from infra.progress import Progress
from infra.store import Store


class Draft:
    """Raises WrongInput for a source that cannot be read, Refused for one that violates its contract.

    `folder` holds the rows while the draft lives.
    """

    contract: Contract
    intake: Intake
    filtered: dict[int, int]
    """Row -> the earlier row it repeats."""
    findings: Findings
    kept: list[int]
    splits: list[str]
    """The split of each kept row."""
    counts: dict[str, int]
    rows: str
    digest: str

    def __init__(self, contract: Contract, uri: str | None, cache: Path, folder: Path, progress: Progress | None):
        self.contract, self.folder, self.progress = contract, folder, progress
        self.where = f"source {uri}" if uri else f"source of {contract.path}"
        self.intake = take_in(contract, uri, cache, folder, progress)
        self._say("checking the rules")
        self.filtered = duplicates(self.intake, contract)
        judged = [index for index in range(len(self.intake.ids)) if index not in self.filtered]
        if not judged:
            self._refuse_all()
        self.findings = validate(self._columns(columns_of_rules(contract), judged), contract)
        self._remark_contradictions()
        failing = {judged[index]: reasons for index, reasons in self.findings.rows.items()}
        quarantine_failing(self.intake, failing)
        self.kept = [index for index in judged if index not in failing]
        self._refuse_bad()
        self._say("assigning splits")
        files = self.intake.files(self.kept) if contract.split.files else []
        self.splits = assign(self._columns(key_columns(contract), self.kept), contract, files)
        self._refuse_empty_split()
        self._remark_repeats()
        self.counts = self._count()
        self.rows = self._rows_digest()
        self.digest = digest({"rows": self.rows, "contract": contract.digest})

    def _say(self, note: str) -> None:
        if self.progress is not None:
            self.progress.say(note)

    def _columns(self, names: list[str], indices: list[int]) -> pa.Table:
        """Some columns of some rows. A table without columns keeps its number of rows only as long as it has one."""
        table = self.intake.table.select(names or self.intake.table.column_names[:1])
        return table if len(indices) == table.num_rows else table.take(indices)

    def _remark_contradictions(self) -> None:
        label = self.contract.label
        if label is None or not self.filtered or label in (self.contract.duplicates or {})["columns"]:
            return
        values = self.intake.table.column(label)
        later, earlier = values.take(list(self.filtered)), values.take(list(self.filtered.values()))
        rows = pc.sum(pc.fill_null(pc.not_equal(later, earlier), False)).as_py() or 0
        if rows:
            reason = (
                f"{rows:,} of {len(self.filtered):,} filtered repeats have another {label} than the row that was kept"
            )
            self.findings.warnings.append({"rule": f"{label}:contradictory", "reason": reason, "rows": rows})

    def _remark_repeats(self) -> None:
        """What pinned splits share; splits by hash keep equal inputs together, and need no look."""
        contract = self.contract
        if contract.split.pinned:
            groups = repeats(keys(self._columns(list(contract.inputs), self.kept), contract.inputs))
            labels = None
            if contract.label is not None:
                labels = self._columns([contract.label], self.kept).column(contract.label).to_pylist()
            self.findings.warnings += remarks(
                groups, self.splits, labels, lambda row: self.intake.origin(self.kept[row])
            )

    def _refuse_bad(self) -> None:
        path, quarantined = self.contract.path, self.intake.quarantined
        if not self.kept:
            self._refuse_all()
        if self.findings.refusals:
            raise Refused(f"{self.where}: violates contract {path}: {'; '.join(self.findings.refusals)[:500]}")
        share = len(quarantined) / self.intake.rows_in
        if share > self.contract.quarantine_limit:
            raise Refused(
                f"{self.where}: {share:.1%} of {self.intake.rows_in:,} rows violate contract {path} "
                f"(slipway.quarantine: limit {self.contract.quarantine_limit:.1%}): {most_common(quarantined)}"
            )

    def _refuse_all(self) -> None:
        raise Refused(
            f"{self.where}: every row ({self.intake.rows_in:,}) violates contract {self.contract.path}: "
            f"{most_common(self.intake.quarantined)}; mend the data or the contract"
        )

    def _refuse_empty_split(self) -> None:
        sizes, split = Counter(self.splits), self.contract.split
        for name, share in {"test": split.test, "validation": split.validation, "train": 1.0}.items():
            if (share > 0 or name in split.files) and not sizes[name]:
                if split.pinned:
                    raise Refused(
                        f"{self.where}: split '{name}' would be empty: no good row is pinned to it; "
                        f"mend slipway.split in {self.contract.path}"
                    )
                what = f"groups of {split.group}" if split.group else "distinct inputs"
                raise Refused(
                    f"{self.where}: split '{name}' would be empty ({len(self.splits):,} rows, too few {what}); "
                    f"give more rows, or set slipway.split in {self.contract.path} to a larger share (or to 0)"
                )

    def _count(self) -> dict[str, int]:
        sizes, rows_in = Counter(self.splits), self.intake.rows_in
        counts = {split: sizes[split] for split in SPLITS}
        counts |= {"quarantined": len(self.intake.quarantined), "filtered": len(self.filtered)}
        if sum(counts.values()) != rows_in:
            raise SlipwayError(f"{self.where}: {rows_in:,} rows came in, {sum(counts.values()):,} are accounted for")
        return counts | {"rows_in": rows_in}

    def _rows_digest(self) -> str:
        """SHA-256 over one line a row: kept in source order, quarantined sorted by id, filtered in source order.

        Quarantined rows are sorted because one that fails its cast is met before one that fails a rule.
        """
        ids = self.intake.ids
        sha = hashlib.sha256()

        def add(lines: Iterable[str]) -> None:
            for line in lines:
                sha.update(f"{line}\n".encode())

        add(f"{ids[index]} {split}" for index, split in zip(self.kept, self.splits, strict=True))
        add(sorted(f"quarantined {row.row_id} {json.dumps(row.rules)}" for row in self.intake.quarantined))
        add(f"filtered {ids[index]} duplicate {ids[first]}" for index, first in sorted(self.filtered.items()))
        return sha.hexdigest()

    def upload(self, store: Store, prefix: str) -> dict[str, Any]:
        """Write every file but the manifest below `prefix`. Returns the manifest's part that tells of them."""
        ids, rows = self.intake.ids, self._columns(self.intake.table.column_names, self.kept)
        files: dict[str, dict[str, Any]] = {}

        def put(name: str, path: Path) -> None:
            sha = digest_file(path)
            target = f"{name}-{sha}{''.join(path.suffixes)}"
            files[name] = {"name": target, "sha256": sha, "bytes": path.stat().st_size}
            store.upload(path, prefix + target)

        def put_table(name: str, table: pa.Table) -> None:
            path = self.folder / f"{name.replace('/', '-')}.parquet"
            pq.write_table(table, path, compression="zstd")
            put(name, path)
            files[name]["rows"] = table.num_rows

        def put_text(name: str, text: str) -> None:
            path = self.folder / name
            path.write_text(text, encoding="utf-8")
            put(path.name.partition(".")[0], path)

        self._say("writing the version")
        named = rows.add_column(0, "row_id", pa.array([ids[index] for index in self.kept], pa.string()))
        splits = pa.array(self.splits, pa.string())
        for split in SPLITS:
            put_table(f"data/{split}", named.filter(pc.equal(splits, split)))
        put_table("quarantine", quarantine_table(self.intake.quarantined))
        repeats = [(ids[index], ids[first]) for index, first in sorted(self.filtered.items())]
        columns = {"row_id": [row for row, _ in repeats], "duplicate_of": [first for _, first in repeats]}
        put_table("filtered", pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()}))
        put_text("validation.json", _json(self.findings.report))
        put_text("profile.json", _json(profile(named, self.contract)))
        put_text("contract.odcs.yaml", self.contract.text)
        return {"counts": self.counts, "warnings": self.findings.warnings, "files": files}


def _json(body: dict[str, Any]) -> str:
    return json.dumps(body, indent=1, sort_keys=True, default=str)
