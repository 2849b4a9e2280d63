"""Better than a tuned linear model; where it is not, says what would change it. Warns unless told to block."""

from typing import Literal

from pydantic import Field, field_validator

from flows.judging.evidence import Evidence, Subject
from flows.judging.gate import Gate, Verdict
from training.evaluation import compared_metric
from training.intervals import ALPHA, compare, is_better
from training.metrics import METRICS


class BeatsBaseline(Gate):
    severity: Literal["block", "warn"] = "warn"
    """A linear model that does as well is worth knowing and no reason to stop, unless `block` says so."""
    metric: str = "accuracy"
    """accuracy or macro_f1."""
    alpha: float = Field(default=ALPHA, ge=0.0001, lt=0.5)
    """One-sided: the share of models equal to the baseline that pass."""

    check_metric = field_validator("metric")(compared_metric)

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        evaluation, metric = evidence.evaluation(candidate), METRICS[self.metric]
        found = compare(self.metric, *evaluation.against_baseline(), self.alpha)
        linear = evaluation.metrics["baseline"]["name"]
        name = metric.title
        passed = is_better(found, self.alpha)
        interval = f"{100 - 200 * self.alpha:g} % interval {metric.difference(found.low, found.high)}"
        seen = f"{metric.difference(found.value)} of {name}, {interval}"
        if passed:
            sentence = f"The model is better than {linear}: {seen}."
        else:
            how_well = "does better" if found.high < 0 else "does as well"
            sentence = (
                f"A linear model {how_well}: {linear} trains in seconds, and against it this model shows {seen}. What "
                "would change it: more labelled rows, other settings, or, for text, an encoder pretrained on much more "
                "of it (--set base=PATH). Until then the linear model is the cheaper choice."
            )
        return self.verdict(
            passed,
            sentence,
            evaluation.predictions_file,
            measure=f"{name} minus the baseline's",
            observed=found.value,
            threshold=0.0,
            interval=(found.low, found.high),
            also_cited=[evaluation.metrics_file],
        )
