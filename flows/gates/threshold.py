"""A metric of the candidate on the test split is at least a minimum."""

from typing import Literal

from pydantic import Field, field_validator

from flows.evidence import Evidence, Subject
from flows.gate import Gate, Verdict
from training.evaluation import METRICS, known_metric


class Threshold(Gate):
    metric: str = "accuracy"
    """accuracy or macro_f1."""
    minimum: float = Field(ge=0, le=1)
    decide_by: Literal["value", "bound"] = "value"
    """What has to reach the minimum: the measured value, or the lower end of its 95 % interval."""

    check_metric = field_validator("metric")(known_metric)

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        evaluation = evidence.evaluation(candidate)
        found = evaluation.metrics["model"][self.metric]
        name = METRICS[self.metric]
        judged = found["value"] if self.decide_by == "value" else found["low"]
        passed = judged >= self.minimum
        what = name if self.decide_by == "value" else f"the lower end of the interval of {name}"
        return self.verdict(
            passed,
            f"{what[0].upper()}{what[1:]} on {evaluation.metrics['rows']:,} test rows is {judged:.3f}, "
            f"{'at least' if passed else 'below'} the minimum of {self.minimum:.3f}.",
            evaluation.metrics_file,
            measure=name,
            observed=found["value"],
            threshold=self.minimum,
            interval=(found["low"], found["high"]),
        )
