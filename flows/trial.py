"""The packaged model asked in a fresh process, once for all gates that look at it; what it did is kept as evidence."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra import artifacts

if TYPE_CHECKING:
    from flows.judging.evidence import Cited, Evidence, Subject

FORMAT = 1
ROWS = 64
"""Test rows that it answers, spread evenly over the split."""
REQUESTS = 100
"""Of one row each, timed."""


@dataclass(frozen=True)
class Trial:
    found: dict[str, Any]
    """What `infra.package_trial.try_package` returned."""
    asked: list[dict[str, Any]]
    """row_id, prediction, confidence of the test rows asked, as evaluated."""
    file: "Cited"

    @property
    def failure(self) -> str | None:
        """Where and why it failed, as a clause; None when it answered everything."""
        failed = self.found["failure"]
        doing = {"load": "does not load", "example": "does not answer its own input example"}
        return f"{doing.get(failed['stage'], 'does not answer test rows')} ({failed['reason']})" if failed else None


def run_trial(evidence: "Evidence", subject: "Subject") -> Trial:
    """Raises MissingEvidence when what it would be compared with is missing; how the package fails is a finding."""
    from flows.judging.evidence import Cited, MissingEvidence
    from infra.package_trial import try_package

    if not subject.package:
        raise MissingEvidence(f"the record of {subject.ref}'s package is lost")
    evaluation = evidence.evaluation(subject)
    prompted = ["prompt"] if "prompt" in evaluation.columns else []
    recorded = evaluation.predictions(["row_id", "prediction", "confidence", *prompted])
    recorded = recorded.filter(recorded["prediction"].is_valid())  # some models were asked in some rows alone
    count = min(ROWS, recorded.num_rows)
    asked = recorded.take([place * recorded.num_rows // count for place in range(count)]).to_pylist()
    if not asked:
        raise MissingEvidence(f"{evaluation.predictions_file.key} holds no row")
    if prompted:
        # Of what the data hold, the model may read less than all: one that draws reads the caption alone.
        (column,) = artifacts.load(evidence.store, "models", subject.model).facts["files"]["input_columns"]
        inputs = [{column: row["prompt"]} for row in asked]
    else:
        inputs = evidence.test_inputs(subject, [row["row_id"] for row in asked])
    found = try_package(evidence.settings, subject.package, inputs, REQUESTS)
    body = {
        "format": FORMAT,
        "subject": {"package": subject.package, "package_digest": subject.package_digest, "model": subject.model},
        "asked": asked,
        **found,
    }
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        path = Path(folder) / "trial.json"
        path.write_text(json.dumps(body, indent=1, ensure_ascii=False), encoding="utf-8")
        artifact = artifacts.commit(evidence.store, "trials", {"trial.json": path})
    return Trial(found, asked, Cited(f"{artifact.prefix}/trial.json", artifact.files["trial.json"]["sha256"]))
