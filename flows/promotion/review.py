"""Open candidates: versions that could be promoted now, and what a reviewer wants to know of them; and why others are
closed."""

from datetime import UTC, datetime
from typing import Any

from flows import models
from flows.promote import newest_scorecard, todays
from flows.promotion import approvals
from flows.promotion.approvals import about_version
from flows.promotion.binding import bind
from flows.promotion.decisions import policy_for
from flows.promotion.log import Bound, Log, load_log
from flows.promotion.policy import Policy, refuse_unsatisfiable
from infra.errors import Refused
from infra.settings import Settings


def candidates(settings: Settings, name: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The open ones, one document each, the oldest first: gated with a yes, compared with the present champion,
    neither promoted nor rejected on that scorecard. And version -> why it is not open."""
    store = settings.object_store
    log = load_log(store, name)
    found, closed = [], {}
    for version in models.versions(store, name):
        scorecard = newest_scorecard(settings, version)
        if scorecard is None:
            closed[version.ref] = f"was never gated as it is now: slipway gate {version.ref}"
            continue
        try:
            bound, card = bind(store, version, scorecard)
        except Refused as error:
            closed[version.ref] = str(error)
            continue
        if why := _closed(log, version, scorecard, card):
            closed[version.ref] = why
            continue
        policy = policy_for(store, version, todays(version).promotion)
        found.append(
            {
                "model": version.ref,
                "version": version.version,
                "author": bound.run_author,
                "dataset": version.dataset,
                "verdict": card["verdict"],
                "verdicts": card["verdicts"],
                "against": log.champion.ref if log.champion else "no champion",
                "policy": str(policy),
                "approved": approved_by(log, bound, card["compared_with"], policy),
                "scorecard": f"scorecards/{scorecard}",
                "hindrance": _hindrance(policy, bound),
                "page": str(store.local_path(f"scorecards/{scorecard}/scorecard.html")),
            }
        )
    return found, closed


def _closed(log: Log, version: models.ModelVersion, scorecard: str, card: dict[str, Any]) -> str:
    """Why this version is no open candidate; "" when it is one."""
    decided = [entry for entry in log.entries if (entry.version, entry.scorecard) == (version.version, scorecard)]
    reigning = log.champion
    if reigning and reigning.version == version.version:
        return "is the champion"
    for entry in reversed(decided):
        if entry.kind == "promotion":
            return f"was promoted on {entry.time[:10]} (entry {entry.sequence}); slipway rollback brings it back"
        if entry.kind == "rejection":
            return f"was rejected: {entry.reason}"
    if not card["passed"]:
        return f"{card['verdict']}; see slipway gate {version.ref}"
    if card["compared_with"] != (reigning.sequence if reigning else None):
        return f"was compared with an earlier champion: slipway gate {version.ref}"
    return ""


def _hindrance(policy: Policy, bound: Bound) -> str:
    """Why no approval could ever make it champion; "" when they can."""
    try:
        refuse_unsatisfiable(policy, bound.run_author, bound.run_author_key, f"run {bound.run}")
    except Refused as error:
        return str(error)
    return ""


def approved_by(log: Log, bound: Bound, compared_with: int | None, policy: Policy) -> list[str]:
    """Names of the reviewers whose stored approval of this promotion counts now."""
    found = set()
    for entry in log.entries:
        if entry.kind == "approval" and entry.version == bound.version:
            about = {**about_version(bound), "package_files": entry.package_files}  # the package is not read here
            try:
                signed = approvals.signed_of(entry)
                found.add(approvals.check(signed, "promotion", about, compared_with, policy, datetime.now(UTC)))
            except approvals.Void:
                pass
    return sorted(found)
