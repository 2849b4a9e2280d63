"""A process that saves checkpoints until it is killed, many times over: python saves_until_killed.py FOLDER KILLS SEED.

Each life takes up the newest whole checkpoint, asserts that it is the newest of the log and holds its step's numbers,
and goes on saving. Prints one JSON line a life: the step found, how many checkpoints were begun before, what was
skipped. Forked and not started anew: what takes seconds is the import of torch.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from infra.store import FolderStore
from training.checkpoint import Checkpoints, load_checkpoint, newest_whole
from training.sharding import World
from training.state import TrainState
from training.task import Batch, Task

PARTS = 4


class Numbers(Task):
    def __init__(self) -> None:
        super().__init__()
        self.parts = torch.nn.ParameterList([torch.zeros(30_000) for _ in range(PARTS)])

    def forward(self, batch: Batch, phase: str = "all") -> dict[str, torch.Tensor]:
        raise AssertionError

    def counts(self, batch: Batch) -> dict[str, float]:
        raise AssertionError

    def initial_losses(self) -> dict[str, float]:
        raise AssertionError


def new_state() -> TrainState:
    return TrainState(Numbers(), {})


def change(state: TrainState, step: int) -> None:
    with torch.no_grad():
        for number, value in enumerate(state.task.parameters()):
            value.fill_(step + number / PARTS)


def entries(store: FolderStore) -> list[dict[str, Any]]:
    return [json.loads(store.get(key)) for key in store.list("log/")]


def live(store: FolderStore, attempt: int) -> None:
    state = new_state()
    before = entries(store)
    step = before[-1]["step"] if before else 0

    def record(facts: dict[str, Any]) -> None:
        assert store.create(f"log/{len(entries(store)):06d}.json", json.dumps(facts).encode())

    checkpoints = Checkpoints(store, "run", attempt, World(), keep=2, record=record)
    while True:
        step += 1
        change(state, step)
        checkpoints.save(step, state)
        change(state, -1)  # the training goes on
        checkpoints.wait()
        checkpoints.heard(*checkpoints.written())
        checkpoints.wait()


def look(store: FolderStore) -> dict[str, Any]:
    known = entries(store)
    entry, skipped = newest_whole(store, known)
    if entry is None:
        assert known == []
        return {"step": 0, "skipped": skipped}
    state = new_state()
    step = load_checkpoint(store, entry, state)
    assert step == known[-1]["step"], f"step {known[-1]['step']} is in the log, {step} was loaded"
    for number, value in enumerate(state.task.parameters()):
        assert bool((value == step + number / PARTS).all()), f"step {step} holds another step's numbers"
    return {"step": step, "skipped": skipped}


def main(folder: Path, kills: int, seed: int) -> None:
    torch.set_num_threads(1)  # threads do not survive the fork
    rng = random.Random(seed)
    store = FolderStore(folder)
    for attempt in range(1, kills + 1):
        child = os.fork()
        if child == 0:
            try:
                live(store, attempt)
            finally:
                traceback.print_exc()
                os._exit(1)
        time.sleep(0.02 + rng.expovariate(20))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, "it died of something else"
        found = look(store)
        # What was begun and is not whole: this attempt's folders that no entry names.
        named = {entry["place"] for entry in entries(store)}
        begun = {key.rpartition("/")[0] for key in store.list(f"runs/run/checkpoints/{attempt}/")}
        print(json.dumps({"attempt": attempt, **found, "partial": len(begun - named)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
