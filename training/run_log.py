"""The log of a run: numbered entries, each created if absent. What is in it happened; what is not, did not.

`runs/<run>/log/<sequence>.json`. Kinds of entry:

    run         first: experiment, key, what the key was made of, author
    attempt     a group of workers begins, naming the checkpoint it goes on from; it overtakes the attempt before it
    checkpoint  a whole checkpoint exists, and where; with what a reader that starts here has to know of before
    metrics     points [step, {name: value}, unix seconds]; checkpoints and endings carry points too
    finding     something in the model that should not be as it is, in plain words
    mlflow      the run's id in MLflow
    accepted    a person let the run go on under changed code, and why
    stopped | failed | finished      how an attempt ended; finished names the model's digest

An attempt that was overtaken can still write, and nothing of it counts: neither entries after the one that overtook
it, nor its metrics past the checkpoint that entry names. It finds out at its next entry: an attempt writes only under
the number that follows everything it has read, so it cannot write past an entry that it has not seen.
"""

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from infra.artifacts import check_format
from infra.errors import Refused
from infra.store import NotFound, Store

FORMAT = 1
HEARTBEAT_S = 15.0
"""A live attempt's heartbeat object is never older than this, by design."""
DEAD_AFTER_S = 60.0
"""An attempt whose heartbeat is older has died."""
CHECKPOINTS_KNOWN = 8
"""How many checkpoints back a reader sees that starts from the newest one."""
ENDINGS = ("stopped", "failed", "finished")


class Overtaken(Refused):
    """Another attempt has taken the run over: nothing this one writes counts any more."""


class Busy(Refused):
    """A live attempt is at this run, somewhere."""


@dataclass(frozen=True)
class RunLog:
    store: Store
    run: str

    def append(self, kind: str, attempt: int = 0, **body: Any) -> dict[str, Any]:
        """Add an entry under the next free number, whatever was added meanwhile. Attempts write by `AttemptLog`."""
        entry = new_entry(kind, attempt, body)
        sequence = self.last_sequence() + 1
        while True:
            entry["sequence"] = sequence
            if self.create(entry):
                return entry
            sequence += 1

    def create(self, entry: dict[str, Any]) -> bool:
        """Add an entry under the number it carries; whether that number was free."""
        return self.store.create(self._key(entry["sequence"]), json.dumps(entry).encode())

    def last_sequence(self) -> int:
        last = 0
        for key in self.store.list(f"runs/{self.run}/log/"):
            last = int(key.rpartition("/")[2].removesuffix(".json"))
        return last

    def read(self, sequence: int) -> dict[str, Any]:
        """Raises NotFound when there is no such entry (yet)."""
        key = self._key(sequence)
        entry = json.loads(self.store.get(key))
        check_format(entry, FORMAT, key)
        return entry

    def entries(self, after: int = 0) -> Iterator[dict[str, Any]]:
        """Entries with a sequence above `after`, in order. Numbers have no gaps, so none is listed."""
        while True:
            after += 1
            try:
                yield self.read(after)
            except NotFound:
                return

    def beat(self, attempt: int, **facts: Any) -> None:
        """Overwrite the attempt's heartbeat."""
        body = {"format": FORMAT, "time": time.time(), **facts}
        self.store.put(f"runs/{self.run}/attempts/{attempt}/heartbeat.json", json.dumps(body).encode())

    def heartbeat(self, attempt: int) -> dict[str, Any] | None:
        try:
            return json.loads(self.store.get(f"runs/{self.run}/attempts/{attempt}/heartbeat.json"))
        except NotFound:
            return None

    def attempts_heard(self) -> int:
        """The highest number of an attempt that has left anything under its prefix."""
        prefix = f"runs/{self.run}/attempts/"
        return max((int(key.removeprefix(prefix).split("/")[0]) for key in self.store.list(prefix)), default=0)

    def _key(self, sequence: int) -> str:
        return f"runs/{self.run}/log/{sequence:012d}.json"


