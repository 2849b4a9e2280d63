"""Not worse than a tuned linear model by more than a margin, on the same test rows."""

from typing import Literal

from pydantic import Field, field_validator

from flows.evidence import Evidence, Subject
from flows.gate import Gate, Verdict
from training.evaluation import METRICS, known_metric, points


class Baseline(Gate):
    metric: str = "accuracy"
    """accuracy or macro_f1."""
    margin: float = Field(default=0.02, ge=0, le=1)
    """How much below the baseline is still accepted."""
    decide_by: Literal["value", "bound"] = "value"
    """What may not fall below minus the margin: the measured difference, or the lower end of its 95 % interval."""

    check_metric = field_validator("metric")(known_metric)

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        evaluation = evidence.evaluation(candidate)
        difference = evaluation.metrics["difference"][self.metric]
        linear = evaluation.metrics["baseline"]
        judged = difference["value"] if self.decide_by == "value" else difference["low"]
        passed = judged >= -self.margin
        name = METRICS[self.metric]
        end = ", judged by the " + ("measured value." if self.decide_by == "value" else "lower end of the interval.")
        allowed = f"{100 * self.margin:.1f} points by which it may fall short{end}"
        return self.verdict(
            passed,
            f"{name[0].upper()}{name[1:]} is {points(difference['value'])} against {linear['name']} "
            f"({linear[self.metric]['value']:.3f}), 95 % interval {points(difference['low'], difference['high'])}; "
            + (f"within the {allowed}" if passed else f"more than the {allowed}"),
            evaluation.metrics_file,
            measure=f"{name} minus the baseline's",
            observed=difference["value"],
            threshold=-self.margin,
            interval=(difference["low"], difference["high"]),
        )
