"""Starts the workers of a run and waits for them: the driver's side of training."""

import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from infra.errors import Refused, SlipwayError, WrongInput
from infra.patience import patiently
from infra.progress import Progress
from infra.settings import Settings
from infra.store import Store
from training.experiment import Experiment
from training.outlook import TIMED_STEPS, duration, sentence
from training.run_log import AttemptLog, Busy, Overtaken, RunLog, RunState, live_beat, read_state, read_tail

POLL_S = 0.5
QUIET_S = 20.0
"""A heartbeat older than this is missing: `HEARTBEAT_S` and a little."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to train: everything a result depends on is named by digest."""

    experiment: Experiment
    key: str
    """The step's key: 64 hex digits."""
    ingredients: dict[str, Any] = field(default_factory=dict)
    """What the key is the digest of, so that a later `--resume` can say what differs."""
    prepared: str
    """Digest of the artifact of kind `prepared`."""
    sources: dict[str, dict[str, str]]
    """Role -> {"digest": of a `models` artifact} or {"folder": an absolute path}."""
    facts: dict[str, Any]
    """What the tracking server is told: parameters, tags, dataset."""

    def for_worker(self, settings: Settings, run: str, over: int, driver: str) -> dict[str, Any]:
        """over: the attempt that the first of this driver's attempts takes over from; 0 for none."""
        return {
            "store": settings.store_uri,
            "run": run,
            "over": over,
            "driver": driver,
            "ledger": settings.ledger,
            "country": settings.country,
            "experiment": self.experiment.model_dump(mode="json", by_alias=True),
            "prepared": self.prepared,
            "sources": self.sources,
        }


def find_run(store: Store, experiment: str, key: str, fresh: bool = False) -> tuple[str, RunState]:
    """The run this key would go on with: the newest of that key, or the next one where that finished and `fresh`."""
    stem = f"{experiment}-{key[:12]}-"
    runs = {name.split("/")[1] for name in store.list(f"runs/{stem}") if name.split("/")[2] == "log"}
    number = max((int(run.removeprefix(stem)) for run in runs), default=1)
    state = read_tail(RunLog(store, f"{stem}{number}"))
    if fresh and state.status == "finished":
        state = read_tail(RunLog(store, f"{stem}{number + 1}"))
    return state.run, state


def train(
    request: Request,
    settings: Settings,
    progress: Progress,
    fresh: bool = False,
    *,
    run: str = "",
    take_over: bool = False,
) -> RunState:
    """Run to the end, going on from the newest checkpoint of an unfinished run. Returns the finished run's state.

    run: the one to go on with, in place of the one that the key finds. take_over: even from an attempt that was heard
    a moment ago. Raises WrongInput or Refused with the worker's own words, Overtaken when another driver took the run
    over, SlipwayError when workers keep dying or a service stays away; the same command then goes on.
    """
    from infra import tracking
    from infra.cluster import connect
    from training.projection import Projection

    store = settings.object_store
    experiment = request.experiment
    state = read_tail(RunLog(store, run)) if run else find_run(store, experiment.name, request.key, fresh)[1]
    log = RunLog(store, state.run)
    if state.status != "finished":
        if not take_over:
            _refuse_live_attempt(log, state)
        if not state.first:
            tracking.knock(settings)  # once it has begun a run goes on without the tracking server
        if experiment.recipe_settings.trains:
            progress.say("starting Ray")  # before anything is written: a cluster that is too small leaves no trace
            connect(settings, experiment.scaling.workers, experiment.scaling.gpus_per_worker)
    if not state.first:
        log.append(
            "run",
            experiment=experiment.model_dump(mode="json", by_alias=True),
            key=request.key,
            ingredients=request.ingredients,
            author=settings.author_name,
            author_key=settings.author_key,
            prepared=request.prepared,
            dataset=request.facts.get("dataset"),
        )
    with Projection(settings, log, experiment.name, request.facts) as projection:
        if state.status != "finished":
            state = _attempts(request, settings, log, state, progress, projection)
    if state.status == "finished":
        progress.update(state.ending["steps"], state.ending["steps"], "")
    mlflow_run = _settle_tracking(settings, projection, state, progress)
    _raise_unless_finished(state)
    state.mlflow_run = mlflow_run
    return state


def _attempts(
    request: Request, settings: Settings, log: RunLog, state: RunState, progress: Progress, projection: Any
) -> RunState:
    """One attempt after another until the run has ended, or workers died too often."""
    from infra.cluster import shortage

    driver = uuid.uuid4().hex
    ended = threading.Event()
    scaling = request.experiment.scaling
    trains = request.experiment.recipe_settings.trains
    lacking = partial(shortage, settings, scaling.workers, scaling.gpus_per_worker) if trains else str  # "" without Ray
    watcher = threading.Thread(target=_show_progress, args=(log, progress, projection, lacking, ended), daemon=True)
    watcher.start()
    try:
        if request.experiment.recipe_settings.trains:
            _fit(request, settings, log, progress, state.attempt, driver)
        else:
            from training.fitter import fit

            progress.say("fitting")
            fit(request.for_worker(settings, log.run, state.attempt, driver))
    except SlipwayError:
        state = read_tail(log)
        if state.status != "failed" or state.attempt_entry.get("driver") != driver:
            raise  # else a worker has said why, and better
    except (KeyboardInterrupt, SystemExit):
        state = read_tail(log)
        if state.attempt_entry.get("driver") == driver:
            AttemptLog(log, state, state.attempt).append("stopped", reason="interrupted")
        raise KeyboardInterrupt from None  # Ray turns Ctrl-C into SystemExit(1)
    finally:
        ended.set()
        watcher.join()
    state = patiently(lambda: read_state(log), progress.say)
    if state.attempt_entry and state.attempt_entry.get("driver") != driver:
        by = state.attempt_entry
        raise Overtaken(
            f"run {log.run}: was taken over by attempt {by['attempt']} on {by['host']} (process {by['pid']}), which "
            f"goes on from step {by['from_step']}; this one has ended"
        )
    return state