def new_entry(kind: str, attempt: int, body: dict[str, Any]) -> dict[str, Any]:
    about = {"format": FORMAT, "kind": kind, "attempt": attempt, "time": time.time(), "nonce": uuid.uuid4().hex}
    return {**about, **body}


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
    accepted: list[dict[str, Any]] = field(default_factory=list)
    sequence: int = 0
    """The newest entry read."""
    reported: int = 0
    """The newest step whose points count. A step counts once: a writer that lost the answer to its entry sends the
    points again."""
    furthest: int = 0
    """The highest step that any attempt reported, be it replayed since."""

    @property
    def step(self) -> int:
        last = self.checkpoints[-1]["step"] if self.checkpoints else 0
        return max((point[0] for point in self.points), default=last)

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Metric name -> (step, value) in order."""
        found: dict[str, list[tuple[int, float]]] = {}
        for step, values, _ in sorted(self.points, key=lambda point: point[0]):
            for name, value in values.items():
                found.setdefault(name, []).append((step, value))
        return found

    def apply(self, entry: dict[str, Any]) -> list[tuple[int, dict[str, float], float]]:
        """Take in the next entry of the log. Returns the points it added."""
        kind = entry["kind"]
        self.sequence = entry["sequence"]
        if kind == "run":
            self.first = self.first or entry
        elif kind == "mlflow":
            self.mlflow_run = self.mlflow_run or entry["mlflow_run"]
        elif kind == "accepted":
            self.accepted.append(entry)
        elif kind == "attempt":
            self.reported = resumed = entry["from_step"]
            self.attempt, self.attempt_entry, self.status, self.ending = entry["attempt"], entry, "running", {}
            self.points = [point for point in self.points if point[0] <= resumed]
            self.checkpoints = [one for one in self.checkpoints if one["step"] <= resumed]
        elif entry["attempt"] != self.attempt:
            return []  # written by an attempt that had been overtaken
        elif kind == "checkpoint":
            self.checkpoints.append(entry)
        elif kind in ENDINGS:
            self.status, self.ending = kind, entry
        points = [(step, values, when) for step, values, when in entry.get("points", ()) if step > self.reported]
        self.points += points
        self.reported = max([self.reported, *(step for step, _, _ in points)])
        self.furthest = max(self.furthest, self.reported)
        return points

    def position(self) -> dict[str, Any]:
        """What a checkpoint's entry says of the log before it, so that a reader can start there."""
        best = self.checkpoints[-1].get("best", {}).get("step") if self.checkpoints else None
        newest = self.checkpoints[-CHECKPOINTS_KNOWN:]
        return {
            "attempt_sequence": self.attempt_entry["sequence"],
            "checkpoints": [one["sequence"] for one in self.checkpoints if one in newest or one["step"] == best],
            "accepted": [one["sequence"] for one in self.accepted],
            "mlflow_run": self.mlflow_run,
            "reported": self.reported,
            "furthest": self.furthest,
        }


def read_state(log: RunLog) -> RunState:
    """The whole log, every point in it."""
    state = RunState(log.run)
    for entry in log.entries():
        state.apply(entry)
    return state


def read_tail(log: RunLog) -> RunState:
    """As `read_state`, from the newest checkpoint's entry on, however long the log: points before it are left out."""
    tail: list[dict[str, Any]] = []
    newest_attempt, begun = log.attempts_heard(), set()
    for sequence in range(log.last_sequence(), 0, -1):
        entry = log.read(sequence)
        tail.append(entry)
        if entry["kind"] == "attempt":
            begun.add(entry["attempt"])
        # It counts unless an attempt that overtook its writer began before it.
        starts = entry["kind"] == "checkpoint" and "before" in entry
        if starts and begun.issuperset(range(entry["attempt"] + 1, newest_attempt + 1)):
            break
    from_checkpoint = bool(tail) and tail[-1]["sequence"] > 1
    state = state_at(log, tail[-1]) if from_checkpoint else RunState(log.run)
    for entry in reversed(tail):
        if entry["sequence"] > state.sequence:
            state.apply(entry)
    return state


