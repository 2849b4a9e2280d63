"""A reviewer's signed statement: what was approved, by digest, and which champion it was compared with.

    {"format": 1, "statement": {"action", "key", "reviewer", "reason", "time", "compared_with", ...}, "signature"}

The signature is over the canonical JSON of the statement. Whoever holds it may store it: in the log (`slipway
approve`), on paper (`approve --print`), or as the input of a paused flow. It counts while all it names is as it was.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flows.promotion.log import Bound, Entry
from flows.promotion.policy import Policy, is_author, parse_policy
from infra.artifacts import check_format
from infra.digests import canonical
from infra.errors import Refused, WrongInput

FORMAT = 1
SKEW = timedelta(minutes=5)
"""How far a reviewer's clock may be ahead."""


class Void(Refused):
    """An approval that does not count."""


class Unapproved(Refused):
    """Approvals are missing; the same call succeeds once they are there."""


def about_version(bound: Bound) -> dict[str, Any]:
    """What a statement about a version says, beside who, when and why."""
    return asdict(bound)


def about_policy(name: str, policy: Policy) -> dict[str, Any]:
    return {"name": name, "policy": policy.section()}


def wished_policy(statement: dict[str, Any], where: str) -> Policy:
    """The policy that a statement of action `policy` approves."""
    section = statement.get("policy")
    return parse_policy(section if isinstance(section, dict) else {}, where)


def sign(
    action: str, about: dict[str, Any], compared_with: int | None, *, reviewer: str, key: Path, reason: str
) -> dict[str, Any]:
    """The signed statement. action: promotion, rollback or policy; key: the file of a private key."""
    from infra import keys

    if not reason.strip():
        raise WrongInput("an approval needs a reason; write --reason 'why'")
    statement = {
        "format": FORMAT,
        "action": action,
        **about,
        "compared_with": compared_with,
        "reviewer": reviewer,
        "key": keys.public_half(key),
        "reason": " ".join(reason.split()),
        "time": datetime.now(UTC).isoformat(timespec="microseconds"),
    }
    return {"format": FORMAT, "statement": statement, "signature": keys.sign(key, canonical(statement))}


def read(text: str, where: str) -> dict[str, Any]:
    """A signed statement from JSON. Raises WrongInput when it is none, or a newer Slipway's."""
    try:
        body = json.loads(text)
    except ValueError as error:
        raise WrongInput(
            f"{where}: is no signed statement ({error}); give what slipway approve --print wrote"
        ) from error
    check_format(body, FORMAT, where)
    if not isinstance(body.get("statement"), dict) or not isinstance(body.get("signature"), str):
        raise WrongInput(f"{where}: has no statement and signature; give what slipway approve --print wrote")
    check_format(body["statement"], FORMAT, where)
    return body


def check(
    signed: dict[str, Any],
    action: str,
    about: dict[str, Any],
    compared_with: int | None,
    policy: Policy,
    when: datetime,
) -> str:
    """The reviewer whose approval this is. Raises Void: which approval, why it does not count."""
    from infra import keys

    statement = signed["statement"]
    who = f"approval of {about['name']} by '{statement.get('reviewer')}'"
    if not keys.is_signed(str(statement.get("key")), signed["signature"], canonical(statement)):
        raise Void(f"{who}: the signature is not of what it says; ask for the statement again")
    reviewer = next((name for name, key in policy.reviewers.items() if key == statement["key"]), None)
    if reviewer is None:
        raise Void(f"{who}: its key is not of the policy in force ({policy}); a listed reviewer has to sign")
    own = is_author(reviewer, statement["key"], about.get("run_author", ""), about.get("run_author_key", ""))
    if action == "promotion" and own:
        raise Void(f"{who}: is by the run's own author; somebody else has to approve it")
    if statement.get("action") != action:
        raise Void(f"{who}: approves a {statement.get('action')}, not a {action}; sign again")
    for field, wanted in about.items():
        if statement.get(field) != wanted:
            raise Void(
                f"{who}: is about another {field.replace('_', ' ')} ({_short(statement.get(field))}, not "
                f"{_short(wanted)}); look again (slipway review {about['name']}) and sign again"
            )
    if statement["compared_with"] != compared_with:
        raise Void(
            f"{who}: champion changed: gate again; it was compared with {_entry(statement['compared_with'])}, the log "
            f"now says {_entry(compared_with)}"
        )
    try:
        signed_at = datetime.fromisoformat(statement["time"])
        ends, early = signed_at + timedelta(days=policy.expires_days), signed_at - SKEW > when
    except (ValueError, TypeError, OverflowError) as error:
        raise Void(f"{who}: its time '{statement['time']}' is none; sign again") from error
    if early:
        raise Void(f"{who}: is dated in the future ({statement['time']}); set the clock and sign again")
    if when >= ends:
        raise Void(f"{who}: expired on {ends.isoformat()[:10]} (after {policy.expires_days:g} days); sign again")
    return reviewer


def gather(
    entries: Sequence[Entry],
    action: str,
    about: dict[str, Any],
    compared_with: int | None,
    policy: Policy,
    needed: int,
    when: datetime,
) -> list[int]:
    """Sequences of the stored approvals that count, one a reviewer, the newest of each. Raises Unapproved when they are
    fewer than `needed`, naming those that do not count."""
    if not needed:
        return []
    rejected = max((e.sequence for e in entries if e.kind == "rejection" and _same(e, about)), default=0)
    counted: dict[str, int] = {}
    void: list[str] = []
    for entry in reversed(entries):
        statement = entry.statement
        if entry.kind != "approval" or statement["action"] != action:
            continue
        if statement.get("version") != about.get("version") or entry.sequence < rejected:
            continue
        try:
            reviewer = check(signed_of(entry), action, about, compared_with, policy, when)
            counted.setdefault(reviewer, entry.sequence)
        except Void as error:
            void.append(str(error))
    if len(counted) < needed:
        have = f" ({', '.join(sorted(counted))})" if counted else ""
        raise Unapproved(
            f"model {about['name']}{_version(about)}: has {len(counted)} of {needed} approvals{have} for its {action}; "
            + "".join(f"{one}; " for one in void[:3])
            + f"a reviewer has to sign: slipway approve {about['name']}{_version(about)} --reason TEXT"
        )
    return sorted(counted.values())


def signed_of(entry: Entry) -> dict[str, Any]:
    """The signed statement that an entry of kind approval stores."""
    return {"format": FORMAT, "statement": entry.statement, "signature": entry.signature}


def _same(entry: Entry, about: dict[str, Any]) -> bool:
    return (entry.version, entry.scorecard) == (about.get("version"), about.get("scorecard"))


def _version(about: dict[str, Any]) -> str:
    return f"/{about['version']}" if "version" in about else ""


def _entry(sequence: int | None) -> str:
    return "no champion" if sequence is None else f"entry {sequence}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:16] if len(text) == 64 else text[:80]
