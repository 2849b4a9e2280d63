"""One Ray Train worker: joins the others, takes up the run where its log says it stands, trains, writes the model.

Rank 0 alone writes to the run log, under the number of its attempt.
"""

import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from infra import artifacts
from infra.errors import SlipwayError, WrongInput
from infra.patience import patiently
from infra.store import open_store
from training.experiment import Experiment, validate_experiment
from training.recipe import load_recipe, source_folders
from training.run_log import AttemptLog, Overtaken, RunLog, begin_attempt, read_tail

PEER_FAILURE_S = 10.0
"""How long a worker that lost the others looks for what one of them may have had to say."""


def work(config: dict[str, Any]) -> None:
    """The function Ray Train runs in every worker. config: see `training.launch.Request.for_worker`."""
    import ray.train
    import ray.train.torch

    from training.sharding import World

    context = ray.train.get_context()
    sharding = config["experiment"]["scaling"]["sharding"]
    world = World(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device(), sharding)
    work_in(config, world, node=context.get_node_rank() if context.get_local_rank() == 0 else None)


def work_in(config: dict[str, Any], world: Any, node: int | None = None) -> None:
    """`work` in any process group. node: this machine's number, on the one worker that measures its energy."""
    import torch.distributed as dist

    log = RunLog(open_store(config["store"]), config["run"])
    experiment = validate_experiment(config["experiment"], "experiment")
    try:
        _train(config, experiment, world, log, node)
    except Overtaken:
        pass  # the driver reads in the log who has the run now, and says so
    except Exception as error:
        # Where it is the user's to mend, trying again would end the same way: the worker ends well and the log tells.
        said = _said_of(error, experiment, world.size)
        if said is None and not _a_peer_failed(log, config):
            raise
        if said is not None and not _record_failure(log, config["driver"], said):
            raise  # this node does not reach the store: Ray tells the driver
        if world.size > 1 and not _all_have_ended(world):
            raise  # the others wait for this worker as long as its process is there: Ray has to end them
        return
    if world.size > 1 and dist.is_initialized():
        dist.barrier()  # a worker that leaves while another still sends makes that one abort


def _train(config: dict[str, Any], experiment: Experiment, world: Any, log: RunLog, node: int | None) -> None:
    from training import checkpoint, loop
    from training.energy import NodeEnergy, spent
    from training.feed import Feed, Ledger
    from training.outlook import outlook
    from training.recorder import Recorder
    from training.sharding import whole as gather
    from training.state import TrainState

    store, training = log.store, experiment.training
    recipe = load_recipe(experiment.recipe).Recipe(experiment.recipe_settings, source_folders(store, config["sources"]))
    recipe.open(artifacts.fetch(store, artifacts.load(store, "prepared", config["prepared"])))
    num_steps = training.num_steps(recipe.num_samples("train"))

    writer: AttemptLog | None = None
    begun: list[Any] = [None]
    if world.rank == 0 and (mine := _begin_attempt(log, config, world.size)):
        writer, entry = mine
        begun = [(writer.attempt, entry)]
    if world.size > 1:
        import torch.distributed as dist

        dist.broadcast_object_list(begun, src=0)
    if begun[0] is None:
        return
    attempt, entry = begun[0]
    first = entry["step"] if entry else 0

    feed: Any = Feed(recipe)
    if config["ledger"]:
        feed.ledger = Ledger(config["ledger"], log.run, attempt, world.rank, world.size, training.batch_size, first)
    energy = None if node is None else NodeEnergy(store, log.run, attempt, node, config["country"])

    def restore(state: TrainState) -> int:
        done = checkpoint.load_checkpoint(store, entry, state) if entry else 0
        recorder.announce(outlook(recipe, state.task, training, world))
        return done

    with Recorder(log, attempt, world, training, num_steps, first, writer=writer, feed=feed, energy=energy) as recorder:
        task, whole = loop.train(feed, training, world, recorder, restore)
        if recorder.overtaken:
            raise recorder.overtaken
        final = {}
        # Where an evaluation follows, it alone reads the test split, once.
        if whole and recipe.num_samples("test") and not recipe.settings.evaluates:
            final = loop.validate(recipe, task, "test", training, world)
        task = gather(task, recipe.build, world) if whole else task
        if world.rank != 0:
            return
        if not whole:
            recorder.end("stopped", reason=recorder.stop_reason)
            return
        recorder.say("saving the model")
        with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
            files = recipe.save(task, Path(scratch))
            model = patiently(
                lambda: artifacts.commit_folder(store, "models", Path(scratch), {"files": asdict(files)}), recorder.say
            )
        steps = recorder.saved_step  # fewer than planned where it stopped early
        facts = {"test": final, "parameters": sum(value.numel() for value in task.parameters()), "steps": steps}
        facts["figures"] = dict(files.figures)
        if energy:
            energy.__exit__()  # what it counted last belongs to the run's figure
        recorder.end("finished", model=model.digest, **facts, **patiently(lambda: spent(store, log.run), recorder.say))


