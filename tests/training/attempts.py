"""A run on example data, its attempts as plain processes: what a Ray worker does, without Ray."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra import artifacts
from infra.store import Store, open_store
from tests.training.examples import open_recipe
from training.experiment import validate_experiment
from training.run_log import RunLog, RunState, read_tail

ROOT = str(Path(__file__).parents[2])
RUN = "example-0123456789ab-1"


def make_run(store: Store, folder: Path, steps: int = 40, recipe: str = "text_classifier", **training: Any) -> dict:
    """The configuration of a worker, its data prepared; the run has its first entry."""
    opened = open_recipe(recipe, folder / "prepared")
    prepared = artifacts.commit_folder(store, "prepared", folder / "prepared")
    body = {
        "name": "example",
        "recipe": recipe,
        "dataset": "example",
        "settings": opened.settings.model_dump(mode="json"),
        "training": {"steps": steps, "batch_size": 8, "learning_rate": 1e-3, **training},
    }
    experiment = validate_experiment(body, "experiment").model_dump(mode="json", by_alias=True)
    RunLog(store, RUN).append("run", experiment=experiment, key="0" * 64, author="ada")
    return {
        "store": store.uri,
        "run": RUN,
        "driver": "",
        "over": 0,
        "ledger": str(folder / "ledger"),
        "country": "",
        "experiment": experiment,
        "prepared": prepared.digest,
        "sources": {},
    }


def attempt(config: dict[str, Any], **changes: Any) -> multiprocessing.process.BaseProcess:
    """Start the next attempt in a process of its own."""
    over = read_tail(RunLog(open_store(config["store"]), RUN)).attempt
    config = {**config, "over": over, "driver": f"driver {over + 1}", **changes}
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(config,))
    sys.path.insert(0, ROOT)  # the child takes this path over, and finds `tests` on it
    try:
        process.start()
    finally:
        sys.path.remove(ROOT)
    return process


def state_of(config: dict[str, Any]) -> RunState:
    return read_tail(RunLog(open_store(config["store"]), RUN))


def wait_for(condition: Callable[[], Any], process: Any = None, seconds: float = 120) -> Any:
    """The first true answer of `condition`; an error when the process ends before, or time passes."""
    import time

    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert process is None or process.is_alive(), f"it ended with {process.exitcode}"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def kill(process: Any) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def work_as_one_of_several(world: Any, config: dict[str, Any]) -> None:
    from training.worker import work_in

    work_in({**config, "driver": "driver 1"}, world)


def work_until_one_is_out_of_memory(world: Any, config: dict[str, Any]) -> None:
    from training.feed import Feed

    whole = Feed.batch

    def batch(self: Feed, split: str, index: Any, keys: Any) -> Any:
        if world.rank == 1:
            raise MemoryError
        return whole(self, split, index, keys)

    Feed.batch = batch  # type: ignore[method-assign]
    work_as_one_of_several(world, config)


def _work(config: dict[str, Any]) -> None:
    import torch

    from training.sharding import World
    from training.worker import work_in

    torch.set_num_threads(1)
    work_in(config, World())
    sys.stdout.flush()
