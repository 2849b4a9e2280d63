"""Not worse than the champion by more than a margin, on the same test rows."""

from pydantic import Field, field_validator

from flows.evidence import Evidence, MissingEvidence, Subject
from flows.gate import Gate, Verdict
from training.evaluation import METRICS, known_metric, paired_difference, points


class Champion(Gate):
    """A non-inferiority test: the lower end of the paired bootstrap interval has to stay above minus the margin.

    ICH E9, "Statistical principles for clinical trials", 1998, §3.3.2: the margin is fixed beforehand and the
    interval decides, so too few rows lead to a no. With 2,000 test rows, 14 % of which only one of the two has right,
    an equally good candidate passes a margin of 0.01 in one case of five, 0.02 in two of three, 0.03 in nineteen of
    twenty.
    """

    metric: str = "accuracy"
    """accuracy or macro_f1."""
    margin: float = Field(default=0.02, ge=0, le=1)
    """How much worse is still taken as not worse."""
    alpha: float = Field(default=0.025, gt=0, lt=0.5)
    """One-sided: the share of candidates worse by exactly the margin that may pass. 0.025 is a 95 % interval."""
    minimum_rows: int = Field(default=200, ge=1)
    """Where the champion was evaluated on another dataset version: test rows that both must have answered."""

    check_metric = field_validator("metric")(known_metric)

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        name = METRICS[self.metric]
        measure = f"{name} minus the champion's"
        if champion is None:
            return self.nothing_to_compare(candidate, evidence, measure)
        mine, theirs = evidence.evaluation(candidate), evidence.evaluation(champion)
        columns = ["row_id", "label", "prediction"]
        answered = {row["row_id"]: (row["label"], row["prediction"]) for row in theirs.predictions(columns).to_pylist()}
        own = mine.predictions(columns).to_pylist()
        # A row id is the hash of the whole row: another label is another row.
        rows = [row for row in own if row["row_id"] in answered and answered[row["row_id"]][0] == row["label"]]
        needed = len(own) if candidate.dataset == champion.dataset else self.minimum_rows
        if len(rows) < needed:
            raise MissingEvidence(
                f"{candidate.ref} and the champion {champion.ref} answered {len(rows):,} test rows in common, "
                f"{needed:,} are needed; keep the champion's test rows in the data set, or lower "
                "gates.champion.minimum_rows"
            )
        difference = paired_difference(
            [row["prediction"] for row in rows],
            [answered[row["row_id"]][1] for row in rows],
            [row["label"] for row in rows],
            self.metric,
            confidence=1 - 2 * self.alpha,
        )
        passed = difference.low >= -self.margin
        sentence = (
            f"{name[0].upper()}{name[1:]} is {points(difference.value)} against the champion {champion.ref} on "
            f"{_rows(len(rows), len(own))}, {100 - 200 * self.alpha:g} % interval "
            f"{points(difference.low, difference.high)}; "
        )
        if passed:
            sentence += f"it is not worse by more than {100 * self.margin:.1f} points."
        else:
            sentence += (
                f"a loss of more than {100 * self.margin:.1f} points is not ruled out. A better candidate, more test "
                "rows or a wider gates.champion.margin would change it."
            )
        return self.verdict(
            passed,
            sentence,
            mine.predictions_file,
            measure=measure,
            observed=difference.value,
            threshold=-self.margin,
            interval=(difference.low, difference.high),
            also_cited=[theirs.predictions_file],
        )


def _rows(common: int, own: int) -> str:
    if common == own:
        return f"the same {own:,} test rows"
    return f"the {common:,} test rows both have answered (of the candidate's {own:,})"
