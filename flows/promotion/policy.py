"""Who may promote: `promotion` in an experiment.

    promotion: {policy: automatic}
    promotion: {policy: approvals, approvals: 2, reviewers: {ada: PUBLIC KEY, ...}, expires_days: 14}

The policy in force is the one in the promotion log: its first entry takes it from the experiment, and to change it the
policy before it must be satisfied.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.errors import Refused, WrongInput, choices

NAMES = ("automatic", "approvals")
FIELDS = {"automatic": ["policy"], "approvals": ["policy", "approvals", "reviewers", "expires_days"]}


@dataclass(frozen=True, kw_only=True)
class Policy:
    approvals: int = 0
    """Reviewers who must approve; 0: automatic."""
    reviewers: Mapping[str, str] = field(default_factory=dict)
    """Name -> public key."""
    expires_days: float = 14.0
    """How long an approval counts."""

    @property
    def name(self) -> str:
        return "approvals" if self.approvals else "automatic"

    def section(self) -> dict[str, Any]:
        """As an experiment writes it."""
        if not self.approvals:
            return {"policy": "automatic"}
        return {
            "policy": "approvals",
            "approvals": self.approvals,
            "reviewers": dict(self.reviewers),
            "expires_days": self.expires_days,
        }

    def __str__(self) -> str:
        if not self.approvals:
            return "automatic"
        return f"{self.approvals} of {', '.join(sorted(self.reviewers))}, within {self.expires_days:g} days"


AUTOMATIC = Policy()


def parse_policy(section: Mapping[str, Any], where: str) -> Policy:
    """The policy of an experiment's `promotion` section. Raises WrongInput: which field, what was found."""
    name = section.get("policy", "automatic")
    if not isinstance(name, str) or name not in NAMES:
        raise WrongInput(f"{where}: promotion.policy: '{name}' is unknown; {choices(str(name), NAMES)}")
    for key in section:
        if key not in FIELDS[name]:
            raise WrongInput(f"{where}: promotion.{key}: unknown key; {choices(str(key), FIELDS[name])}")
    if name == "automatic":
        return AUTOMATIC
    return _approvals(section, f"{where}: promotion")


def _approvals(section: Mapping[str, Any], where: str) -> Policy:
    count, days = section.get("approvals", 1), section.get("expires_days", 14)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise WrongInput(f"{where}.approvals: found {count!r}; write a whole number, 1 or more")
    if isinstance(days, bool) or not isinstance(days, int | float) or not 0 < days <= 3650:
        raise WrongInput(f"{where}.expires_days: found {days!r}; write a number of days above 0, at most 3650")
    reviewers = section.get("reviewers")
    if not isinstance(reviewers, Mapping) or not reviewers:
        raise WrongInput(f"{where}.reviewers: found {reviewers!r}; policy 'approvals' needs names with public keys, "
                         "as slipway keygen NAME prints them")  # fmt: skip
    from infra.keys import parse_public

    names: dict[str, str] = {}
    for name, key in reviewers.items():
        try:
            parse_public(str(key))
        except ValueError as error:
            raise WrongInput(f"{where}.reviewers.{name}: {error}; write the line it prints") from error
        if key in names:
            raise WrongInput(f"{where}.reviewers.{name}: has the key of {names[key]}; a reviewer is a key of their own")
        names[str(key)] = str(name)
    if count > len(reviewers):
        raise WrongInput(f"{where}.approvals: {count} are asked of {len(reviewers)} reviewers, which nobody can "
                         "satisfy; lower it or list more reviewers")  # fmt: skip
    listed = {str(name): str(key) for name, key in reviewers.items()}
    return Policy(approvals=count, reviewers=listed, expires_days=float(days))


def refuse_unsatisfiable(policy: Policy, author: str, author_key: str, where: str) -> None:
    """Raises Refused where a run of that author could never be approved: it names no key, or too few others review."""
    if not policy.approvals:
        return
    if not author_key:
        name = author or "NAME"
        raise Refused(
            f"{where}: names no author's key, and policy 'approvals' must tell the author from the reviewers; "
            f"slipway keygen {name}, then train with --fresh under SLIPWAY_AUTHOR={name}"
        )
    others = [name for name, key in policy.reviewers.items() if not is_author(name, key, author, author_key)]
    if len(others) < policy.approvals:
        raise Refused(
            f"{where}: nobody can satisfy its promotion policy: {policy.approvals} approvals, and of the reviewers "
            f"({', '.join(sorted(policy.reviewers))}) {len(others)} is not the run's author; list another reviewer"
        )


def is_author(name: str, key: str, author: str, author_key: str) -> bool:
    """Whether a reviewer is the run's author, by key or by name: a second key makes nobody a second person."""
    return key == author_key or name == author
