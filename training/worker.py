"""One Ray Train worker: joins the others, takes up the run where its log says it stands, trains, writes the model.

Rank 0 alone writes to the run log, under the number of its attempt.
"""

import math
import os
import socket
import tempfile
import threading
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infra import artifacts
from infra.errors import SlipwayError
from infra.store import Store, open_store
from training.experiment import Training, validate_experiment
from training.recipe import load_recipe
from training.run_log import RunLog, read_state

METRICS_EVERY_S = 10.0
METRICS_EVERY_STEPS = 1000


def work(config: dict[str, Any]) -> None:
    """The function Ray Train runs in every worker. config: see `training.launch.Request.for_worker`."""
    import ray.train
    import ray.train.torch
    import torch.distributed as dist

    from training import loop

    context = ray.train.get_context()
    sharding = config["experiment"]["scaling"]["sharding"]
    world = loop.World(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device(), sharding)
    store = open_store(config["store"])
    log = RunLog(store, config["run"])
    try:
        _train(config, world, store, log)
    except (SlipwayError, loop.Diverged, MemoryError) as error:
        # The user's to mend: trying again would end the same way, so the worker ends well and the log tells.
        code = getattr(error, "exit_code", 1)
        log.append("failed", read_state(log).attempt, message=str(error), exit_code=code)
    if world.size > 1 and dist.is_initialized():
        dist.barrier()  # a worker that leaves while another still sends makes that one abort


def _train(config: dict[str, Any], world: Any, store: Store, log: RunLog) -> None:
    from training import checkpoint, loop
    from training.sharding import whole as gather

    experiment = validate_experiment(config["experiment"], "experiment")
    module = load_recipe(experiment.recipe)
    sources = {role: _source_folder(store, source) for role, source in config["sources"].items()}
    recipe = module.Recipe(experiment.recipe_settings, sources)
    prepared = artifacts.load(store, "prepared", config["prepared"])
    recipe.open(artifacts.fetch(store, prepared))
    num_steps = experiment.training.num_steps(recipe.num_samples("train"))

    begin = [_begin_attempt(store, log, world.size) if world.rank == 0 else None]
    if world.size > 1:
        import torch.distributed as dist

        dist.broadcast_object_list(begin, src=0)
    attempt, entry = begin[0]  # type: ignore[misc]

    def restore(state: Any) -> int:
        observer.saved_step = checkpoint.load_checkpoint(store, entry, state) if entry else 0
        return observer.saved_step

    observer = Recorder(store, log, attempt, num_steps, experiment.training, world)
    with observer if world.rank == 0 else nullcontext():
        task, whole = loop.train(recipe, experiment.training, world, observer, restore)
        final = {}
        if whole and recipe.num_samples("test"):
            final = loop.validate(recipe, task, "test", experiment.training, world)
        task = gather(task, recipe.build, world) if whole else task
    if world.rank == 0:
        observer.flush()
        if not whole:
            log.append("stopped", attempt)
            return
        with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
            files = recipe.save(task, Path(scratch))
            model = artifacts.commit_folder(store, "models", Path(scratch), {"files": asdict(files)})
        parameters = sum(value.numel() for value in task.parameters())
        log.append("finished", attempt, model=model.digest, test=final, parameters=parameters, steps=num_steps)


def _source_folder(store: Store, source: dict[str, str]) -> Path:
    if "folder" in source:
        return Path(source["folder"])
    return artifacts.fetch(store, artifacts.load(store, "models", source["digest"]))


def _begin_attempt(store: Store, log: RunLog, workers: int) -> tuple[int, dict[str, Any] | None]:
    from training.checkpoint import newest_whole

    state = read_state(log)
    entry, skipped = newest_whole(store, state.checkpoints)
    begun = log.append(
        "attempt",
        state.attempt + 1,
        host=socket.gethostname(),
        pid=os.getpid(),
        workers=workers,
        from_step=entry["step"] if entry else 0,
        checkpoint=entry and {key: entry[key] for key in ("step", "place", "digest")},
        skipped=skipped,
    )
    return begun["attempt"], entry


class Recorder:
    """A worker's observer: its part of each checkpoint into the store; on rank 0 also metrics and checkpoint entries
    into the run log, and a heartbeat beside them."""

    def __init__(self, store: Store, log: RunLog, attempt: int, num_steps: int, training: Training, world: Any):
        from training.checkpoint import Checkpoints

        self.store, self.log, self.attempt, self.num_steps = store, log, attempt, num_steps
        self.training, self.rank = training, world.rank
        self.checkpoints = Checkpoints(
            store, log.run, attempt, world, keep=training.keep_checkpoints, record=self._record_checkpoint
        )
        self.points: list[tuple[int, dict[str, float], float]] = []
        self.flushing = threading.Lock()
        self.flushed = self.saved = time.monotonic()
        self.saved_step = 0
        self.progress: dict[str, Any] = {"step": 0, "num_steps": num_steps}
        self.ended = threading.Event()
        self.stop_asked = False
        # Progress shows in the terminal through this object, so on disk it is fresh; on S3 each put costs.
        self.beat_every_s = 1.0 if store.uri.startswith("file:") else 5.0
        self.beater = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Recorder":
        self.beater.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.beater.join()

    def _beat(self) -> None:
        stop_key = f"runs/{self.log.run}/attempts/{self.attempt}/stop"
        while True:
            try:
                facts = {**self.progress, "host": socket.gethostname(), "pid": os.getpid()}
                self.log.beat(self.attempt, **facts)
                self.stop_asked = self.stop_asked or self.store.exists(stop_key)
            except SlipwayError:
                pass  # the store may be away for minutes; training goes on and the next beat tries again
            if self.ended.wait(self.beat_every_s):
                return

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self.points.append((step, {name: float(f"{value:.9g}") for name, value in values.items()}, time.time()))
        loss = next((value for name, value in values.items() if name.endswith("loss")), 0.0)
        self.progress = {"step": step, "num_steps": self.num_steps, "loss": loss}
        if len(self.points) >= METRICS_EVERY_STEPS or time.monotonic() - self.flushed >= METRICS_EVERY_S:
            self.flush()

    def flush(self) -> None:
        with self.flushing:
            if self.points:
                points = list(self.points)  # the loop may add more meanwhile
                self.log.append("metrics", self.attempt, points=points)
                del self.points[: len(points)]
            self.flushed = time.monotonic()

    def wishes(self, step: int) -> tuple[bool, bool]:
        by_time = time.monotonic() - self.saved >= self.training.checkpoint_every_s
        by_steps = step - self.saved_step >= (self.training.checkpoint_every_steps or math.inf)
        return (by_time or by_steps) and not self.checkpoints.busy, self.stop_asked

    def save(self, step: int, state: Any) -> None:
        self.checkpoints.save(step, state)
        self.saved, self.saved_step = time.monotonic(), step

    def _record_checkpoint(self, facts: dict[str, Any]) -> dict[str, Any]:
        self.flush()  # a checkpoint entry promises that the metrics up to its step are in the log before it
        return self.log.append("checkpoint", self.attempt, **facts)

    def written(self) -> tuple[int, int]:
        return self.checkpoints.written()

    def heard(self, whole: int, failed: int) -> None:
        self.checkpoints.heard(whole, failed)

    def wait(self) -> None:
        self.checkpoints.wait()
