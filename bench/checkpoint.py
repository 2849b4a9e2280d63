"""How long a checkpoint keeps the training waiting, beside `torch.save` of the same state.

    python bench/checkpoint.py [MEGABYTES]       default 150: weights, and AdamW's two moments of each

The arms take turns in one process, each begun when the other's files are whole. `torch.save` leaves its bytes to the
operating system; Slipway hashes, writes and syncs them in its thread, while the training goes on. Both must give the
state back to the bit. Goal: at most a quarter of torch.save's wait.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from arms import Weighed, report

from infra.store import FolderStore
from training.checkpoint import Checkpoints, load_checkpoint
from training.pieces import named_tensors
from training.sharding import World
from training.state import TrainState
from training.task import Batch, Task

GOAL = 0.25
ROUNDS = 12
WIDTH = 512


class Matrices(Task):
    def __init__(self, number: int):
        super().__init__()
        self.layers = torch.nn.ParameterList([torch.randn(WIDTH, WIDTH) for _ in range(number)])

    def forward(self, batch: Batch, phase: str = "all") -> dict[str, torch.Tensor]:
        return {"loss": torch.stack([layer.square().sum() for layer in self.layers]).sum()}

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"loss": 1.0}

    def initial_losses(self) -> dict[str, float]:
        return {}


def make(megabytes: float, seed: int) -> TrainState:
    torch.manual_seed(seed)
    task = Matrices(max(1, round(megabytes * 1e6 / (3 * 4 * WIDTH**2))))
    optimizer = torch.optim.AdamW(task.parameters(), fused=True)
    task({})["loss"].backward()
    optimizer.step()
    optimizer.zero_grad()
    return TrainState(task, {"all": optimizer})


class Arms:
    """Both ways to save one state, and to read it back."""

    def __init__(self, state: TrainState, folder: Path):
        self.state, self.file, self.store = state, folder / "state.pt", FolderStore(folder / "store")
        self.entries: list[dict[str, Any]] = []
        self.checkpoints = Checkpoints(self.store, "run", 1, World(), keep=1, record=self.entries.append)

    def torch_save(self) -> None:
        weights = {"task": self.state.task.state_dict(), "optimizer": self.state.optimizers["all"].state_dict()}
        torch.save(weights, self.file)

    def slipway(self) -> None:
        self.checkpoints.save(len(self.entries) + 1, self.state)

    def finish(self) -> None:
        """Outside the measured time: what the loop does while it trains on."""
        self.checkpoints.wait()
        self.checkpoints.heard(*self.checkpoints.written())
        self.checkpoints.wait()

    def read(self, name: str, into: TrainState) -> None:
        if name == "slipway":
            load_checkpoint(self.store, self.entries[-1], into)
            return
        found = torch.load(self.file, weights_only=True)
        into.task.load_state_dict(found["task"])
        into.optimizers["all"].load_state_dict(found["optimizer"])


def measure(megabytes: float, rounds: int) -> tuple[dict[str, list[tuple[float, float]]], bool]:
    """Arm -> (seconds, the thread's CPU-seconds) of each round; whether each gave back the state to the bit."""
    state = make(megabytes, seed=0)
    taken: dict[str, list[tuple[float, float]]] = {"torch_save": [], "slipway": []}
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as name:
        arms = Arms(state, Path(name))
        for _ in range(rounds + 1):
            for arm, times in taken.items():
                clock, cpu = time.perf_counter(), time.thread_time()
                getattr(arms, arm)()
                times.append((time.perf_counter() - clock, time.thread_time() - cpu))
                arms.finish()
        equal = all(_same(state, arms, arm, megabytes) for arm in taken)
    return {arm: times[1:] for arm, times in taken.items()}, equal  # the first round makes the buffers


def _same(state: TrainState, arms: Arms, arm: str, megabytes: float) -> bool:
    found = make(megabytes, seed=1)
    arms.read(arm, found)
    wanted, got = named_tensors(state), named_tensors(found)
    return wanted.keys() == got.keys() and all(torch.equal(got[name], value) for name, value in wanted.items())


def main() -> None:
    megabytes = float(sys.argv[1]) if sys.argv[1:] else 150.0
    taken, equal = measure(megabytes, ROUNDS)
    arms, medians = {}, {}
    print(f"{'':12}{'waits, median s':>17}{'least s':>10}{'most s':>9}{'CPU s of it':>13}")
    for name, times in taken.items():
        clock, cpu = [one for one, _ in times], [one for _, one in times]
        arms[name], medians[name] = Weighed(cpu_seconds=min(cpu), seconds=min(clock)), statistics.median(clock)
        print(f"{name:12}{medians[name]:17.4f}{min(clock):10.4f}{max(clock):9.4f}{statistics.median(cpu):13.4f}")
    ratio = medians["slipway"] / medians["torch_save"]
    print(f"{megabytes:.0f} MB: the training waits {ratio:.2f} times as long (goal: at most {GOAL})")
    rounds = {name: [one for one, _ in times] for name, times in taken.items()}
    report(
        "checkpoint", arms, equal, megabytes=megabytes, ratio=ratio, goal=GOAL, median_seconds=medians, rounds=rounds
    )


if __name__ == "__main__":
    main()
