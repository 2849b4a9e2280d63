"""Not worse than a tuned simple model by more than a margin, on the same test rows."""

from typing import Literal

from pydantic import Field, field_validator

from flows.judging.evidence import Evidence, Subject
from flows.judging.gate import Gate, Verdict
from training.intervals import ALPHA, compare
from training.metrics import METRICS, compared_metric, told


class Baseline(Gate):
    metric: str = "accuracy"
    """accuracy or macro_f1 (a linear model's answers are kept, not its probabilities), or one of another kind of
    evaluation."""
    margin: float = Field(default=0.02, ge=0, le=1)
    """How much worse than the baseline is still accepted, in the metric's unit."""
    decide_by: Literal["value", "interval"] = "value"
    """What may not fall below minus the margin: the measured difference, or the lower end of its interval."""
    alpha: float = Field(default=ALPHA, ge=0.0001, lt=0.5)
    """One-sided: the share of models worse by exactly the margin that pass by `decide_by: interval`."""

    check_metric = field_validator("metric")(compared_metric)

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        evaluation, metric = evidence.evaluation(candidate), METRICS[self.metric]
        found = compare(self.metric, *evaluation.against_baseline(self.metric), self.alpha)
        simple = evaluation.metrics["baseline"]
        judged = found.value if self.decide_by == "value" else found.low
        passed = judged >= -self.margin
        name, way = metric.title, "" if metric.higher_is_better else " (positive is better)"
        end = ", judged by the " + ("measured value." if self.decide_by == "value" else "lower end of the interval.")
        allowed = f"{metric.amount(self.margin)} by which it may fall short{end}"
        return self.verdict(
            passed,
            f"{name[0].upper()}{name[1:]} is {metric.difference(found.value)}{way} against {simple['name']} "
            f"({told(simple[self.metric]['value'])}), {100 - 200 * self.alpha:g} % interval "
            f"{metric.difference(found.low, found.high)}; "
            + (f"within the {allowed}" if passed else f"more than the {allowed}"),
            evaluation.predictions_file,
            measure=metric.minus("the baseline's"),
            observed=found.value,
            threshold=-self.margin,
            interval=(found.low, found.high),
            also_cited=[evaluation.metrics_file],
        )
