"""Starts the workers of a run and waits for them: the driver's side of training."""

import os
import socket
import threading
from dataclasses import dataclass
from typing import Any

from infra.errors import Refused, SlipwayError, WrongInput
from infra.progress import Progress
from infra.settings import Settings
from infra.store import Store
from training.experiment import Experiment
from training.run_log import DEAD_AFTER_S, RunLog, RunState, read_state, run_names

POLL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to train: everything a result depends on is named by digest."""

    experiment: Experiment
    key: str
    """The step's key: 64 hex digits."""
    prepared: str
    """Digest of the artifact of kind `prepared`."""
    sources: dict[str, dict[str, str]]
    """Role -> {"digest": of a `models` artifact} or {"folder": an absolute path}."""
    facts: dict[str, Any]
    """What the tracking server is told: parameters, tags, dataset."""

    def for_worker(self, settings: Settings, run: str) -> dict[str, Any]:
        return {
            "store": settings.store_uri,
            "run": run,
            "experiment": self.experiment.model_dump(mode="json", by_alias=True),
            "prepared": self.prepared,
            "sources": self.sources,
        }


def find_run(store: Store, experiment: str, key: str, fresh: bool = False) -> tuple[str, RunState]:
    """The run this key would go on with: the newest of that key, or the next one where that finished and `fresh`."""
    stem = f"{experiment}-{key[:12]}-"
    numbers = sorted(int(run.removeprefix(stem)) for run in run_names(store) if run.startswith(stem))
    number = numbers[-1] if numbers else 1
    state = read_state(RunLog(store, f"{stem}{number}"))
    if fresh and state.status == "finished":
        state = read_state(RunLog(store, f"{stem}{number + 1}"))
    return state.run, state


def train(request: Request, settings: Settings, progress: Progress, fresh: bool = False) -> RunState:
    """Run to the end, going on from the newest checkpoint of an unfinished run. Returns the finished run's state.

    Raises WrongInput or Refused with the worker's own words, SlipwayError when workers keep dying.
    """
    store = settings.object_store
    experiment = request.experiment
    run, state = find_run(store, experiment.name, request.key, fresh)
    if state.status == "finished":
        return state
    log = RunLog(store, run)
    _refuse_live_attempt(log, state)
    if not state.first:
        log.append("run", experiment=experiment.model_dump(mode="json", by_alias=True), key=request.key,
                   author=settings.author_name)  # fmt: skip
    from training.projection import Projection

    watching = threading.Event()
    watcher = threading.Thread(target=_show_progress, args=(log, progress, watching), daemon=True)
    with Projection(settings, log, experiment.name, request.facts) as projection:
        watcher.start()
        try:
            _fit(request, settings, run, progress)
        except (KeyboardInterrupt, SystemExit):
            state = read_state(log)
            log.append("stopped", state.attempt)
            raise KeyboardInterrupt from None  # Ray turns Ctrl-C into SystemExit(1)
        finally:
            watching.set()
            watcher.join()
    state = read_state(log)
    if state.status == "finished":
        progress.update(state.ending["steps"], state.ending["steps"], "")
    from infra import tracking

    mlflow_run = projection.sync()
    endings = {"finished": "FINISHED", "stopped": "KILLED"}
    tracking.end_run(settings, mlflow_run, endings.get(state.status, "FAILED"))
    if state.status == "failed":
        raise {2: WrongInput, 3: Refused}.get(state.ending["exit_code"], SlipwayError)(state.ending["message"])
    if state.status == "stopped":
        raise Refused(f"run {run}: was stopped at step {state.step}; the same command goes on from its checkpoint")
    if state.status != "finished":
        raise SlipwayError(f"run {run}: the workers ended without finishing; the same command goes on from there")
    state.mlflow_run = mlflow_run
    return state


def _fit(request: Request, settings: Settings, run: str, progress: Progress) -> None:
    from infra.cluster import connect, storage_folder

    scaling = request.experiment.scaling
    progress.say("starting Ray")
    connect(settings, scaling.workers)
    progress.say(f"starting {scaling.workers} worker{'s' * (scaling.workers > 1)}")

    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from training.worker import work

    gpus = scaling.gpus_per_worker
    resources = {"CPU": settings.cpus_per_worker, **({"GPU": gpus} if gpus else {})}
    trainer = TorchTrainer(
        work,
        train_loop_config=request.for_worker(settings, run),
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=scaling.workers, use_gpu=gpus > 0, resources_per_worker=resources),
        run_config=RunConfig(
            # A name of its own: under a name that exists Ray restores its own idea of the run.
            name=f"{run}-{os.getpid()}",
            storage_path=storage_folder(settings),
            failure_config=FailureConfig(max_failures=scaling.max_failures),
        ),
    )
    try:
        trainer.fit()
    except (SystemExit, KeyboardInterrupt):
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise SlipwayError(f"run {run}: the workers died ({reason[-1] if reason else type(error).__name__})") from error


def _refuse_live_attempt(log: RunLog, state: RunState) -> None:
    import time

    if state.status != "running":
        return
    beat = log.heartbeat(state.attempt)
    if beat is None or time.time() - beat["time"] > DEAD_AFTER_S:
        return
    if beat["host"] == socket.gethostname() and not _alive(beat["pid"]):
        return
    raise Refused(
        f"run {log.run}: is being trained on {beat['host']} by process {beat['pid']} "
        f"(heard {time.time() - beat['time']:.0f} s ago); wait for it or end it"
    )


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _show_progress(log: RunLog, progress: Progress, ended: threading.Event) -> None:
    """Follow the newest attempt's heartbeat."""
    before = log.last_sequence()
    attempt = 0
    while not ended.wait(POLL_S):
        for entry in log.entries(after=before):
            before = entry["sequence"]
            attempt = entry["attempt"] if entry["kind"] == "attempt" else attempt
        beat = log.heartbeat(attempt) if attempt else None
        if beat and beat.get("step"):
            progress.update(beat["step"], beat["num_steps"], f"loss {beat['loss']:.3f}")
