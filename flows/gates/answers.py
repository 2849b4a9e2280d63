"""The packaged model answers test rows as the evaluated model did: same class, same confidence within a tolerance."""

from typing import Any

from pydantic import Field

from flows.judging.evidence import Evidence, MissingEvidence, Subject
from flows.judging.gate import Gate, Verdict


class Answers(Gate):
    tolerance: float = Field(default=0.001, ge=0, le=1)
    """By how much a confidence may differ: rows meet other neighbours in a batch, and float sums change order."""

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        evaluation = evidence.evaluation(candidate)
        trial = evidence.trial(candidate)
        answers = trial.found["answers"]
        if trial.failure and not answers:
            raise MissingEvidence(f"the package {trial.failure}")
        if len(answers) != len(trial.asked):
            raise MissingEvidence(f"the package gave {len(answers)} answers to {len(trial.asked)} rows")
        details = [_compared(*pair, self.tolerance) for pair in zip(trial.asked, answers, strict=True)]
        equal = sum(row["equal"] == "yes" for row in details)
        passed = equal == len(details)
        sentence = (
            f"In a clean process the package answers {equal} of {len(details)} test rows as the evaluated model did "
            f"(confidence within {self.tolerance:g})"
        )
        return self.verdict(
            passed,
            f"{sentence}." if passed else f"{sentence}: what was packaged is not what was evaluated; train again.",
            trial.file,
            measure="test rows answered as evaluated",
            observed=float(equal),
            threshold=float(len(details)),
            also_cited=[evaluation.predictions_file],
            details=sorted(details, key=lambda row: row["equal"] == "yes")[:20],
        )


def _compared(recorded: dict[str, Any], answer: dict[str, Any], tolerance: float) -> dict[str, Any]:
    label, confidence = answer.get("label"), answer.get("confidence")
    near = isinstance(confidence, int | float) and abs(confidence - recorded["confidence"]) <= tolerance
    said = f"{confidence:.4f}" if isinstance(confidence, int | float) else "no confidence"
    return {
        "row": recorded["row_id"][:12],
        "evaluated": f"{recorded['prediction']} ({recorded['confidence']:.4f})",
        "packaged": f"{label} ({said})",
        "equal": "yes" if label == recorded["prediction"] and near else "no",
    }
