"""Garbage: what nothing reaches any more (`flows.reachable`), and the rows of versions that may not be used.

Safe beside whoever works in the store meanwhile: nothing younger than the grace period goes, and who uses an old thing
again makes it young before (its manifest, or the record that led there, is written again). The walk is done twice, and
only what neither reached is removed, its age asked once more. Manifests go first, so a thing is whole or absent; what
somebody needs in the very moment that it goes is found missing, and made again.
"""

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from data_contracts import registry
from data_contracts.registry import Version
from data_contracts.withdrawal import HOLD_ROWS, barred, barred_since, erase, erased
from flows.reachable import Walk, is_young
from infra.errors import SlipwayError
from infra.store import NotFound, Store

DAY = 86_400.0
GRACE_DAYS = 7.0
ROWS = "rows"


@dataclass(frozen=True, kw_only=True)
class Garbage:
    name: str
    """Folder or key in the store; of rows, the version's folder."""
    kind: str
    """datasets | prepared | models | evaluations | scorecards | trials | signatures | checkpoints | steps | rows"""
    why: str
    keys: tuple[str, ...]
    bytes: int
    """By the manifests; 0 where none tells."""


def find(store: Store, grace_days: float = GRACE_DAYS) -> list[Garbage]:
    """What may go, by name. Raises Refused where a promotion log is not whole: nothing is decided on such a log."""
    since = _now(store) - grace_days * DAY
    walk = Walk(store, since)
    found = [_unreached(walk, name) for name in walk.garbage()]
    return sorted([*found, *_rows(walk)], key=lambda one: one.name)


def remove(
    store: Store,
    listed: list[Garbage],
    grace_days: float,
    who: str,
    update: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> list[Garbage]:
    """Remove, of what was listed, what is still garbage now. Returns that."""
    wanted = {one.name for one in listed}
    still = [one for one in find(store, grace_days) if one.name in wanted]
    since = _now(store) - grace_days * DAY
    removed = []
    # Records first: none may lead to what is gone.
    for number, one in enumerate(sorted(still, key=lambda one: one.kind != "steps")):
        update(number, len(still), one.name)
        if one.kind == ROWS:
            erase(store, _version(store, one.name), who)
        elif is_young(store, [key for key in one.keys if key.endswith(".json")], since):
            continue  # somebody uses it again
        else:
            for key in sorted(one.keys, key=lambda key: not key.endswith("/manifest.json")):
                store.delete(key)
            if one.kind != "steps":
                store.sweep(one.name)
        removed.append(one)
    return removed


def _unreached(walk: Walk, name: str) -> Garbage:
    kind = "checkpoints" if name.startswith("runs/") else name.split("/")[0]
    keys = tuple(walk.found[name])
    return Garbage(name=name, kind=kind, why=_why(walk, kind, name), keys=keys, bytes=_size(walk.store, keys))


def _why(walk: Walk, kind: str, name: str) -> str:
    if kind == "checkpoints":
        return "its run has finished" if name.split("/")[1] in walk.runs else "its run has no log"
    if kind == "steps":
        return "its output goes" if walk.records[name] else "it is torn"
    if kind == "datasets":
        return "no tag, run, candidate or champion is of it"
    if kind == "models":
        return "it is no champion and no open candidate"
    return "nothing that is kept names it"


def _rows(walk: Walk) -> list[Garbage]:
    """The rows of kept versions that were withdrawn or have expired longer ago than the grace period, and what was
    prepared of nothing else."""
    store = walk.store
    doomed, usable = set(), set()
    found = []
    for name in walk.found:
        if not name.startswith("datasets/") or name not in walk.kept:
            continue
        try:
            version = _version(store, name)
        except (NotFound, SlipwayError):
            continue  # altered: that is `data audit`'s to say
        since = barred_since(store, version)
        if since is None or since.timestamp() >= walk.since:
            usable.add(version.rows)
            continue
        doomed.add(version.rows)
        files = version.manifest["files"]
        held = [files[one] for one in HOLD_ROWS if one in files]
        keys = tuple(version.key(one["name"]) for one in held)
        if erased(store, version) is None or any(store.exists(key) for key in keys):
            size = sum(one["bytes"] for one in held)
            why = f"rows of a version that {barred(store, version)}"
            found.append(Garbage(name=name, kind=ROWS, why=why, keys=keys, bytes=size))
    made: dict[str, dict[str, str]] = {}  # what was prepared -> record of that -> digest of the rows it was made of
    for key, body in walk.records.items():
        if body and "prepared" in body["output"]:
            of = body["ingredients"].get("dataset", {}).get("rows", "")
            made.setdefault(f"prepared/{body['output']['prepared']}", {})[key] = of
    for name, records in made.items():
        if name in walk.kept and doomed - usable >= set(records.values()):
            keys = tuple(walk.found[name])
            why = "made of rows that may not be used"
            found.append(Garbage(name=name, kind="prepared", why=why, keys=keys, bytes=_size(store, keys)))
            found += [Garbage(name=key, kind="steps", why="its output goes", keys=(key,), bytes=0) for key in records]
    return found


def _version(store: Store, name: str) -> Version:
    _, dataset, digest = name.split("/")
    return registry.resolve(store, f"{dataset}@{digest}")


def _size(store: Store, keys: tuple[str, ...]) -> int:
    total = 0
    for key in keys:
        if key.endswith("/manifest.json"):
            try:
                files: dict[str, dict[str, Any]] = json.loads(store.get(key)).get("files", {})
                total += sum(int(one.get("bytes", 0)) for one in files.values())
            except (NotFound, ValueError, AttributeError):
                pass  # a manifest that cannot be read tells no size
    return total


def _now(store: Store) -> float:
    """The store's own clock, whichever machine this is; never later than this one's."""
    key = f"gc/{secrets.token_hex(8)}.json"
    store.put(key, b'{"format": 1}')
    try:
        return min(store.modified(key), time.time())
    finally:
        store.delete(key)
