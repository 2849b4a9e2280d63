"""The log of a run: numbered entries, each created if absent. What is in it happened; what is not, did not.

`runs/<run>/log/<sequence>.json`. Kinds of entry:

    run         first: experiment, key, author
    attempt     a group of workers begins, naming the checkpoint it goes on from; it overtakes the attempt before it
    checkpoint  a whole checkpoint exists, and where
    metrics     points [step, {name: value}, unix seconds]
    mlflow      the run's id in MLflow
    stopped | failed | finished      how an attempt ended; finished names the model's digest

An attempt that was overtaken can still write, and nothing of it counts: neither entries after the one that overtook
it, nor its metrics past the checkpoint that entry names.
"""

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from infra.artifacts import check_format
from infra.store import NotFound, Store

FORMAT = 1
HEARTBEAT_S = 15.0
"""A live attempt's heartbeat object is never older than this, by design."""
DEAD_AFTER_S = 60.0
"""An attempt whose heartbeat is older has died."""


@dataclass(frozen=True)
class RunLog:
    store: Store
    run: str

    def append(self, kind: str, attempt: int = 0, **body: Any) -> dict[str, Any]:
        """Add an entry under the next free number."""
        about = {"format": FORMAT, "kind": kind, "attempt": attempt, "time": time.time(), "nonce": uuid.uuid4().hex}
        entry = {**about, **body}
        sequence = self.last_sequence() + 1
        while True:
            entry["sequence"] = sequence
            if self.store.create(f"runs/{self.run}/log/{sequence:012d}.json", json.dumps(entry).encode()):
                return entry
            sequence += 1

    def last_sequence(self) -> int:
        last = 0
        for key in self.store.list(f"runs/{self.run}/log/"):
            last = int(key.rpartition("/")[2].removesuffix(".json"))
        return last

    def entries(self, after: int = 0) -> Iterator[dict[str, Any]]:
        """Entries with a sequence above `after`, in order."""
        prefix = f"runs/{self.run}/log/"
        for key in self.store.list(prefix, after=f"{prefix}{after:012d}.json"):
            entry = json.loads(self.store.get(key))
            check_format(entry, FORMAT, key)
            yield entry

    def beat(self, attempt: int, **facts: Any) -> None:
        """Overwrite the attempt's heartbeat."""
        body = {"format": FORMAT, "time": time.time(), **facts}
        self.store.put(f"runs/{self.run}/attempts/{attempt}/heartbeat.json", json.dumps(body).encode())

    def heartbeat(self, attempt: int) -> dict[str, Any] | None:
        try:
            return json.loads(self.store.get(f"runs/{self.run}/attempts/{attempt}/heartbeat.json"))
        except NotFound:
            return None


@dataclass
class RunState:
    """What the counting entries of a run's log add up to."""

    run: str
    first: dict[str, Any] = field(default_factory=dict)
    attempt: int = 0
    attempt_entry: dict[str, Any] = field(default_factory=dict)
    status: str = "new"
    """new | running | stopped | failed | finished"""
    ending: dict[str, Any] = field(default_factory=dict)
    """The entry that ended the newest attempt."""
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    points: list[tuple[int, dict[str, float], float]] = field(default_factory=list)
    mlflow_run: str = ""

    @property
    def step(self) -> int:
        return max((point[0] for point in self.points), default=0)

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Metric name -> (step, value) in order."""
        found: dict[str, list[tuple[int, float]]] = {}
        for step, values, _ in sorted(self.points, key=lambda point: point[0]):
            for name, value in values.items():
                found.setdefault(name, []).append((step, value))
        return found


def read_state(log: RunLog) -> RunState:
    state = RunState(log.run)
    for entry in log.entries():
        kind = entry["kind"]
        if kind == "run":
            state.first = state.first or entry
        elif kind == "mlflow":
            state.mlflow_run = state.mlflow_run or entry["mlflow_run"]
        elif kind == "attempt":
            resumed = entry["from_step"]
            state.attempt, state.attempt_entry, state.status, state.ending = entry["attempt"], entry, "running", {}
            state.points = [point for point in state.points if point[0] <= resumed]
            state.checkpoints = [one for one in state.checkpoints if one["step"] <= resumed]
        elif entry["attempt"] != state.attempt:
            continue  # written by an attempt that had been overtaken
        elif kind == "metrics":
            state.points.extend((step, values, when) for step, values, when in entry["points"])
        elif kind == "checkpoint":
            state.checkpoints.append(entry)
        elif kind in ("stopped", "failed", "finished"):
            state.status, state.ending = kind, entry
    return state


def run_names(store: Store) -> list[str]:
    return sorted({key.split("/")[1] for key in store.list("runs/") if key.split("/")[2] == "log"})
