"""One fit without gradients, in the driver's own process: takes up the run, fits, writes the model.

To the run's log it is what a worker is (`training.worker`): an attempt with a heartbeat, metrics, and an ending. There
is no checkpoint: an attempt that was interrupted is followed by one that begins anew, and gives the same bytes.
"""

import math
import os
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infra import artifacts
from infra.errors import Refused, SlipwayError, WrongInput
from infra.patience import patiently
from infra.store import open_store
from training.energy import NodeEnergy, spent
from training.experiment import validate_experiment
from training.recipe import load_recipe, source_folders
from training.run_log import HEARTBEAT_S, AttemptLog, RunLog, begin_attempt, read_tail

BEAT_ON_DISK_S = 1.0
"""Progress in a terminal is read from the heartbeat."""


class Stopped(Refused):
    """A person asked for the end of the run (slipway stop)."""


def fit(config: dict[str, Any]) -> None:
    """Fit to the end. config: see `training.launch.Request.for_worker`.

    Raises Overtaken, and SlipwayError with what the recipe said; both after the log has it.
    """
    log = RunLog(open_store(config["store"]), config["run"])
    experiment = validate_experiment(config["experiment"], "experiment")
    writer = begin_attempt(
        log, read_tail(log), config["over"], config["driver"], workers=1, from_step=0, checkpoint=None, skipped=[]
    )
    with Attempt(writer) as attempt, NodeEnergy(log.store, log.run, writer.attempt, 0, config["country"]) as energy:
        try:
            recipe = load_recipe(experiment.recipe).Recipe(
                experiment.recipe_settings, source_folders(log.store, config["sources"])
            )
            recipe.open(artifacts.fetch(log.store, artifacts.load(log.store, "prepared", config["prepared"])))
            with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
                files = recipe.fit(Path(scratch), experiment.training.seed, attempt.report)
                facts = {"files": asdict(files)}
                model = patiently(
                    lambda: artifacts.commit_folder(log.store, "models", Path(scratch), facts), attempt.say
                )
        except Stopped as error:
            attempt.end("stopped", reason=str(error))
            return
        except MemoryError as error:
            said = WrongInput("the fit ran out of memory; register fewer rows, or prepare fewer columns")
            attempt.fail(said)
            raise said from error
        except Exception as error:
            attempt.fail(error)
            raise
        energy.__exit__()  # what it counted last belongs to the run's figure
        counted = patiently(lambda: spent(log.store, log.run), attempt.say)
        steps, figures = max(attempt.step, 1), dict(files.figures)
        attempt.end("finished", model=model.digest, steps=steps, test={}, figures=figures, **counted)


class Attempt:
    """What a fit tells: its points in the run's log, and a sign of life beside it. Use as a context."""

    def __init__(self, writer: AttemptLog):
        self.writer, self.log = writer, writer.log
        self.points: list[tuple[int, dict[str, float], float]] = []
        self.progress: dict[str, Any] = {"step": 0, "num_steps": None, "note": "beginning"}
        self.begun = time.monotonic()
        self.stop_asked = False
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Attempt":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    @property
    def step(self) -> int:
        return self.progress["step"]

    def report(self, step: int, num_steps: int, metrics: Mapping[str, float] | None = None, note: str = "") -> None:
        """See `training.fit.Report`. Raises Stopped where that was asked for."""
        finite = {name: float(f"{value:.9g}") for name, value in (metrics or {}).items() if math.isfinite(value)}
        if finite:
            self.points.append((step, finite, time.time()))
        said = note or ", ".join(f"{name} {value:.4g}" for name, value in finite.items())
        self.progress = {"step": step, "num_steps": num_steps, "note": said}
        if self.stop_asked:
            raise Stopped("was stopped; a fit keeps no checkpoint, so the same command begins it anew")

    def say(self, note: str) -> None:
        self.progress = {**self.progress, "note": note}

    def end(self, kind: str, **body: Any) -> None:
        """The attempt's last entry, with every point. Raises Overtaken."""
        patiently(lambda: self.writer.append(kind, points=self.points, **body), self.say)

    def fail(self, error: Exception) -> None:
        """Whatever keeps the log from taking it, the error itself is told."""
        said = str(error) if isinstance(error, SlipwayError) else f"{type(error).__name__}: {error}"
        with suppress(SlipwayError):
            self.writer.append("failed", message=said, exit_code=getattr(error, "exit_code", 1), points=self.points)

    def _beat(self) -> None:
        every = BEAT_ON_DISK_S if self.log.store.uri.startswith("file:") else HEARTBEAT_S
        ended = False
        while not ended:
            ended = self.ended.is_set()  # then this is the last one, and tells of the end
            seconds = time.monotonic() - self.begun
            with suppress(SlipwayError):  # the store may be away for a while; the end of the fit waits for it
                self.log.beat(
                    self.writer.attempt, host=socket.gethostname(), pid=os.getpid(), seconds=seconds, **self.progress
                )
                self.stop_asked = self.log.store.exists(f"runs/{self.log.run}/attempts/{self.writer.attempt}/stop")
            self.ended.wait(every)
