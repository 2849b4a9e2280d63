"""Better than a tuned simple model; where it is not, says what would change it. Warns unless told to block."""

from typing import Literal

from pydantic import Field, field_validator

from flows.judging.evidence import Evidence, Subject
from flows.judging.gate import Gate, Verdict
from training.intervals import ALPHA, compare, is_better
from training.metrics import METRICS, compared_metric


class BeatsBaseline(Gate):
    severity: Literal["block", "warn"] = "warn"
    """A simple model that does as well is worth knowing and no reason to stop, unless `block` says so."""
    metric: str = "accuracy"
    """accuracy or macro_f1, or one of another kind of evaluation."""
    alpha: float = Field(default=ALPHA, ge=0.0001, lt=0.5)
    """One-sided: the share of models equal to the baseline that pass."""

    check_metric = field_validator("metric")(compared_metric)

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        evaluation, metric = evidence.evaluation(candidate), METRICS[self.metric]
        found = compare(self.metric, *evaluation.against_baseline(self.metric), self.alpha)
        simple, kind = evaluation.metrics["baseline"]["name"], evaluation.kind
        name = metric.title
        passed = is_better(found, self.alpha)
        interval = f"{100 - 200 * self.alpha:g} % interval {metric.difference(found.low, found.high)}"
        way = "" if metric.higher_is_better else " (positive is better)"
        seen = f"{metric.difference(found.value)} of {name}{way}, {interval}"
        if passed:
            sentence = f"The model is better than {simple}: {seen}."
        else:
            how_well = "does better" if found.high < 0 else "does as well"
            sentence = (
                f"{kind.baseline[0].upper()}{kind.baseline[1:]} {how_well}: {simple} trains in seconds, and against it "
                f"this model shows {seen}. What would change it: {kind.advice}. Until then it is the cheaper "
                "choice."
            )
        return self.verdict(
            passed,
            sentence,
            evaluation.predictions_file,
            measure=metric.minus("the baseline's"),
            observed=found.value,
            threshold=0.0,
            interval=(found.low, found.high),
            also_cited=[evaluation.metrics_file],
        )
