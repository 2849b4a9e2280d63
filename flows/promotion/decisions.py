"""Promote, roll back, reject, approve, change the policy: each is one entry of the promotion log.

Each checks again everything its entry is bound to, loads no model, and is a compare-and-set: who appends first has the
number; the other reads again, and goes on unless the champion it was compared with is champion no more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from data_contracts import registry
from data_contracts.withdrawal import refuse_withdrawn
from flows.models import ModelVersion, versions
from flows.promotion import approvals
from flows.promotion.approvals import about_policy, about_version
from flows.promotion.binding import bind
from flows.promotion.log import Bound, Entry, Log, champion, entry_key, head, load_log, read_log
from flows.promotion.policy import AUTOMATIC, Policy, parse_policy, refuse_unsatisfiable
from infra import artifacts
from infra.errors import Refused, WrongInput
from infra.settings import Settings
from infra.store import Store

__all__ = ["Entry", "bind", "champion", "entry_key", "head", "parse_policy", "read_log"]
"""What others ask for here: the log's readers, and what an entry is made of."""


@dataclass(frozen=True)
class Outcome:
    entry: Entry
    created: bool
    """False when the log already said so and nothing was written."""
    sentence: str


def policy_for(store: Store, version: ModelVersion, section: Mapping[str, Any] | None = None) -> Policy:
    """The policy a decision is under: the one in force, else the one the log will begin with.

    An automatic policy gives way at once to what the experiment says (`section`, by default as the version was
    trained); from any other, only `change_policy` leads away.
    """
    wished, in_force = _wished(version, section), load_log(store, version.name).policy
    return wished if in_force is None or not in_force.approvals else in_force


def promote(
    store: Store,
    version: ModelVersion,
    scorecard: str,
    *,
    author: str,
    reason: str = "",
    policy: Mapping[str, Any] | None = None,
    statements: Sequence[dict[str, Any]] = (),
    package_files: str = "",
) -> Outcome:
    """Make `version` champion on the evidence of the scorecard artifact of that digest.

    It succeeds only while the champion is the one the scorecard compared with. Promoting the champion again on the same
    scorecard writes nothing. policy: the experiment's section; it counts where the log is empty or automatic.
    statements: signed approvals that are not in the log yet; those that count are stored first.

    Raises Refused when the scorecard says no, is damaged, is about something else or was overtaken by another champion,
    when anything it is bound to was altered, Unapproved when approvals are missing, Void for a statement that does not
    count.
    """
    wished = _wished(version, policy)
    bound, card = bind(store, version, scorecard, package_files)
    refuse_unfit(store, version, bound, card)
    for statement in statements:
        store_approval(store, "promotion", bound, statement, author=author, policy=wished)
    while True:
        log = load_log(store, version.name)
        reigning = log.champion
        if reigning and reigning.version == version.version and reigning.scorecard == scorecard:
            sentence = f"{version.ref} already is champion on this scorecard (log entry {reigning.sequence})"
            return Outcome(reigning, False, sentence)
        refuse_overtaken(log, version, card["compared_with"])
        if _adopt(store, log, wished, author):
            continue
        in_force = log.policy or wished
        rejected = _rejection(log, bound)
        if rejected and not in_force.approvals:
            raise Refused(f"model {version.ref}: was rejected on this scorecard by {rejected.author} (log entry "
                          f"{rejected.sequence}: {rejected.reason}); train again")  # fmt: skip
        refuse_unsatisfiable(in_force, bound.run_author, bound.run_author_key, f"model {version.ref}: run {bound.run}")
        approved = approvals.gather(
            log.entries, "promotion", about_version(bound), card["compared_with"], in_force, in_force.approvals,
            datetime.now(UTC),
        )  # fmt: skip
        entry = log.next("promotion", bound, compared_with=card["compared_with"], policy=in_force.section(),
                         author=author, reason=reason, approvals=approved)  # fmt: skip
        if store.create(entry.key, entry.to_bytes()):
            return Outcome(entry, True, f"{version.ref} is champion (log entry {entry.sequence})")


def rollback_target(store: Store, name: str, to: str) -> tuple[Entry, Entry]:
    """The reigning entry, and the newest one that made `to` champion: a version's number, or `previous`, the version
    before the present one. Raises Refused when there is none, WrongInput for another word."""
    log = load_log(store, name)
    reigning = log.champion
    if reigning is None:
        raise Refused(f"model {name}: has no champion, so nothing to roll back")
    crowned = [entry for entry in log.entries if entry.kind in ("promotion", "rollback")]
    if to == "previous":
        found = next((entry for entry in reversed(crowned) if entry.version != reigning.version), None)
        if found is None:
            raise Refused(f"model {name}: {reigning.ref} is the only champion there has been; nothing to roll back to")
        return reigning, found
    if not to.isdecimal():
        raise WrongInput(f"model {name}: --to {to}: write the number of a version, or 'previous'")
    found = next((entry for entry in reversed(crowned) if entry.version == int(to)), None)
    if found is None:
        there = ", ".join(str(number) for number in sorted({entry.version for entry in crowned}))
        raise Refused(f"model {name}: version {to} was never champion (there were: {there}); gate and promote it")
    return reigning, found


