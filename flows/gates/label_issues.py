"""The labels it is judged by are believable: the share of test rows that confident learning takes for mislabelled."""

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from flows.judging.evidence import Evaluation, Evidence, MissingEvidence, Subject
from flows.judging.gate import Gate, Verdict

if TYPE_CHECKING:
    import numpy as np

SHOWN = 12
SHOWN_CHARS = 160


class LabelIssues(Gate):
    """Northcutt, Jiang & Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR 70, 2021, §3, by
    cleanlab: a row counts when the model, which never saw it, is surer of another class than it usually is of that
    class. A weak model finds many issues that are its own: read the rows listed before blaming the labels."""

    evaluations: ClassVar[tuple[str, ...]] = ("classification",)

    maximum_share: float = Field(default=0.1, ge=0, le=1)
    """Of the test rows."""

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        import numpy as np
        from cleanlab.filter import find_label_issues

        evaluation = evidence.evaluation(candidate)
        labels = evaluation.metrics["labels"]
        if len(labels) < 2:
            raise MissingEvidence(f"{candidate.ref} knows {len(labels)} class; label issues need two")
        place = {label: index for index, label in enumerate(labels)}
        table = evaluation.predictions()
        given = np.array([place[label] for label in table["label"].to_pylist()])
        sure = probabilities(evaluation)
        worst = find_label_issues(given, sure, return_indices_ranked_by="self_confidence", n_jobs=1)
        share = len(worst) / len(given)
        passed = share <= self.maximum_share
        shown = [int(row) for row in worst[:SHOWN]]
        ids = [table["row_id"][row].as_py() for row in shown]
        inputs = evidence.shown_inputs(candidate, ids) if ids else []
        details = [
            {
                "test row": row_id[:12],
                "label": evidence.shown_label(candidate, labels[given[row]]),
                "model says": evidence.shown_label(candidate, labels[int(sure[row].argmax())]),
                "confidence": float(sure[row].max()),
                "in the label": float(sure[row][given[row]]),
                "input": text[:SHOWN_CHARS],
            }
            for row, row_id, text in zip(shown, ids, inputs, strict=True)
        ]
        found = f"{len(worst):,} of {len(given):,} test rows ({share:.1%}) look mislabelled by confident learning"
        if passed:
            sentence = f"{found}; up to {self.maximum_share:.1%} are allowed."
        else:
            sentence = (
                f"{found}, more than the {self.maximum_share:.1%} allowed: no figure on this split can be trusted more "
                "than its labels. Look at the rows listed, correct the source, register it again."
            )
        return self.verdict(
            passed,
            sentence,
            evaluation.predictions_file,
            measure="share of test rows that look mislabelled",
            observed=share,
            threshold=self.maximum_share,
            details=details,
        )


def probabilities(evaluation: Evaluation) -> "np.ndarray":
    """(N, K) probability of each class, in the order of the evaluation's labels.

    An evaluation that kept only the answer's confidence leaves the rest evenly to the other classes: which class a row
    is confidently in, the one thing confident learning asks, is the same.
    """
    import numpy as np

    labels = evaluation.metrics["labels"]
    table = evaluation.predictions()
    if "probabilities" in table.column_names:
        kept = np.array(table["probabilities"].to_pylist(), dtype=float)
        # Labels that the model does not know come after those that it knows.
        return np.pad(kept, ((0, 0), (0, len(labels) - kept.shape[1])))
    place = {label: index for index, label in enumerate(labels)}
    answered = np.array([place[label] for label in table["prediction"].to_pylist()])
    confidence = table["confidence"].to_numpy()
    found = np.repeat(((1 - confidence) / (len(labels) - 1))[:, None], len(labels), axis=1)
    found[np.arange(len(answered)), answered] = confidence
    return found
