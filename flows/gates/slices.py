"""On no slice of the test split worse than the champion by more than a margin, nor below a floor."""

from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from flows.judging.common_rows import common_rows, results
from flows.judging.evidence import Cited, Evidence, MissingEvidence, Subject
from flows.judging.gate import Gate, Verdict
from flows.judging.weak_slices import features, weak_slices
from training.intervals import figure, holm, p_worse
from training.metrics import METRICS, known_metric

if TYPE_CHECKING:
    import numpy as np

SHOWN = 12
LEAST_COMMON = 200
"""Rows that candidate and champion both have to have answered, where they were trained on two dataset versions."""


class Slices(Gate):
    """Says no when a slice is shown to have regressed; where nothing is shown it says yes, unlike `champion`: a slice
    has too few rows to prove the contrary.

    Slices: those of the contract (`slipway.slices`), and the weakest that a shallow tree finds. Their p values are
    corrected by Holm's method ("A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6(2), 1979): one false alarm already stops a good model, so the chance of any is what has to be held,
    not the share among the alarms (Benjamini-Hochberg); and it holds for slices that overlap.
    """

    evaluations: ClassVar[tuple[str, ...]] = ("classification",)

    metric: str = "accuracy"
    """accuracy, macro_f1, log_loss or brier."""
    margin: float = Field(default=0.02, ge=0, le=1)
    """How much worse than the champion a slice may be."""
    alpha: float = Field(default=0.05, ge=0.001, lt=0.5)
    """The chance that a model with no slice worse by more than the margin is refused."""
    floor: float | None = Field(default=None, ge=0, le=1)
    """What the metric has to reach on every slice, champion or not."""
    find: bool = True
    """Also look for the weakest slices."""
    minimum_rows: int = Field(default=30, ge=5)
    """Of a slice; one named by a condition that has fewer is a no."""

    check_metric = field_validator("metric")(known_metric)

    @model_validator(mode="after")
    def check_floor(self) -> Self:
        if self.floor is not None and not METRICS[self.metric].share:
            raise ValueError(f"{METRICS[self.metric].title} is better when lower and has no floor; leave it out")
        return self

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        metric = METRICS[self.metric]
        measure = f"worst slice: {metric.title} minus the champion's"
        if champion is None and self.floor is None:
            return self.nothing_to_compare(candidate, evidence, measure)
        columns = ["row_id", "label", *metric.columns]
        if champion is None:
            proof = evidence.no_champion(candidate.name)
            own = evidence.evaluation(candidate)
            mine: dict[str, list[Any]] = results(own, list(dict.fromkeys(columns)), candidate.ref)
            theirs, row_ids, cited = None, mine["row_id"], [own.predictions_file, proof]
        else:
            rows = common_rows(evidence, candidate, champion, columns, LEAST_COMMON)
            mine, theirs, row_ids, cited = rows.mine, rows.theirs, rows.row_ids, list(rows.files)
        slices, data = self.slices(candidate, evidence, row_ids, mine, theirs)
        if not slices and mine == theirs and self.floor is None:
            sentence = f"On all {len(row_ids):,} test rows it answers as the champion does: no slice is worse."
            return self.verdict(True, sentence, cited[0], measure=measure, observed=0.0, also_cited=[*cited[1:], data])
        if not slices:
            raise MissingEvidence(
                "there is no slice to judge: the contract names none (slipway.slices), and none was found"
            )
        judged = self.judge_slices(slices, mine, theirs)
        return self.told(judged, champion, measure, [*cited, data])

    def slices(
        self, candidate: Subject, evidence: Evidence, row_ids: list[str], mine: dict[str, Any], theirs: Any
    ) -> "tuple[dict[str, np.ndarray], Cited]":
        """Slice -> rows (N,) bool: those of the contract, then those found."""
        import numpy as np
        from pyarrow import parquet

        from data_contracts.slices import RARER, named_slices

        contract = evidence.contract(candidate)
        path, cited = evidence.data_file(candidate, "data/test")
        table = parquet.read_table(path)
        place = {row_id: index for index, row_id in enumerate(table["row_id"].to_pylist())}
        lost = [row_id for row_id in row_ids if row_id not in place]
        if lost:
            raise MissingEvidence(f"test row {lost[0][:12]}, which was evaluated, is not in {candidate.ref}'s data")
        table = table.take([place[row_id] for row_id in row_ids])
        found = {}
        for name, inside in named_slices(contract, table, self.minimum_rows).items():
            if inside.sum() >= self.minimum_rows:
                found[name] = inside
            elif not name.endswith(RARER):
                raise MissingEvidence(
                    f"slice '{name}' has {int(inside.sum())} test rows, {self.minimum_rows} are needed; widen it, or "
                    "lower gates.slices.minimum_rows"
                )
        if self.find:
            metric = METRICS[self.metric] if METRICS[self.metric].mean else METRICS["accuracy"]
            gains = metric.sign * metric.per_row(mine)
            if theirs is not None:
                gains = gains - metric.sign * metric.per_row(theirs)
            offered = features(table, [str(label) for label in mine["label"]], contract)
            weakest = weak_slices(row_ids, offered, np.asarray(gains), self.minimum_rows)
            found |= {f"found: {name}": inside for name, inside in weakest.items()}
        return found, cited

    def judge_slices(self, slices: "dict[str, np.ndarray]", mine: dict[str, Any], theirs: Any) -> list[dict[str, Any]]:
        """One row a slice, worst first."""
        import numpy as np

        judged = []
        for name, inside in slices.items():
            rows = np.flatnonzero(inside)
            here = {column: [values[row] for row in rows] for column, values in mine.items()}
            own = figure(self.metric, here)
            row: dict[str, Any] = {"slice": name, "rows": len(rows), "candidate": own}
            if theirs is not None:
                there = {column: [values[row] for row in rows] for column, values in theirs.items()}
                before = figure(self.metric, there)
                row["champion"] = before
                row["difference"] = METRICS[self.metric].sign * (own - before)
                row["p"] = p_worse(self.metric, here, there, self.margin, self.alpha / len(slices))
            judged.append(row)
        if theirs is not None:
            for row, adjusted in zip(judged, holm([row["p"] for row in judged]), strict=True):
                row["p, corrected"] = adjusted
        for row in judged:
            regressed = theirs is not None and row["p, corrected"] <= self.alpha
            low = self.floor is not None and row["candidate"] < self.floor
            row["verdict"] = "worse" if regressed else "below the floor" if low else "fine"
        return sorted(judged, key=lambda row: (row["verdict"] == "fine", row.get("p", row["candidate"])))

    def told(self, judged: list[dict[str, Any]], champion: Subject | None, measure: str, cited: list[Cited]) -> Verdict:
        metric = METRICS[self.metric]
        bad = [row for row in judged if row["verdict"] != "fine"]
        worst = judged[0]
        reasons = []
        for row in bad[:3]:
            if row["verdict"] == "worse":
                seen = f"{metric.difference(row['difference'])} against the champion"
                seen += f" (p {row['p, corrected']:.2g} corrected for {len(judged)} slices)"
            else:
                seen = f"{row['candidate']:.3f}, below {self.floor:.3f}"
            reasons.append(f"on '{row['slice']}' ({row['rows']:,} rows) {metric.title} is {seen}")
        than = f"the champion {champion.ref}" if champion else f"the floor of {self.floor:.3f}"
        if bad:
            sentence = f"{len(bad)} of {len(judged)} slices are worse than they may be: {'; '.join(reasons)}."
        elif champion:
            allowed = f"{100 * self.margin:.1f} points" if metric.share else f"{self.margin:g}"
            sentence = (
                f"None of {len(judged)} slices is shown to be worse than {than} by more than {allowed}; the most "
                f"suspect is '{worst['slice']}' ({worst['rows']:,} rows, {metric.difference(worst['difference'])})."
            )
        else:
            sentence = (
                f"None of {len(judged)} slices is below {than}; the weakest is '{worst['slice']}' "
                f"({worst['rows']:,} rows, {worst['candidate']:.3f})."
            )
        details = [
            {name: f"{value:.2g}" if name.startswith("p") else value for name, value in row.items()} for row in judged
        ]
        by_floor = worst["verdict"] == "below the floor" or champion is None
        return self.verdict(
            not bad,
            sentence,
            cited[0],
            measure=f"worst slice: {metric.title}" if by_floor else measure,
            observed=worst["candidate"] if by_floor else worst["difference"],
            threshold=self.floor if by_floor else -self.margin,
            also_cited=cited[1:],
            details=details[:SHOWN],
        )