def state_at(log: RunLog, checkpoint: dict[str, Any]) -> RunState:
    """What the log said when it ended with this entry; of the points, those in the entry itself."""
    before = checkpoint["before"]
    state = RunState(
        log.run,
        first=log.read(1),
        attempt=checkpoint["attempt"],
        attempt_entry=log.read(before["attempt_sequence"]),
        status="running",
        checkpoints=[log.read(sequence) for sequence in before["checkpoints"]],
        accepted=[log.read(sequence) for sequence in before["accepted"]],
        mlflow_run=before["mlflow_run"],
        reported=before["reported"],
        furthest=before["furthest"],
    )
    state.apply(checkpoint)
    return state


@dataclass
class AttemptLog:
    """What one attempt writes. Not for several threads at once.

    `state` is what was read; its points are dropped as they come, for a run may have millions.
    """

    log: RunLog
    state: RunState
    attempt: int

    def follow(self) -> None:
        """Read what was added. Raises Overtaken where that is an attempt after this one."""
        for entry in self.log.entries(after=self.state.sequence):
            self._take(entry)
        self._check()

    def append(self, kind: str, **body: Any) -> dict[str, Any]:
        return self.settle(new_entry(kind, self.attempt, body))

    def settle(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Write the entry where the log ends. Raises Overtaken.

        After any other error call it again with the same entry: where the first try arrived, nothing is written twice.
        """
        while True:
            for seen in self.log.entries(after=self.state.sequence):
                self._take(seen)
                if seen["nonce"] == entry["nonce"]:
                    return seen
            self._check()
            placed = {**entry, "sequence": self.state.sequence + 1}
            if entry["kind"] == "checkpoint":
                placed["before"] = self.state.position()
            if self.log.create(placed):
                self._take(placed)
                return placed

    def _take(self, entry: dict[str, Any]) -> None:
        self.state.apply(entry)
        self.state.points.clear()

    def _check(self) -> None:
        if self.state.attempt != self.attempt:
            by = self.state.attempt_entry
            raise Overtaken(
                f"run {self.log.run}: attempt {self.attempt} was overtaken by attempt {by['attempt']} on {by['host']} "
                f"(process {by['pid']}), which goes on from step {by['from_step']}; this one ends"
            )


def begin_attempt(log: RunLog, state: RunState, over: int, driver: str, **facts: Any) -> AttemptLog:
    """Begin the attempt after the newest one, which `state` tells of; that is taking over. Raises Overtaken.

    over: the attempt that the driver looked at before it started workers. driver: a name that its attempts have in
    common: it replaces its own dead workers. facts: `workers`, `from_step`, `checkpoint`.
    """
    writer = AttemptLog(log, state, state.attempt)
    if state.attempt_entry.get("driver") != driver:
        writer.attempt = over
    number = state.attempt + 1
    here = {"host": socket.gethostname(), "pid": os.getpid(), "driver": driver, "overtakes": state.attempt}
    writer.settle(new_entry("attempt", number, {**here, **facts}))
    writer.attempt = number
    return writer


def live_beat(log: RunLog, state: RunState) -> dict[str, Any] | None:
    """The last sign of life of the newest attempt, if it may still be at work: not ended, young, its process there."""
    if state.status != "running":
        return None
    beat = log.heartbeat(state.attempt) or state.attempt_entry  # it may have begun just now
    if time.time() - beat["time"] > DEAD_AFTER_S:
        return None
    if beat["host"] == socket.gethostname() and not _alive(beat["pid"]):
        return None
    return beat


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def run_names(store: Store) -> list[str]:
    return sorted({key.split("/")[1] for key in store.list("runs/") if key.split("/")[2] == "log"})
