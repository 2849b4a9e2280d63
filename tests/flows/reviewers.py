"""A model called `animals` with authors, reviewers and their keys: versions that are signed, packaged and scored."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import models
from flows.judging.evidence import Subject, find_champion
from flows.models import ModelVersion
from flows.promotion import approvals
from flows.promotion import decisions as promotion
from flows.promotion import log as promotion_log
from flows.promotion.binding import bind
from flows.promotion.signatures import sign_model
from infra import artifacts, keys
from infra.digests import canonical, digest, digest_file
from training.run_log import RunLog


@dataclass(frozen=True)
class Case:
    """A version and its scorecard."""

    version: ModelVersion
    card: str


class Court:
    """ada trains; bob and cy review; eve has a key that nobody listed."""

    def __init__(self, world: Any, folder: Path):
        self.world, self.store, self.keys = world, world.store, folder / "keys"
        self.public = {name: keys.generate(self.keys, name) for name in ("ada", "bob", "cy", "eve")}

    def kinds(self) -> list[str]:
        """What stands in the model's log, oldest first."""
        return [entry.kind for entry in promotion_log.read_log(self.store, "animals")]

    def key(self, name: str) -> Path:
        return self.keys / f"{name}.pem"

    def policy(self, count: int = 1, names: tuple[str, ...] = ("bob", "cy"), days: float = 14) -> dict[str, Any]:
        reviewers = {name: self.public[name] for name in names}
        return {"policy": "approvals", "approvals": count, "reviewers": reviewers, "expires_days": days}

    def version(self, author: str = "ada", key: bool = True) -> ModelVersion:
        number = len(models.versions(self.store, "animals")) + 1
        package = self.world.folder / f"package-{number}"
        weights = package / "data" / "package" / "weights"
        weights.parent.mkdir(parents=True)
        weights.write_text(f"weights of version {number}")
        (package / "code.py").write_text("answer = 42\n")
        model = artifacts.commit(self.store, "models", {"weights": weights}, {"files": {}})
        run = f"animals-{number}"
        named: dict[str, Any] = {"author_key": self.public[author]} if key else {}
        RunLog(self.store, run).append("run", experiment={}, key="", author=author, **named)
        if key:
            sign_model(self.store, model.digest, self.key(author))
        return models.add_version(
            self.store,
            name="animals",
            run=run,
            experiment={},
            model=model.digest,
            package=package.as_uri(),
            package_digest=digest({"weights": digest_file(weights)}),
            dataset=self.world.references["old"],
            author=author,
            created="2026-01-01T00:00:00+00:00",
            mlflow_version=str(number),
        )

    def score(self, version: ModelVersion) -> Case:
        """The version with a scorecard that says yes, compared with the champion of now."""
        subject = Subject.of(version, "")
        return Case(version, self.world.scorecard(subject, champion=find_champion(self.store, "animals")))

    def case(self, author: str = "ada", key: bool = True) -> Case:
        return self.score(self.version(author, key))

    def sign(self, case: Case, reviewer: str, action: str = "promotion") -> dict[str, Any]:
        """What that reviewer signs now."""
        bound, _ = bind(self.store, case.version, case.card)
        reigning = promotion_log.champion(self.store, "animals")
        against = reigning.sequence if reigning else None
        about = approvals.about_version(bound)
        return approvals.sign(action, about, against, reviewer=reviewer, key=self.key(reviewer), reason="looks right")

    def resign(self, signed: dict[str, Any], reviewer: str, **changes: Any) -> dict[str, Any]:
        """The statement with other contents, signed by that reviewer: what they would have had to sign."""
        statement = {**signed["statement"], **changes}
        return {**signed, "statement": statement, "signature": keys.sign(self.key(reviewer), canonical(statement))}

    def promote(self, case: Case, *signed: dict[str, Any], policy: dict[str, Any] | None = None) -> promotion.Outcome:
        return promotion.promote(self.store, case.version, case.card, author="cron", policy=policy, statements=signed)

    def crown(self, policy: dict[str, Any]) -> Case:
        """A new champion, approved by as many reviewers as it takes."""
        case = self.case()
        signed = [self.sign(case, name) for name in policy.get("reviewers", {})]
        self.promote(case, *signed, policy=policy)
        return case