def bind_rollback(store: Store, target: Entry, package_files: str = "") -> tuple[ModelVersion, Bound]:
    """The version that `target` made champion, bound anew. Raises Refused where it is not what it was then."""
    version = next((one for one in versions(store, target.name) if one.version == target.version), None)
    if version is None:
        raise Refused(f"model {target.ref}: is not registered any more; restore registry/{target.name}/ from a backup")
    bound, _ = bind(store, version, target.scorecard, package_files)
    for one in fields(Bound):
        before, now = getattr(target, one.name), getattr(bound, one.name)
        if before and now and before != now:
            raise Refused(f"model {target.ref}: its {one.name.replace('_', ' ')} is not what it was as champion (log "
                          f"entry {target.sequence}); it cannot be put back")  # fmt: skip
    return version, bound


def rollback(
    store: Store,
    name: str,
    to: str,
    *,
    author: str,
    reason: str,
    statements: Sequence[dict[str, Any]] = (),
    package_files: str = "",
) -> Outcome:
    """Make an earlier champion champion again; under approvals one listed reviewer has to sign it.

    Raises what `promote` raises.
    """
    reigning, target = rollback_target(store, name, to)
    if target.version == reigning.version:
        return Outcome(reigning, False, f"{reigning.ref} already is champion (log entry {reigning.sequence})")
    version, bound = bind_rollback(store, target, package_files)
    refuse_withdrawn(store, registry.resolve(store, version.dataset))
    _refuse_lost_model(store, version, bound)
    for statement in statements:
        store_approval(store, "rollback", bound, statement, author=author)
    while True:
        log = load_log(store, name)
        refuse_overtaken(log, version, reigning.sequence)
        in_force = log.policy or AUTOMATIC
        approved = approvals.gather(
            log.entries, "rollback", about_version(bound), reigning.sequence, in_force, min(in_force.approvals, 1),
            datetime.now(UTC),
        )  # fmt: skip
        entry = log.next("rollback", bound, compared_with=reigning.sequence, policy=in_force.section(), author=author,
                         reason=reason, approvals=approved)  # fmt: skip
        if store.create(entry.key, entry.to_bytes()):
            return Outcome(entry, True, f"{version.ref} is champion again (log entry {entry.sequence})")


def reject(
    store: Store,
    version: ModelVersion,
    scorecard: str,
    *,
    author: str,
    reason: str,
    policy: Mapping[str, Any] | None = None,
) -> Outcome:
    """Record that `version` was turned down on that scorecard; the champion stays, and earlier approvals count no more.
    The same rejection twice is one."""
    wished = _wished(version, policy)
    bound, card = bind(store, version, scorecard)
    while True:
        log = load_log(store, version.name)
        found = _rejection(log, bound)
        if found:
            return Outcome(found, False, f"{version.ref} was already rejected (log entry {found.sequence})")
        in_force = log.policy or wished
        entry = log.next("rejection", bound, compared_with=card["compared_with"], policy=in_force.section(),
                         author=author, reason=reason)  # fmt: skip
        if store.create(entry.key, entry.to_bytes()):
            return Outcome(entry, True, f"{version.ref} is rejected (log entry {entry.sequence})")


def store_approval(
    store: Store, action: str, bound: Bound, signed: dict[str, Any], *, author: str, policy: Policy = AUTOMATIC
) -> Outcome:
    """Put a signed statement into the log, if it counts now. The same one twice is one entry. Raises Void.

    action: promotion, rollback or policy; bound: what it must be about, of a policy nothing but the model's name.
    """
    while True:
        log = load_log(store, bound.name)
        for entry in log.entries:
            if entry.kind == "approval" and entry.signature == signed["signature"]:
                return Outcome(entry, False, f"this approval is in the log already (entry {entry.sequence})")
        if action == "policy":
            wanted = approvals.wished_policy(signed["statement"], f"approval of {bound.name}")
            about, compared_with = about_policy(bound.name, wanted), log.policy_since
        else:
            about, compared_with = about_version(bound), log.champion.sequence if log.champion else None
        if _adopt(store, log, policy, author):
            continue
        in_force = log.policy or policy
        if not in_force.approvals:
            raise Refused(f"model {bound.name}: its promotion policy is automatic, so there is nothing to approve; "
                          "list reviewers in the experiment's promotion section")  # fmt: skip
        reviewer = approvals.check(signed, action, about, compared_with, in_force, datetime.now(UTC))
        entry = log.next(
            "approval", bound, compared_with=compared_with, policy=in_force.section(), author=author,
            reason=str(signed["statement"].get("reason", "")), statement=signed["statement"],
            signature=signed["signature"],
        )  # fmt: skip
        if store.create(entry.key, entry.to_bytes()):
            what = "the policy" if action == "policy" else f"the {action} of {bound.ref}"
            return Outcome(entry, True, f"{reviewer} approves {what} (log entry {entry.sequence})")


