"""What of the store is still reached, for `slipway gc`: a walk from what somebody may still ask for.

Roots: the newest entry of each tag; every entry of the promotion logs, so that any version that ever was champion can
be rolled back to and `slipway verify` finds all it looks at; open candidates; runs that can go on; the newest result of
each step, so that a plan finds cached what it found before; and whatever is younger than the grace period, with what it
names. Kept documents are searched for digests of 64 hex digits, and what bears one as its name is kept: a new kind of
record needs no line here.

    datasets/<name>/<digest>/   prepared/ models/ evaluations/ scorecards/ trials/<digest>/   signatures/<model>/
    runs/<run>/checkpoints/     steps/<kind>/<subject>/<key>.json

These can go. Everything else stays: logs of runs, promotions, versions of models, tags, corrections, withdrawals,
inference, and what this Slipway does not know.
"""

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from data_contracts import registry, sequence
from flows import models
from flows.models import ModelVersion
from flows.promotion.log import CROWNING, Log, load_log
from infra.errors import SlipwayError
from infra.store import NotFound, Store
from training.run_log import RunLog, RunState, read_tail, run_names

ARTIFACTS = ("prepared", "models", "evaluations", "scorecards", "trials")
THINGS = ("datasets", *ARTIFACTS)
"""Kinds that are named by a digest."""
EVIDENCE = ("datasets", "evaluations", "scorecards", "trials")
"""What a page or a decision rests on: a candidate that was turned down keeps these, and not its weights."""
LINEAGE = ("datasets", "prepared")
"""What tells who saw a row."""
DOCUMENTS = {"scorecards": ("scorecard.json", EVIDENCE), "evaluations": ("metrics.json", EVIDENCE)}
"""Kind of artifact -> the file that names others, and of which kinds."""
DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@dataclass
class Walk:
    """One look at the store. `kept`: name of a thing -> why it stays."""

    store: Store
    since: float
    """What is younger than this stays; seconds since 1970."""
    found: dict[str, list[str]] = field(default_factory=dict)
    """Name of a thing, which is its folder or the key of a record -> its keys."""
    kept: dict[str, str] = field(default_factory=dict)
    runs: dict[str, RunState] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    logs: dict[str, Log] = field(default_factory=dict)
    _named: dict[str, list[str]] = field(default_factory=dict)
    _waiting: list[str] = field(default_factory=list)
    _old: set[str] = field(default_factory=set)

    def garbage(self) -> list[str]:
        """Names of what nothing reaches, sorted. Raises Refused where a promotion log is not whole."""
        self._take_stock()
        self._keep_tagged()
        self._keep_decided()
        self._keep_runs()
        while True:
            self._follow()
            if not self._keep_results() and not self._keep_young():
                return sorted(name for name in self.found if name not in self.kept)

    # What there is ---------------------------------------------------------------------------------------------------

    def _take_stock(self) -> None:
        for kind in (*ARTIFACTS, "signatures"):
            for key in self.store.list(f"{kind}/"):
                self._add("/".join(key.split("/")[:2]), key)
        for key in self.store.list("datasets/"):
            if DIGEST.fullmatch(key.split("/")[2]):
                self._add("/".join(key.split("/")[:3]), key)
        for key in self.store.list("runs/"):
            if key.split("/")[2] == "checkpoints":
                self._add("/".join(key.split("/")[:3]), key)
        for key in self.store.list("steps/"):
            self._add(key, key)
            self.records[key] = _read(self.store, key)
        for name in self.found:
            if name.split("/")[0] in THINGS:
                self._named.setdefault(name.rpartition("/")[2], []).append(name)

    def _add(self, name: str, key: str) -> None:
        self.found.setdefault(name, []).append(key)

    def names_in(self, body: Any, kinds: tuple[str, ...] = THINGS) -> set[str]:
        """The things whose digests stand anywhere in a JSON value."""
        digests = set(DIGEST.findall(json.dumps(body)))
        return {name for one in digests for name in self._named.get(one, ()) if name.split("/")[0] in kinds}

    # What is kept ----------------------------------------------------------------------------------------------------

    def keep(self, body: Any, why: str, kinds: tuple[str, ...] = THINGS) -> None:
        for name in self.names_in(body, kinds):
            self._keep(name, why)

    def _keep(self, name: str, why: str) -> None:
        if name in self.found and name not in self.kept:
            self.kept[name] = why
            self._waiting.append(name)

    def _follow(self) -> None:
        """Keep what the documents of kept things name, and a kept model's signatures."""
        while self._waiting:
            name = self._waiting.pop()
            kind, _, rest = name.partition("/")
            if kind == "models":
                self._keep(f"signatures/{rest}", self.kept[name])
            if kind in DOCUMENTS:
                file, kinds = DOCUMENTS[kind]
                body = _read(self.store, f"{name}/{file}")
                self.keep(body, self.kept[name], kinds)
                # What a verdict cites as its proof stays, whatever it is.
                self.keep([one.get("evidence") for one in body.get("verdicts", ())], self.kept[name])

    def _keep_tagged(self) -> None:
        tags = {"/".join(key.split("/")[:4]) for key in self.store.list("datasets/") if key.split("/")[2] == "refs"}
        for tag in sorted(tags):
            entries = sequence.entries(self.store, f"{tag}/", registry.FORMAT)
            _, dataset, _, name = tag.split("/")
            for entry in entries:
                if entry is entries[-1] or _moment(entry["time"]) >= self.since:
                    self.keep(entry["digest"], f"tag {dataset}@{name}", ("datasets",))

    def _keep_decided(self) -> None:
        """Champions of all times and candidates that may still become one, with their evidence and their data."""
        names = {key.split("/")[1] for key in self.store.list("promotions/")} | set(models.names(self.store))
        for name in sorted(names):
            log = self.logs[name] = load_log(self.store, name)
            crowned = {entry.version for entry in log.entries if entry.kind in CROWNING}
            for entry in log.entries:
                was = entry.kind in CROWNING
                body = json.loads(self.store.get(entry.key))
                self.keep(body, f"champion {entry.ref}" if was else f"log entry {entry.sequence} of {name}",
                          THINGS if was else EVIDENCE)  # fmt: skip
            for version in models.versions(self.store, name):
                young = _moment(version.created) >= self.since
                if version.version in crowned or young or _open(log, version):
                    what = "champion" if version.version in crowned else "candidate"
                    self.keep(vars(version), f"{what} {version.ref}")
                    first = _read(self.store, f"runs/{version.run}/log/{1:012d}.json")
                    self.keep(first, f"{what} {version.ref}", LINEAGE)

    def _keep_runs(self) -> None:
        for run in run_names(self.store):
            state = self.runs[run] = read_tail(RunLog(self.store, run))
            if state.status != "finished":
                self._keep(f"runs/{run}/checkpoints", f"run {run} can go on")
                self.keep(state.first, f"run {run} can go on")
            elif state.ending["time"] >= self.since:
                self.keep([state.first, state.ending], f"run {run} has just ended")

    def _keep_results(self) -> bool:
        """Keep what the newest record of each step names, of those whose inputs are kept. Whether that was news.

        Two records are of one step when they name the same things among their ingredients: an evaluation of the same
        model, a training on the same prepared data.
        """
        newest: dict[tuple[Any, ...], tuple[float, str]] = {}
        for key, body in self.records.items():
            if body:
                step = (*key.split("/")[1:3], *sorted(self.names_in(body["ingredients"])))
                newest[step] = max(newest.get(step, (0.0, "")), (body["ended"], key))
        before = len(self.kept)
        for _, key in newest.values():
            body = self.records[key]
            if self.names_in(body["ingredients"]) <= self.kept.keys() and self.names_in(body["output"]):
                self._keep(key, f"newest result of {body['step']}")
                self.keep(body["output"], f"newest result of {body['step']}")
        for key, body in self.records.items():
            if not body:
                continue  # torn: no plan reads it
            if max(body["ended"], body.get("used", 0.0)) >= self.since:
                self._keep(key, "young")
                self.keep([body["ingredients"], body["output"]], f"{body['step']} was used lately")
            named = DIGEST.findall(json.dumps(body["output"]))
            if all(self.kept.keys() & set(self._named.get(one, ())) for one in named):
                self._keep(key, "its output is kept")
        return len(self.kept) > before

    def _keep_young(self) -> bool:
        before = len(self.kept)
        for name, keys in self.found.items():
            if name in self.kept or name in self._old:
                continue
            if is_young(self.store, keys, self.since):
                self._keep(name, "young")
            else:
                self._old.add(name)
        return len(self.kept) > before


def is_young(store: Store, keys: list[str], since: float) -> bool:
    """Whether any of these objects was written since then, by the store's own clock; one that is gone was not."""
    for key in keys:
        try:
            if store.modified(key) >= since:
                return True
        except NotFound:
            pass
    return False


def _open(log: Log, version: ModelVersion) -> bool:
    """Whether it may still become champion: trained after the champion's version, or there is none, and not turned
    down for good. (Where people approve, a rejection can be followed by an approval.)"""
    turned_down = {entry.version for entry in log.entries if entry.kind == "rejection"}
    for_good = log.policy is not None and not log.policy.approvals
    reigning = log.champion
    newer = reigning is None or version.version > reigning.version
    return newer and not (for_good and version.version in turned_down)


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _read(store: Store, key: str) -> dict[str, Any]:
    """{} for what is missing or torn."""
    try:
        body = json.loads(store.get(key))
    except (NotFound, SlipwayError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}
