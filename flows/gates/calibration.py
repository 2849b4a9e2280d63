"""The model is as often right as it says it is: its expected calibration error is at most a maximum."""

from typing import ClassVar, Literal

from pydantic import Field

from flows.judging.evidence import Evidence, MissingEvidence, Subject
from flows.judging.gate import Gate, Verdict


class Calibration(Gate):
    """ECE in bins of equally many rows (training.calibration); the Brier score has `threshold` for it. Chance makes ECE
    larger and never smaller, so few rows lead to a no."""

    evaluations: ClassVar[tuple[str, ...]] = ("classification",)

    maximum: float = Field(default=0.1, gt=0, le=1)
    """Of the mean gap between confidence and accuracy, weighted by rows."""
    decide_by: Literal["value", "interval"] = "value"
    """What may not exceed it: the measured value, or the upper end of its 95 % interval."""

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        evaluation = evidence.evaluation(candidate)
        measured = evaluation.metrics.get("calibration")
        if not measured:
            raise MissingEvidence(
                f"{candidate.ref}'s evaluation is older than this gate; slipway evaluate makes it again"
            )
        found = measured["ece"]
        judged = found["value"] if self.decide_by == "value" else found["high"]
        passed = judged <= self.maximum
        worst = max(measured["reliability"], key=lambda row: abs(row["confidence"] - row["accuracy"]))
        what = "Expected calibration error" if self.decide_by == "value" else "The upper end of the interval of ECE"
        than = "at most" if passed else "above"
        sentence = (
            f"{what} is {judged:.3f} on {evaluation.metrics['rows']:,} test rows, {than} the maximum of"
            f" {self.maximum:.3f}; where it is furthest off ({worst['rows']:,} rows) it says "
            f"{worst['confidence']:.2f} and is right in {worst['accuracy']:.2f}"
        )
        mend = "; settings: {calibrate: temperature} fits one number to the validation split"
        return self.verdict(
            passed,
            f"{sentence}." if passed else f"{sentence}{mend}.",
            evaluation.metrics_file,
            measure="expected calibration error",
            observed=found["value"],
            threshold=self.maximum,
            interval=(found["low"], found["high"]),
            details=measured["reliability"],
        )
