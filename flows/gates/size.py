"""The package is small enough: megabytes of all its files, weights and code."""

from pydantic import Field

from flows.judging.evidence import Evidence, MissingEvidence, Subject
from flows.judging.gate import Gate, Verdict
from infra import artifacts
from infra.store import NotFound


class Size(Gate):
    maximum_mb: float = Field(gt=0)
    """In 1,000,000 bytes."""

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        trial = evidence.trial(candidate)
        if "package_bytes" not in trial.found:
            raise MissingEvidence(f"the package {trial.failure}")
        try:
            model = artifacts.load(evidence.store, "models", candidate.model)
        except (NotFound, ValueError) as error:
            raise MissingEvidence(f"models/{candidate.model} is missing or altered") from error
        weights = sum(entry["bytes"] for entry in model.files.values()) / 1e6
        size = trial.found["package_bytes"] / 1e6
        passed = size <= self.maximum_mb
        seen = f"The package is {size:,.1f} MB, {weights:,.1f} MB of it the model's files"
        return self.verdict(
            passed,
            f"{seen}; up to {self.maximum_mb:g} MB are allowed."
            if passed
            else f"{seen}, more than the {self.maximum_mb:g} MB allowed; a smaller model would change it.",
            trial.file,
            measure="MB of the package",
            observed=size,
            threshold=self.maximum_mb,
        )
