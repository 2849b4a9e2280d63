"""A version before it is in the store: every row of a source judged, split and counted, none vanished."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contract import Contract
from data_contracts.corrections import Corrections
from data_contracts.filters import DUPLICATE, left_out
from data_contracts.intake import Intake, duplicates, most_common, quarantine_failing, take_in
from data_contracts.memory import Memory
from data_contracts.near_duplicates import RULE as NEAR_DUPLICATE
from data_contracts.near_duplicates import compared_columns, near_duplicates
from data_contracts.repeats import NAMED, contradictions, remarks, repeats
from data_contracts.row_sample import hidden, personal_columns
from data_contracts.rows import exact_text
from data_contracts.rules import columns_of_rules
from data_contracts.splits import SPLITS, assign, key_columns, keys
from data_contracts.validation import Findings, validate
from infra.digests import digest
from infra.errors import Refused, SlipwayError
from infra.progress import Progress


class Draft:
    """Raises WrongInput for a source that cannot be read, Refused for one that violates its contract.

    `folder` holds the rows while the draft lives.
    """

    contract: Contract
    intake: Intake
    corrections: Corrections
    left_out: dict[int, str]
    """Row -> the filter that left it out."""
    duplicates: dict[int, int]
    """Row -> the earlier row it repeats, which is kept in its place."""
    findings: Findings
    kept: list[int]
    splits: list[str]
    """The split of each kept row."""
    repeated: list[tuple[str, int, str, str, str | None, float]]
    """Rows of `repeats.repeats_table`."""
    counts: dict[str, int]
    rows: str
    digest: str

    def __init__(
        self,
        contract: Contract,
        uri: str | None,
        cache: Path,
        folder: Path,
        progress: Progress | None,
        corrections: Corrections | None = None,
        memory: Memory | None = None,
    ):
        self.contract, self.folder, self.progress = contract, folder, progress
        self.where = f"source {uri}" if uri else f"source of {contract.path}"
        self.corrections = corrections or Corrections()
        self.intake = take_in(contract, uri, cache, folder, progress, self.corrections, memory)
        self._say("checking the rules")
        self.left_out = left_out(self.intake.table, contract, self.where)
        self.duplicates = duplicates(self.intake, contract, self.left_out)
        filtered = self.left_out.keys() | self.duplicates.keys()
        judged = [index for index in range(len(self.intake.ids)) if index not in filtered]
        if not judged:
            self._refuse_all()
        self.findings = validate(self.columns(columns_of_rules(contract), judged), contract)
        self._remark_contradictions()
        failing = {judged[index]: reasons for index, reasons in self.findings.rows.items()}
        quarantine_failing(self.intake, failing)
        self.kept = [index for index in judged if index not in failing]
        self._refuse_bad()
        self._say("assigning splits")
        files = self.intake.files(self.kept) if contract.split.files else []
        self.splits = assign(self.columns(key_columns(contract), self.kept), contract, files)
        self.repeated = []
        self._remark_repeats()
        if contract.duplicates and contract.duplicates["near"] and compared_columns(contract):
            self._judge_near_duplicates()
        self._refuse_empty_split()
        self.counts = self._count()
        self.rows = self._rows_digest()
        self.digest = digest({"rows": self.rows, "contract": contract.digest})

    def _say(self, note: str) -> None:
        if self.progress is not None:
            self.progress.say(note)

    def columns(self, names: list[str], indices: list[int]) -> pa.Table:
        """Some columns of some rows. A table without columns keeps its number of rows only as long as it has one."""
        table = self.intake.table.select(names or self.intake.table.column_names[:1])
        return table if len(indices) == table.num_rows else table.take(indices)

    def _remark_contradictions(self) -> None:
        label = self.contract.label
        if label is None or not self.duplicates or label in (self.contract.duplicates or {})["columns"]:
            return
        values = self.intake.table.column(label)
        later, earlier = values.take(list(self.duplicates)), values.take(list(self.duplicates.values()))
        rows = pc.sum(pc.fill_null(pc.not_equal(exact_text(later), exact_text(earlier)), False)).as_py() or 0
        if rows:
            reason = (
                f"{rows:,} of {len(self.duplicates):,} filtered repeats have another {label} than the row that was kept"
            )
            self.findings.warnings.append({"rule": f"{label}:contradictory", "reason": reason, "rows": rows})

    def _remark_repeats(self) -> None:
        """Inputs under two labels, and what pinned splits share: splits by hash keep equal inputs together."""
        contract = self.contract
        if contract.label is None and not contract.split.pinned:
            return
        groups = repeats(keys(self.columns(list(contract.inputs), self.kept), contract.inputs))
        labels = self._labels()
        shown = groups if contract.split.pinned else contradictions(groups, labels or [])
        self.findings.warnings += [
            warning
            for warning in remarks(shown, self.splits, labels, lambda row: self.intake.origin(self.kept[row]))
            if contract.split.pinned or warning["rule"] == "label:contradictory"
        ]
        for kind, chosen in {
            "contradiction": contradictions(groups, labels) if labels else [],
            "leak": [group for group in shown if len({self.splits[row] for row in group}) > 1],
        }.items():
            for group in chosen:
                self._name(kind, group, labels, 1.0)

    def _labels(self) -> list[Any] | None:
        name = self.contract.label
        if name is None:
            return None
        values: list[Any] = self.columns([name], self.kept).column(name).to_pylist()
        if self.contract.column(name).type == "array":
            values = [None if value is None else tuple(value) for value in values]
        if name in personal_columns(self.contract):
            return [None if value is None else hidden(value, self.contract) for value in values]
        return values

    def _name(self, kind: str, group: list[int], labels: list[Any] | None, similarity: float) -> None:
        number = self.repeated[-1][1] + 1 if self.repeated else 1
        for row in group:
            label = None if labels is None or labels[row] is None else str(labels[row])
            row_id = self.intake.ids[self.kept[row]]
            self.repeated.append((kind, number, row_id, self.splits[row], label, similarity))

    def _judge_near_duplicates(self) -> None:
        contract = self.contract
        assert contract.duplicates is not None
        self._say("looking for near-duplicates across splits")
        table = self.columns(compared_columns(contract), self.kept)
        pairs = near_duplicates(table, self.splits, contract, self.progress)
        if not pairs:
            return
        labels = self._labels()
        for pair in pairs:
            self._name("near-duplicate", [pair.leaves, pair.stays], labels, pair.similarity)
        if contract.duplicates["near"] == "report":

            def place(row: int) -> str:
                return "{}:{}".format(*self.intake.origin(self.kept[row]))

            named = [f"{place(pair.leaves)} ~ {place(pair.stays)}" for pair in pairs[:NAMED]]
            between = Counter(f"{self.splits[pair.leaves]}/{self.splits[pair.stays]}" for pair in pairs)
            shown = ", ".join(f"{name} {count:,}" for name, count in sorted(between.items()))
            alike = f"{contract.duplicates['similarity']:.0%}"
            reason = f"pairs of inputs that are {alike} alike or more across splits: {len(pairs):,} ({shown})"
            self.findings.warnings.append(
                {"rule": NEAR_DUPLICATE, "reason": reason, "rows": len(pairs), "named": named}
            )
            return
        failing = {}
        for pair in pairs:
            other = self.intake.ids[self.kept[pair.stays]][:16]
            sentence = f"inputs: {pair.similarity:.0%} like row {other} of {self.splits[pair.stays]}"
            failing[self.kept[pair.leaves]] = [(NEAR_DUPLICATE, sentence)]
        quarantine_failing(self.intake, failing)
        staying = [place for place, index in enumerate(self.kept) if index not in failing]
        self.kept, self.splits = [self.kept[place] for place in staying], [self.splits[place] for place in staying]

    def _refuse_bad(self) -> None:
        path, quarantined = self.contract.path, self.intake.quarantined
        if not self.kept:
            self._refuse_all()
        if self.findings.refusals:
            raise Refused(f"{self.where}: violates contract {path}: {'; '.join(self.findings.refusals)[:500]}")
        asked = self.intake.rows_in - len(self.left_out)
        share = len(quarantined) / asked
        if share > self.contract.quarantine_limit:
            raise Refused(
                f"{self.where}: {share:.1%} of {asked:,} rows violate contract {path} "
                f"(slipway.quarantine: limit {self.contract.quarantine_limit:.1%}): {most_common(quarantined)}"
            )

    def _refuse_all(self) -> None:
        asked = self.intake.rows_in - len(self.left_out)
        raise Refused(
            f"{self.where}: every row ({asked:,}) violates contract {self.contract.path}: "
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
        counts |= {"quarantined": len(self.intake.quarantined), "filtered": len(self.left_out) + len(self.duplicates)}
        if sum(counts.values()) != rows_in:
            raise SlipwayError(f"{self.where}: {rows_in:,} rows came in, {sum(counts.values()):,} are accounted for")
        return counts | {"rows_in": rows_in}

    def filtered(self) -> list[tuple[int, str]]:
        """(row, `filter NAME` or `duplicate ID` of the row it repeats) of each filtered row in source order."""
        reasons = {index: f"filter {name}" for index, name in self.left_out.items()}
        reasons |= {index: f"duplicate {self.intake.ids[first]}" for index, first in self.duplicates.items()}
        return sorted(reasons.items())

    @property
    def filtered_by(self) -> dict[str, int]:
        """Rows that each filter left out, and `duplicate`."""
        counts = dict(Counter(self.left_out.values()).most_common())
        return counts | ({DUPLICATE: len(self.duplicates)} if self.duplicates else {})

    def _rows_digest(self) -> str:
        ids = self.intake.ids
        return rows_digest(
            ((ids[index], split) for index, split in zip(self.kept, self.splits, strict=True)),
            ((row.row_id, row.rules) for row in self.intake.quarantined),
            ((ids[index], reason) for index, reason in self.filtered()),
        )


def rows_digest(
    kept: Iterable[tuple[str, str]], quarantined: Iterable[tuple[str, list[str]]], filtered: Iterable[tuple[str, str]]
) -> str:
    """SHA-256 over one line a row: kept (id, split) in source order, quarantined (id, rules) sorted, filtered (id,
    reason) in source order.

    Quarantined rows are sorted because one that fails its cast is met before one that fails a rule.
    """
    sha = hashlib.sha256()

    def add(lines: Iterable[str]) -> None:
        for line in lines:
            sha.update(f"{line}\n".encode())

    add(f"{row_id} {split}" for row_id, split in kept)
    add(sorted(f"quarantined {row_id} {json.dumps(rules)}" for row_id, rules in quarantined))
    add(f"filtered {row_id} {reason}" for row_id, reason in filtered)
    return sha.hexdigest()
