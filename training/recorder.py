"""What a worker tells the world while it trains: metrics, checkpoints, signs of life, the machine's own figures.

Nothing here makes the training wait for the store. Metrics are gathered and written by a thread; while the store is
away they are kept and written later, as are checkpoints' entries. The end of a run waits for the store, and fails
resumably when it stays away.
"""

import math
import os
import socket
import threading
import time
from collections import deque
from functools import cache
from typing import Any

from infra.errors import SlipwayError
from infra.patience import patiently
from training import loop
from training.checkpoint import Checkpoints
from training.energy import NodeEnergy, spent
from training.experiment import Training
from training.feed import Feed
from training.run_log import HEARTBEAT_S, AttemptLog, Overtaken, RunLog
from training.state import TrainState

METRICS_EVERY_S = 10.0
METRICS_EVERY_STEPS = 1000
MACHINE_EVERY_S = 10.0
BEAT_ON_DISK_S = 1.0
"""Progress in a terminal is read from the heartbeat, so on disk it is fresh; on S3 each put costs."""
MOST_KEPT = 100_000
"""Steps whose metrics are kept while the store is away; then the training waits."""


class Recorder(loop.Observer):
    """A worker's observer: its part of each checkpoint, and on rank 0 all that the run log says. Use as a context."""

    def __init__(
        self,
        log: RunLog,
        attempt: int,
        world: loop.World,
        training: Training,
        num_steps: int,
        first_step: int,
        *,
        writer: AttemptLog | None = None,
        feed: Feed | None = None,
        energy: NodeEnergy | None = None,
    ):
        """first_step: the steps done when the attempt begins. writer: on rank 0 alone. energy: on one worker a node."""
        self.log, self.attempt, self.world, self.training, self.num_steps = log, attempt, world, training, num_steps
        self.writer, self.feed, self.energy = writer, feed, energy
        self.checkpoints = Checkpoints(
            log.store, log.run, attempt, world, keep=training.keep_checkpoints, record=self._record_checkpoint,
            say=self._trouble,
        )  # fmt: skip
        self.saved, self.saved_step = time.monotonic(), first_step
        self.points: list[tuple[int, dict[str, float], float]] = []
        self.findings: list[dict[str, Any]] = []
        self.announced: dict[str, Any] = {}
        self.taking = threading.Lock()
        self.writing = threading.Lock()
        self.overtaken: Overtaken | None = None
        self.stop_reason = ""
        self.machine = Machine(self)
        self.progress: dict[str, Any] = {"step": 0, "num_steps": num_steps, "note": "beginning"}
        self.trouble: dict[str, str] = {}
        self.begun = self.flushed = time.monotonic()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._keep_up, daemon=True)

    def __enter__(self) -> "Recorder":
        if self.energy:
            self.energy.__enter__()
        if self.writer:
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.energy:
            self.energy.__exit__()
        self.ended.set()
        if self.writer:
            self.thread.join()

    # What the loop calls.

    def metrics(self, step: int, values: dict[str, float]) -> None:
        values = {name: float(f"{value:.9g}") for name, value in (values | self.machine.take()).items()}
        with self.taking:
            self.points.append((step, values, time.time()))
        loss = next((value for name, value in values.items() if name.endswith("loss")), 0.0)
        self.progress = {"step": step, "num_steps": self.num_steps, "loss": loss, "rate": self.machine.rate(step)}
        while len(self.points) >= MOST_KEPT and not self.overtaken:
            time.sleep(0.1)

    def announce(self, found: dict[str, Any]) -> None:
        """What the run is about to do; told once an attempt, when its first entry is written."""
        self.announced = found

    def finding(self, step: int, sentence: str) -> None:
        self.findings.append({"step": step, "sentence": sentence})

    def wishes(self, step: int) -> tuple[bool, bool]:
        by_time = time.monotonic() - self.saved >= self.training.checkpoint_every_s
        by_steps = step - self.saved_step >= (self.training.checkpoint_every_steps or math.inf)
        return (by_time or by_steps) and not self.checkpoints.busy, bool(self.stop_reason or self.overtaken)

    def save(self, step: int, state: TrainState) -> None:
        if not self.overtaken:
            self.checkpoints.save(step, state)
            self.saved, self.saved_step = time.monotonic(), step

    def written(self) -> tuple[int, int]:
        return self.checkpoints.written()

    def heard(self, whole: int, failed: int) -> None:
        self.checkpoints.heard(whole, failed)

    def wait(self) -> None:
        if not self.overtaken:
            self.checkpoints.wait()

    # The log, on rank 0.

    def end(self, kind: str, **body: Any) -> None:
        """The attempt's last entry, with the metrics that are left; waits for the store. Raises Overtaken."""
        patiently(lambda: self._write(kind, body), self.say)

    def _record_checkpoint(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Its entry carries the metrics up to its step: whoever goes on from it finds them in the log before it."""
        return self._write("checkpoint", facts)

    def _flush(self) -> None:
        if self.points:
            self._write("metrics", {})

    def _write(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        """An entry with the metrics gathered so far. After an error they are kept: where the entry did arrive, readers
        count the first of two points of a step."""
        assert self.writer is not None
        with self.taking:
            points, self.points = self.points, []
        try:
            with self.writing:
                while self.findings:
                    self.writer.append("finding", **self.findings[0])
                    self.findings.pop(0)
                entry = self.writer.append(kind, **body, points=points)
        except SlipwayError as error:
            with self.taking:
                self.points = points + self.points
            if isinstance(error, Overtaken):
                self.overtaken = error
            raise
        self.flushed = time.monotonic()
        return entry

    def say(self, note: str) -> None:
        self.progress = {**self.progress, "note": note}

    def _trouble(self, what: str) -> None:
        """Told to the terminal through the heartbeat, once."""
        self.trouble = {"trouble": what}

    # The thread.

    def _keep_up(self) -> None:
        """Heartbeat, stop requests, being overtaken, metrics, budget: until the attempt ends."""
        on_disk = self.log.store.uri.startswith("file:")
        beaten = looked = -math.inf
        while not self.overtaken:
            now = time.monotonic()
            try:
                if self.announced:
                    self._tell()
                if now - beaten >= (BEAT_ON_DISK_S if on_disk else HEARTBEAT_S):
                    self._beat()
                    beaten = now
                if now - self.flushed >= METRICS_EVERY_S or len(self.points) >= METRICS_EVERY_STEPS:
                    self._flush()
                if now - looked >= MACHINE_EVERY_S:
                    self.machine.look()
                    self._heed_budget()
                    looked = now
            except Overtaken as error:
                self.overtaken = error
            except SlipwayError:
                pass  # the store may be away for minutes; training goes on and the next round tries again
            if self.ended.wait(0.25):
                return

    def _tell(self) -> None:
        assert self.writer is not None
        with self.writing:
            self.writer.append("outlook", **self.announced)
        self.announced = {}

    def _beat(self) -> None:
        assert self.writer is not None
        seconds = time.monotonic() - self.begun
        self.log.beat(self.attempt, host=socket.gethostname(), pid=os.getpid(), seconds=seconds, **self.progress)
        with self.writing:
            self.writer.follow()
        if self.log.store.exists(f"runs/{self.log.run}/attempts/{self.attempt}/stop"):
            self.stop_reason = self.stop_reason or "was stopped; the same command goes on from its checkpoint"

    def _heed_budget(self) -> None:
        budget = self.training.budget
        if budget is None or self.stop_reason:
            return
        used = self.machine.energy
        hours = self.hours_before() + (time.monotonic() - self.begun) / 3600
        for name, limit, have in (
            ("hours", budget.hours, hours),
            ("kwh", budget.kwh, used.get("energy_kwh", 0.0)),
            ("kgco2e", budget.kgco2e, used.get("co2_kg", 0.0)),
        ):
            if limit is not None and have >= limit:
                self.stop_reason = (
                    f"its budget is used up (training.budget.{name}: {limit:g}, used {have:.3g}); raise it and the "
                    "same command goes on"
                )

    @cache  # noqa: B019 (one recorder a process)
    def hours_before(self) -> float:
        """What the attempts before this one took, by their last heartbeats."""
        beats = [self.log.heartbeat(number) for number in range(1, self.attempt)]
        return sum(beat.get("seconds", 0.0) for beat in beats if beat) / 3600


class Machine:
    """What the machine does meanwhile: metrics under `system/`, taken by the next step that is reported."""

    def __init__(self, recorder: Recorder):
        self.recorder = recorder
        self.recent: deque[tuple[float, int]] = deque(maxlen=64)
        self.fresh: dict[str, float] = {}
        self.energy: dict[str, float] = {}
        self.before: tuple[float, int, int, int] | None = None
        self.step = 0

    def rate(self, step: int) -> float:
        """Steps per second over the last ones."""
        now = time.monotonic()
        self.step = step
        if not self.recent or now - self.recent[-1][0] >= 0.5:
            self.recent.append((now, step))
        begun, first = self.recent[0]
        return (step - first) / (now - begun) if now > begun else 0.0

    def take(self) -> dict[str, float]:
        found, self.fresh = self.fresh, {}
        return found

    def look(self) -> None:
        import psutil

        found = {"cpu_percent": psutil.cpu_percent(), "memory_gb": psutil.virtual_memory().used / 1e9}
        found["process_memory_gb"] = psutil.Process().memory_info().rss / 1e9
        device = self.recorder.world.device
        if device.type == "cuda":
            import torch

            found["gpu_memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
        feed, now = self.recorder.feed, time.monotonic()
        tokens, padding = (feed.tokens, feed.padding) if feed else (0, 0)
        if self.before:
            seconds, steps = now - self.before[0], self.step - self.before[1]
            found["samples_per_s"] = steps * self.recorder.training.batch_size / seconds
            real, padded = tokens - self.before[2], padding - self.before[3]
            if real:  # of this worker; the others have as many on average
                found["tokens_per_s"] = real * self.recorder.world.size / seconds
                found["padding_share"] = padded / (real + padded)
        self.before = (now, self.step, tokens, padding)
        self.energy = spent(self.recorder.log.store, self.recorder.log.run)
        self.fresh = {f"system/{name}": value for name, value in {**found, **self.energy}.items()}
