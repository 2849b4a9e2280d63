"""The one writer that carries a run's log into MLflow, beside the training and never in its way.

Metrics keep the log entry's own time: MLflow's key is (metric, step, value, time), so a repeat is the same row. How far
the log was carried is a tag, written after the metrics. MLflow keeps the first value of a step: steps that a later
attempt replayed are skipped, and those where it found other values are named in the tag
`slipway.replayed_differently`.
"""

import threading
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from infra.errors import SlipwayError
from infra.settings import Settings
from training.run_log import RunLog, RunState, read_tail, state_at

EVERY_S = 5.0
POSITION = "slipway.log_position"
DIFFERED = "slipway.replayed_differently"
NOTE = "mlflow.note.content"
"""MLflow shows it at the top of the run's page."""
TIMED = "system/"
"""How the names of metrics begin that measure the machine: a replay's are never the same."""

Point = tuple[int, dict[str, float], float]


class Projection:
    """Use as a context: projects every few seconds while open. What is left when it closes, `sync` brings over."""

    def __init__(self, settings: Settings, log: RunLog, title: str, facts: dict[str, Any]):
        self.settings, self.log, self.title, self.facts = settings, log, title, facts
        self.state: RunState | None = None
        self.run_id = ""
        self.position = 0
        self.waiting: list[Point] = []
        self.values: dict[int, dict[str, float]] = {}
        self.differed: set[int] = set()
        self.findings: list[str] = []
        self.problem = ""
        """Why the tracking server could not be reached the last time; empty when it was."""
        self.syncing = threading.Lock()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._repeat, daemon=True)

    def __enter__(self) -> "Projection":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def _repeat(self) -> None:
        while not self.ended.wait(EVERY_S if self.run_id or self.problem else 0.0):
            try:
                self.sync()
                self.problem = ""
            except SlipwayError as error:
                self.problem = str(error)  # the server or the store is away: the log keeps everything

    def sync(self) -> str:
        """Bring MLflow up to the log. Returns the MLflow run's id."""
        with self.syncing:
            return self._sync()

    def _sync(self) -> str:
        from infra import tracking

        if self.state is None:
            self._start()
        assert self.state is not None
        self._read()
        if not self.run_id:
            self.run_id = self.state.mlflow_run or self._open_run()
        if self.state.sequence > self.position:
            tags = {POSITION: str(self.state.sequence)}
            if self.differed:
                tags[DIFFERED] = ranges(self.differed)
            if self.findings:
                tags[NOTE] = "\n".join(f"- {one}" for one in self.findings)
            tracking.log_points(self.settings, self.run_id, self.waiting, tags)
            self.position, self.waiting = self.state.sequence, []
        return self.run_id

    def _start(self) -> None:
        """Begin where MLflow stands: at the newest checkpoint, if all it may lack or may be sent again comes later."""
        from infra import tracking

        tail = read_tail(self.log)
        if tail.mlflow_run:
            tags = tracking.run_tags(self.settings, tail.mlflow_run)
            self.position = int(tags.get(POSITION, 0))
            self.differed = set(steps_of(tags.get(DIFFERED, "")))
            self.findings = [line.removeprefix("- ") for line in tags.get(NOTE, "").splitlines()]
        newest = tail.checkpoints[-1] if tail.checkpoints else {}
        near = "before" in newest and self.position >= newest["sequence"]
        if near and newest["before"]["furthest"] <= newest["step"]:
            self.state = state_at(self.log, newest)
        else:
            self.state = RunState(self.log.run)
        self.run_id = tail.mlflow_run

    def _read(self) -> None:
        """Sort what was added to the log into new steps and replayed ones."""
        assert self.state is not None
        for entry in self.log.entries(after=self.state.sequence):
            furthest = self.state.furthest
            if entry["kind"] == "finding" and entry["attempt"] == self.state.attempt:
                said = f"step {entry['step']}: {entry['sentence']}"
                self.findings += [said] if said not in self.findings else []  # a replay finds it again
            for step, values, when in self.state.apply(entry):
                if step > furthest:
                    self.values[step] = values
                    if entry["sequence"] > self.position:
                        self.waiting.append((step, values, when))
                elif step in self.values and _untimed(values) != _untimed(self.values[step]):
                    self.differed.add(step)
            ours = entry["attempt"] == self.state.attempt and entry["sequence"] > self.position
            if entry["kind"] == "finished" and ours and entry.get("figures"):
                self.waiting.append((entry["steps"], entry["figures"], entry["time"]))
            if entry["kind"] == "checkpoint":  # no attempt goes back behind the oldest
                oldest = self.state.checkpoints[0]["step"]
                self.values = {step: values for step, values in self.values.items() if step > oldest}
            self.state.points.clear()

    def _open_run(self) -> str:
        """Who loses the race for the log's first `mlflow` entry deletes the run it made."""
        from infra import tracking

        assert self.state is not None
        made = tracking.open_run(self.settings, self.title, self.log.run, self.facts)
        self.log.append("mlflow", mlflow_run=made)
        self._read()
        if self.state.mlflow_run != made:
            tracking.delete_run(self.settings, made)
        return self.state.mlflow_run


def _untimed(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if not name.startswith(TIMED)}


def ranges(steps: Iterable[int]) -> str:
    """`3-5,9` for 3, 4, 5, 9."""
    ordered = sorted(steps)
    begins = [ordered[0], *(b for a, b in pairwise(ordered) if b > a + 1)]
    ends = [*(a for a, b in pairwise(ordered) if b > a + 1), ordered[-1]]
    return ",".join(f"{begin}-{end}" if end > begin else str(begin) for begin, end in zip(begins, ends, strict=True))


def steps_of(text: str) -> list[int]:
    """The inverse of `ranges`."""
    found: list[int] = []
    for part in filter(None, text.split(",")):
        begin, _, end = part.partition("-")
        found += range(int(begin), int(end or begin) + 1)
    return found
