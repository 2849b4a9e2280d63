"""Open candidates: versions that could be promoted now, and what a reviewer wants to know of them."""

from datetime import UTC, datetime
from typing import Any

from flows import approvals, models
from flows.approvals import about_version
from flows.binding import bind
from flows.policy import Policy, refuse_unsatisfiable
from flows.promote import newest_scorecard, todays
from flows.promotion import policy_for
from flows.promotion_log import Bound, Log, load_log
from infra.errors import Refused
from infra.settings import Settings


def open_candidates(settings: Settings, name: str) -> list[dict[str, Any]]:
    """One document a candidate, the oldest first: gated with a yes, compared with the present champion, neither
    promoted nor rejected on that scorecard."""
    store = settings.object_store
    log = load_log(store, name)
    reigning = log.champion
    found = []
    for version in models.versions(store, name):
        scorecard = newest_scorecard(settings, version)
        if scorecard is None:
            continue
        try:
            bound, card = bind(store, version, scorecard)
        except Refused:
            continue  # altered or lost: promote says so
        decided = [entry for entry in log.entries if (entry.version, entry.scorecard) == (version.version, scorecard)]
        if any(entry.kind in ("promotion", "rejection") for entry in decided) or not card["passed"]:
            continue
        if card["compared_with"] != (reigning.sequence if reigning else None):
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
                "against": reigning.ref if reigning else "no champion",
                "policy": str(policy),
                "approved": approved_by(log, bound, card["compared_with"], policy),
                "scorecard": f"scorecards/{scorecard}",
                "hindrance": _hindrance(policy, bound),
                "page": str(store.local_path(f"scorecards/{scorecard}/scorecard.html")),
            }
        )
    return found


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