def _settle_tracking(settings: Settings, projection: Any, state: RunState, progress: Progress) -> str:
    """Bring the tracking server up to the log, waiting for it where it is away. Returns the MLflow run's id."""
    from infra import tracking

    status = {"finished": "FINISHED", "stopped": "KILLED"}.get(state.status, "FAILED")
    try:
        mlflow_run = patiently(projection.sync, progress.say)
        patiently(lambda: tracking.end_run(settings, mlflow_run, status), progress.say)
    except SlipwayError as error:
        raise SlipwayError(
            f"run {state.run}: {state.status}, its metrics are in its log and not all in MLflow; the same command "
            f"brings them over ({error})"
        ) from error
    return mlflow_run


def _raise_unless_finished(state: RunState) -> None:
    if state.status == "failed":
        raise {2: WrongInput, 3: Refused}.get(state.ending["exit_code"], SlipwayError)(state.ending["message"])
    if state.status == "stopped":
        reason = state.ending.get("reason") or "was stopped; the same command goes on from its checkpoint"
        raise Refused(f"run {state.run}: at step {state.step}: {reason}")
    if state.status != "finished":
        raise SlipwayError(f"run {state.run}: the workers ended without finishing; the same command goes on from there")


def _fit(request: Request, settings: Settings, log: RunLog, progress: Progress, over: int, driver: str) -> None:
    from infra.cluster import storage_folder

    scaling = request.experiment.scaling
    progress.say(f"starting {scaling.workers} worker{'s' * (scaling.workers > 1)}")

    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from training.worker import work

    gpus = scaling.gpus_per_worker
    resources = {"CPU": settings.cpus_per_worker, **({"GPU": gpus} if gpus else {})}
    trainer = TorchTrainer(
        work,
        train_loop_config=request.for_worker(settings, log.run, over, driver),
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=scaling.workers, use_gpu=gpus > 0, resources_per_worker=resources),
        run_config=RunConfig(
            # A name of its own: under a name that exists Ray restores its own idea of the run.
            name=f"{log.run}-{os.getpid()}",
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
        said = reason[-1] if reason else type(error).__name__
        if "OutOfMemory" in str(error) or "memory" in said:
            from training.worker import less_memory

            raise WrongInput(
                f"run {log.run}: a worker was killed for its memory; {less_memory(request.experiment, scaling.workers)}"
            ) from error
        raise SlipwayError(
            f"run {log.run}: the workers died ({said}); the same command goes on from the newest checkpoint"
        ) from error


def _refuse_live_attempt(log: RunLog, state: RunState) -> None:
    beat = live_beat(log, state)
    if beat:
        raise Busy(
            f"run {log.run}: is being trained on {beat['host']} by process {beat['pid']} (heard "
            f"{time.time() - beat['time']:.0f} s ago); wait for it, end it (slipway stop {log.run}), or add --take-over"
        )


def _show_progress(
    log: RunLog, progress: Progress, projection: Any, lacking: Callable[[], str], ended: threading.Event
) -> None:
    """Follow the newest attempt's heartbeat; where it has gone quiet, say what the cluster is `lacking`."""
    sequence = attempt = first = 0
    said = timed = waiting = ""
    looked = time.monotonic()
    while not ended.wait(POLL_S):
        try:
            sequence = sequence or log.last_sequence()
            for entry in log.entries(after=sequence):
                sequence = entry["sequence"]
                attempt = entry["attempt"] if entry["kind"] == "attempt" else attempt
                if entry["kind"] == "outlook":
                    progress.tell(sentence(entry))
                for one in entry.get("skipped", ()):
                    progress.tell(f"checkpoint of step {one['step']} left out: {one['why']}")
                if entry["kind"] == "attempt" and entry["from_step"]:
                    written_by = entry["checkpoint"]["place"].split("/")[-2]
                    progress.tell(f"going on from step {entry['from_step']} of attempt {written_by}")
            beat = log.heartbeat(attempt) if attempt else None
        except SlipwayError as error:
            progress.say(f"the store is away, training goes on ({error})")
            continue
        quiet = not beat or time.time() - beat["time"] > QUIET_S
        if quiet and time.monotonic() - looked > QUIET_S:  # a node was lost: Ray waits for another, without a word
            looked = time.monotonic()
            if (found := lacking()) and found != waiting:
                progress.tell(f"waiting for Ray: {found}")
            waiting = found
        if beat and beat.get("trouble", said) != said:
            progress.say(said := beat["trouble"])
        if beat and beat.get("step"):
            first = first or beat["step"]
            if not timed and beat.get("rate") and beat["step"] - first >= TIMED_STEPS:
                timed = duration((beat["num_steps"] - beat["step"]) / beat["rate"])
                progress.tell(f"about {timed} more at {beat['rate']:.3g} steps a second")
            problem = f"  MLflow is away ({projection.problem})" if projection.problem else ""
            note = beat.get("note") or f"loss {beat['loss']:.3f}"
            progress.update(beat["step"], beat["num_steps"], note + problem)
