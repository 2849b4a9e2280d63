"""The test split does not stand in the training split: exact copies and near-duplicates of inputs, as a share."""

import json
from typing import Any

from pydantic import Field

from flows.judging.evidence import Evidence, MissingEvidence, Subject
from flows.judging.gate import Gate, Verdict

SHOWN = 10
SHOWN_CHARS = 160


class Contamination(Gate):
    """Exact: all input columns are equal after normalising (case, spaces, composed accents). Near: the sets of
    5-character pieces of the text inputs (not of categories) are alike, found by MinHash LSH and confirmed by exact
    Jaccard (Lee et al., "Deduplicating training data makes language models better", ACL 2022, §4.2 and §5). Only the
    version's own splits are compared, not what a pretrained base has read."""

    maximum_share: float = Field(default=0.01, ge=0, le=1)
    """Of the test rows."""
    similarity: float = Field(default=0.8, ge=0.5, le=1)
    """Jaccard from which two texts are near-duplicates."""

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        from pyarrow import parquet

        from data_contracts.near_duplicates import compared_columns, near_copies
        from data_contracts.profile import is_text
        from data_contracts.splits import keys

        contract = evidence.contract(candidate)
        judged = "test" if evidence.version(candidate)[0].counts["test"] else "validation"
        files = {"test": evidence.data_file(candidate, f"data/{judged}")}
        files["train"] = evidence.data_file(candidate, "data/train")
        names = ["row_id", *contract.inputs]
        test, train = (parquet.read_table(path, columns=names, memory_map=True) for path, _ in files.values())
        if not test.num_rows:
            raise MissingEvidence(f"the data of {candidate.ref} have no row that is judged")
        first: dict[str, int] = {}
        for row, key in enumerate(keys(train, contract.inputs)):
            first.setdefault(key, row)
        exact = {row: first[key] for row, key in enumerate(keys(test, contract.inputs)) if key in first}
        profile = json.loads(evidence.data_file(candidate, "profile")[0].read_text(encoding="utf-8"))["columns"]
        # Rows of a table share their categories with many others, and nearly repeat none of them by that.
        texts = [name for name in compared_columns(contract) if is_text(profile[name])]
        near = near_copies(list(keys(test, texts)), list(keys(train, texts)), self.similarity) if texts else {}
        pairs = {row: (other, 1.0) for row, other in exact.items()}
        pairs |= {row: found for row, found in near.items() if row not in exact}
        share = len(pairs) / test.num_rows
        passed = share <= self.maximum_share
        nearly = f"{len(pairs) - len(exact):,} near-duplicates (Jaccard {self.similarity:g} or more)"
        counted = (
            f"{len(pairs):,} of {test.num_rows:,} {judged} rows ({share:.1%}) stand in the training split: "
            f"{len(exact):,} exact copies, "
            f"{nearly if texts else 'and near-duplicates are asked of texts, which no input holds'}"
        )
        if passed:
            sentence = f"{counted}; up to {self.maximum_share:.1%} are allowed."
        else:
            sentence = (
                f"{counted}, more than the {self.maximum_share:.1%} allowed: the figures on this split are of rows it "
                "has seen. `slipway.duplicates: {near: quarantine}` in the contract keeps them out of training."
            )
        shown = sorted(pairs, key=lambda row: (-pairs[row][1], row))[:SHOWN]
        ids = [test["row_id"][row].as_py() for row in shown]
        said = evidence.shown_inputs(candidate, ids) if ids else []
        details: list[dict[str, Any]] = [
            {
                "test row": row_id[:12],
                "training row": train["row_id"][pairs[row][0]].as_py()[:12],
                "alike": "exact copy" if row in exact else f"{pairs[row][1]:.2f}",
                "input": text[:SHOWN_CHARS],
            }
            for row, row_id, text in zip(shown, ids, said, strict=True)
        ]
        return self.verdict(
            passed,
            sentence,
            files["test"][1],
            measure="share of test rows that stand in the training split",
            observed=share,
            threshold=self.maximum_share,
            also_cited=[files["train"][1]],
            details=details,
        )