def change_policy(
    store: Store, name: str, wished: Policy, *, author: str, reason: str, statements: Sequence[dict[str, Any]] = ()
) -> Outcome:
    """Put another policy in force, as the one before it demands. Raises Unapproved, Void, Refused for an empty log."""
    for statement in statements:
        store_approval(store, "policy", Bound(name=name), statement, author=author)
    while True:
        log = load_log(store, name)
        if log.policy is None:
            raise Refused(f"model {name}: its promotion log is empty; the first entry takes the experiment's policy")
        if log.policy == wished:
            return Outcome(log.entries[-1], False, f"{name}: this policy is in force already ({wished})")
        approved = approvals.gather(
            log.entries, "policy", about_policy(name, wished), log.policy_since, log.policy, log.policy.approvals,
            datetime.now(UTC),
        )  # fmt: skip
        entry = log.next("policy", Bound(name=name), compared_with=log.policy_since, policy=wished.section(),
                         author=author, reason=reason, approvals=approved)  # fmt: skip
        if store.create(entry.key, entry.to_bytes()):
            return Outcome(entry, True, f"{name}: policy in force is now {wished} (log entry {entry.sequence})")


def refuse_unapprovable(store: Store, name: str, section: Mapping[str, Any], settings: Settings) -> None:
    """Raises Refused, before any training, where what the present author trains could never be promoted."""
    policy = load_log(store, name).policy or parse_policy(section, f"experiment {name}")
    refuse_unsatisfiable(policy, settings.author_name, settings.author_key, f"model {name}: the run")


def _wished(version: ModelVersion, section: Mapping[str, Any] | None) -> Policy:
    if section is None:
        section = version.experiment.get("promotion") or {}
    return parse_policy(section, f"model {version.ref}")


def _adopt(store: Store, log: Log, wished: Policy, author: str) -> bool:
    """Where the policy in force is automatic and the experiment now lists reviewers, let those be in force first."""
    if log.policy is None or log.policy.approvals or not wished.approvals:
        return False
    entry = log.next("policy", Bound(name=log.name), compared_with=log.policy_since, policy=wished.section(),
                     author=author, reason="the experiment says so")  # fmt: skip
    store.create(entry.key, entry.to_bytes())
    return True


def _rejection(log: Log, bound: Bound) -> Entry | None:
    about = (bound.version, bound.scorecard)
    return next((e for e in log.entries if e.kind == "rejection" and (e.version, e.scorecard) == about), None)


def refuse_unfit(store: Store, version: ModelVersion, bound: Bound, card: dict[str, Any]) -> None:
    """Raises Refused where the data is withdrawn, the scorecard says no, or the model is not what its author signed."""
    refuse_withdrawn(store, registry.resolve(store, version.dataset))
    if not card["passed"]:
        failed = ", ".join(v["gate"] for v in card["verdicts"] if not v["passed"] and v["severity"] == "block")
        raise Refused(
            f"model {version.ref}: its scorecard {bound.scorecard[:12]} says no ({failed or 'no gate was run'}); "
            "mend what the gates name and train again"
        )
    _refuse_lost_model(store, version, bound)


def _refuse_lost_model(store: Store, version: ModelVersion, bound: Bound) -> None:
    if not artifacts.is_whole(store, "models", version.model):
        raise Refused(f"model {version.ref}: models/{version.model} is missing or altered; train again (slipway train)")
    if bound.run_author_key:
        from flows.promotion.signatures import check_model

        check_model(store, version.model, bound.run_author_key, f"model {version.ref}")


def refuse_overtaken(log: Log, version: ModelVersion, compared_with: int | None) -> None:
    """Raises Refused unless the champion is the one compared with."""
    reigning = log.champion
    if (reigning.sequence if reigning else None) == compared_with:
        return
    against = f"entry {compared_with}" if compared_with else "no champion"
    now = f"entry {reigning.sequence} ({reigning.ref})" if reigning else "no entry"
    again = f"slipway gate {version.ref}"
    if any(entry.version == version.version and entry.kind == "promotion" for entry in log.entries):
        again += f"; it was champion before: slipway rollback {version.name} --to {version.version}"
    raise Refused(
        f"model {version.ref}: champion changed: gate again ({again}); compared with {against}, the log now says {now}"
    )
