"""The packaged model loads in a fresh process and answers test rows as it did when it was evaluated."""

from pydantic import Field

from flows.evidence import Evidence, MissingEvidence, Subject
from flows.gate import Gate, Verdict


class Package(Gate):
    rows: int = Field(default=8, ge=1, le=1000)
    """How many test rows it is asked, spread evenly over the split; its own input example comes before them."""
    tolerance: float = Field(default=0.001, ge=0, le=1)
    """By how much a confidence may differ: rows meet other neighbours in a batch, and float sums change order."""

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        from infra.tracking import ask_package

        evaluation = evidence.evaluation(candidate)
        recorded = evaluation.predictions(["row_id", "prediction", "confidence"])
        count = min(self.rows, recorded.num_rows)
        asked = recorded.take([position * recorded.num_rows // count for position in range(count)]).to_pylist()
        if not asked:
            raise MissingEvidence(f"{evaluation.predictions_file.key} holds no row")
        inputs = evidence.test_inputs(candidate, [row["row_id"] for row in asked])
        answers = ask_package(evidence.settings, candidate.package, inputs)
        if len(answers) != len(asked):
            raise MissingEvidence(f"the package gave {len(answers)} answers to {len(asked)} rows")
        details = []
        for row, answer in zip(asked, answers, strict=True):
            same = answer["label"] == row["prediction"]
            near = abs(answer["confidence"] - row["confidence"]) <= self.tolerance
            details.append(
                {
                    "row": row["row_id"][:12],
                    "evaluated": f"{row['prediction']} ({row['confidence']:.4f})",
                    "packaged": f"{answer['label']} ({answer['confidence']:.4f})",
                    "equal": "yes" if same and near else "no",
                }
            )
        equal = sum(row["equal"] == "yes" for row in details)
        passed = equal == len(asked)
        sentence = f"The package loads in a fresh process and answers {equal} of {len(asked)} test rows as evaluated"
        return self.verdict(
            passed,
            f"{sentence}." if passed else f"{sentence}: what was packaged is not what was evaluated; train again.",
            evaluation.predictions_file,
            measure="test rows answered as evaluated",
            observed=float(equal),
            threshold=float(len(asked)),
            details=details,
        )
