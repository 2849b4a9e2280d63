"""The packaged model loads in a clean process with only what it declares and answers its own input example."""

from flows.judging.evidence import Evidence, Subject
from flows.judging.gate import Gate, Verdict


class Package(Gate):
    """Clean: an empty folder, and of the installed libraries only those that the package's requirements lead to. That
    its answers are the evaluated model's is for the gate `answers`."""

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        trial = evidence.trial(candidate)
        stage = trial.found["failure"]["stage"] if trial.found["failure"] else ""
        works = stage not in ("load", "example")
        if works:
            sentence = (
                f"The package loads in a clean process in {trial.found['load_s']:.1f} s with only the "
                f"{len(trial.found['requirements'])} libraries it declares and what those need, and answers its own "
                "input example."
            )
        else:
            sentence = f"The package {trial.failure}; what was packaged cannot be served."
        return self.verdict(
            works,
            sentence,
            trial.file,
            measure="of 2 stages passed: loading, its own example",
            observed=float({"load": 0, "example": 1}.get(stage, 2)),
            threshold=2.0,
        )