def _begin_attempt(
    log: RunLog, config: dict[str, Any], workers: int
) -> tuple[AttemptLog, dict[str, Any] | None] | None:
    """This attempt's writer, and the entry of the checkpoint it goes on from. None where it may not begin: the run has
    been taken over, or has failed for good and Ray tries again only because it had to end the other workers."""
    from training.checkpoint import newest_whole

    state = read_tail(log)
    if state.status == "failed" and state.attempt_entry.get("driver") == config["driver"]:
        return None
    entry, skipped = newest_whole(log.store, state.checkpoints)
    with suppress(Overtaken):
        writer = begin_attempt(
            log,
            state,
            config["over"],
            config["driver"],
            workers=workers,
            from_step=entry["step"] if entry else 0,
            checkpoint=entry and {key: entry[key] for key in ("step", "place", "digest")},
            skipped=skipped,
        )
        return writer, entry
    return None


def less_memory(experiment: Experiment, workers: int) -> str:
    """Which settings to lower, with their values."""
    training = experiment.training
    share = -(-training.batch_size // workers)
    advice = [f"training.micro_batch_size (now {min(training.micro_batch_size or share, share)} samples at once)"]
    if "max_length" in experiment.settings:
        advice.append(f"settings.max_length (now {experiment.settings['max_length']})")
    more = "" if experiment.scaling.sharding == "fsdp" else "; scaling.sharding: fsdp shares the model between workers"
    return f"lower {' or '.join(advice)}{more}"


def _said_of(error: Exception, experiment: Experiment, workers: int) -> SlipwayError | None:
    """What a user is told of it; None for what may go better the next time."""
    import torch

    from training.loop import Diverged

    if isinstance(error, SlipwayError):
        return error
    if isinstance(error, Diverged):
        return SlipwayError(str(error))
    full = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    return WrongInput(f"a worker ran out of memory; {less_memory(experiment, workers)}") if full else None


def _all_have_ended(world: Any) -> bool:
    """Whether all workers fail, and not this one alone."""
    import torch.distributed as dist

    store = dist.distributed_c10d._get_default_store()
    store.set(f"slipway/failed/{world.rank}", "")
    with suppress(dist.DistError):
        store.wait([f"slipway/failed/{rank}" for rank in range(world.size)], timedelta(seconds=PEER_FAILURE_S))
        return True
    return False


def _record_failure(log: RunLog, driver: str, said: SlipwayError) -> bool:
    """Whichever worker fails first says so. Returns whether the store could be asked."""
    with suppress(SlipwayError):
        state = read_tail(log)
        if state.attempt_entry.get("driver") == driver and state.status == "running":
            writer = AttemptLog(log, state, state.attempt)
            writer.append("failed", message=str(said), exit_code=said.exit_code)
        return True
    return False


def _a_peer_failed(log: RunLog, config: dict[str, Any]) -> bool:
    """Whether the log has the reason why the others are gone: one of them failed, or the run was taken over."""
    deadline = time.monotonic() + PEER_FAILURE_S
    while time.monotonic() < deadline:
        with suppress(SlipwayError):
            state = read_tail(log)
            ours = state.attempt_entry.get("driver") == config["driver"]
            if (ours and state.status == "failed") or (not ours and state.attempt > config["over"]):
                return True
        time.sleep(0.5)
    return False
