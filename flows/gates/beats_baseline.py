"""Better than a tuned linear model; where it is not, says what would change it. Warns unless told to block."""

from typing import Literal

from pydantic import field_validator

from flows.evidence import Evidence, Subject
from flows.gate import Gate, Verdict
from training.evaluation import METRICS, known_metric, points


class BeatsBaseline(Gate):
    severity: Literal["block", "warn"] = "warn"
    metric: str = "accuracy"
    """accuracy or macro_f1."""

    check_metric = field_validator("metric")(known_metric)

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        evaluation = evidence.evaluation(candidate)
        difference = evaluation.metrics["difference"][self.metric]
        linear = evaluation.metrics["baseline"]["name"]
        name = METRICS[self.metric]
        passed = difference["low"] > 0
        seen = f"{points(difference['value'])} of {name}, 95 % interval {points(difference['low'], difference['high'])}"
        if passed:
            sentence = f"The model is better than {linear}: {seen}."
        else:
            how_well = "does better" if difference["high"] < 0 else "does as well"
            sentence = (
                f"A linear model {how_well}: {linear} trains in seconds, and against it this model shows {seen}. What "
                "would change it: starting from an encoder pretrained on much more text (--set base=PATH), more "
                "labelled rows, or longer pretraining. Until then the linear model is the cheaper choice."
            )
        return self.verdict(
            passed,
            sentence,
            evaluation.metrics_file,
            measure=f"{name} minus the baseline's",
            observed=difference["value"],
            threshold=0.0,
            interval=(difference["low"], difference["high"]),
        )
