"""A metric of the candidate on the test split is at least a minimum, or at most a maximum."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from flows.judging.evidence import Evidence, MissingEvidence, Subject
from flows.judging.gate import Gate, Verdict
from training.metrics import METRICS, known_metric, told


class Threshold(Gate):
    metric: str = "accuracy"
    """accuracy, macro_f1, log_loss or brier, or one of another kind of evaluation."""
    minimum: float | None = Field(default=None, ge=0, le=1)
    """Of a metric that is better when higher."""
    maximum: float | None = Field(default=None, gt=0)
    """Of one that is better when lower."""
    decide_by: Literal["value", "interval"] = "value"
    """What has to reach it: the measured value, or the worse end of its 95 % interval."""

    check_metric = field_validator("metric")(known_metric)

    @model_validator(mode="after")
    def check_direction(self) -> Self:
        right, wrong = ("minimum", "maximum") if METRICS[self.metric].higher_is_better else ("maximum", "minimum")
        if getattr(self, wrong) is not None or getattr(self, right) is None:
            better = "higher" if METRICS[self.metric].higher_is_better else "lower"
            raise ValueError(f"{METRICS[self.metric].title} is better when {better}: give {right}, and no {wrong}")
        return self

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        evaluation, metric = evidence.evaluation(candidate), METRICS[self.metric]
        found = evaluation.metrics["model"].get(self.metric)
        if found is None:
            raise MissingEvidence(
                f"{candidate.ref}'s evaluation has no {metric.title}: its model gave no probabilities, or it is older "
                "than this metric; slipway evaluate makes it again"
            )
        end = "low" if metric.higher_is_better else "high"
        judged = found["value"] if self.decide_by == "value" else found[end]
        if self.minimum is not None:
            limit, kind, passed = self.minimum, "minimum", judged >= self.minimum
        else:
            assert self.maximum is not None  # check_direction
            limit, kind, passed = self.maximum, "maximum", judged <= self.maximum
        worse = "lower" if metric.higher_is_better else "upper"
        what = metric.title if self.decide_by == "value" else f"the {worse} end of the interval of {metric.title}"
        split, rows = evaluation.metrics["split"], evaluation.kind.rows
        holds = "at least" if metric.higher_is_better else "at most"
        broken = "below" if metric.higher_is_better else "above"
        return self.verdict(
            passed,
            f"{what[0].upper()}{what[1:]} on {evaluation.metrics['rows']:,} {split} {rows} is {told(judged)}, "
            f"{holds if passed else broken} the {kind} of {told(limit)}.",
            evaluation.metrics_file,
            measure=metric.title,
            observed=found["value"],
            threshold=limit,
            interval=(found["low"], found["high"]),
        )
