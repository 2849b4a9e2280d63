"""The kinds of model that the loop holds without a branch of its own, each as small as it can be."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from infra.errors import WrongInput
from tests.training.observers import Silent
from training import loop
from training.experiment import Training
from training.recipe import RecipeSettings
from training.task import Batch, ModelFiles, Phase, Recipe, Task

CONFIG = Training(steps=20, batch_size=8, learning_rate=0.05, warmup=0, schedule="constant", weight_decay=0)


class Numbers(Recipe):
    """Samples are numbers from 0 to 1; the task is given by the test."""

    def __init__(self, make: Callable[[], Task]):
        super().__init__(RecipeSettings(), {})
        self.make = make
        self.refreshed: list[int] = []

    def prepare(self, splits: Any, contract: Any, folder: Path, say: Callable[[str], None]) -> None: ...

    def open(self, folder: Path) -> None: ...

    def num_samples(self, split: str) -> int:
        return 40

    def batch(self, split: str, index: np.ndarray, keys: Any) -> Batch:
        return {"x": torch.from_numpy(index / 40).float()}

    def build(self) -> Task:
        return self.make()

    def refresh(self, task: Task, epoch: int) -> None:
        self.refreshed.append(epoch)

    def save(self, task: Task, folder: Path) -> ModelFiles:
        raise AssertionError


class Shift(Task):
    """Learns the mean of its samples."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(1))

    def forward(self, batch: Batch, phase: str = "all") -> dict[str, torch.Tensor]:
        return {"loss": ((batch["x"] - self.shift) ** 2).sum()}

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"loss": len(batch["x"])}

    def initial_losses(self) -> dict[str, float]:
        return {"loss": 1 / 3}


def run(make: Callable[[], Task], **changes: Any) -> tuple[Any, Silent, Numbers]:
    recipe, observer = Numbers(make), Silent()
    task, whole = loop.train(recipe, CONFIG.model_copy(update=changes), loop.World(), observer)
    assert whole
    return task, observer, recipe


def test_micro_batches_change_nothing() -> None:
    whole, parts = (run(Shift, micro_batch_size=size)[1] for size in (None, 3))
    for step, values in whole.points.items():
        assert parts.points[step] == pytest.approx(values, rel=1e-5)


def test_phases_move_their_own_parameters_in_their_own_span() -> None:
    class Pair(Task):
        phases = (
            Phase(name="first", owns=lambda name: name == "a", span=(0.0, 0.5)),
            Phase(name="second", owns=lambda name: name == "b", span=(0.25, 1.0), learning_rate_scale=0.5),
        )

        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Parameter(torch.zeros(1))
            self.b = torch.nn.Parameter(torch.zeros(1))
            self.seen: list[tuple[int, str, float, float]] = []
            self.step = 0

        def before_step(self, step: int, num_steps: int) -> None:
            self.step = step

        def forward(self, batch: Batch, phase: str = "all") -> dict[str, torch.Tensor]:
            if self.training:
                self.seen.append((self.step, phase, self.a.item(), self.b.item()))
            return {"loss": ((batch["x"] - self.a - self.b) ** 2).sum()}

        def counts(self, batch: Batch) -> dict[str, float]:
            return {"loss": len(batch["x"])}

        def initial_losses(self) -> dict[str, float]:
            return {}

    task, _, _ = run(Pair)
    phases = [[name for step, name, _, _ in task.seen if step == wanted] for wanted in range(20)]
    assert phases == [["first"]] * 5 + [["first", "second"]] * 5 + [["second"]] * 10
    a = [a for step, name, a, _ in task.seen if name == "second" and step >= 10]
    assert len(set(a)) == 1 and a[0] != 0, "a rests once its span is over"
    assert all(b == 0 for step, _, _, b in task.seen if step < 5), "b rests before its span"


def test_state_outside_the_gradient_follows_each_step_and_is_kept() -> None:
    class Averaged(Shift):
        def __init__(self) -> None:
            super().__init__()
            self.average: torch.Tensor
            self.register_buffer("average", torch.zeros(1))

        def after_step(self, step: int, reduce: Callable[[torch.Tensor], torch.Tensor]) -> None:
            self.average.mul_(0.9).add_(0.1 * reduce(self.shift.detach().clone()))

    task, _, _ = run(Averaged)
    assert 0 < task.average.item() < task.shift.item()
    assert "average" in task.state_dict()


def test_a_value_that_depends_on_the_step_is_set_before_it() -> None:
    class Annealed(Shift):
        temperature = 1.0

        def before_step(self, step: int, num_steps: int) -> None:
            self.temperature = 1 - step / num_steps

        def forward(self, batch: Batch, phase: str = "all") -> dict[str, torch.Tensor]:
            return {"loss": torch.full((), self.temperature * len(batch["x"])) + 0 * self.shift.sum()}

    _, observer, _ = run(Annealed)
    assert [round(observer.points[step]["loss"], 6) for step in (1, 11, 20)] == [1.0, 0.5, 0.05]


def test_a_frozen_part_stays() -> None:
    class Frozen(Shift):
        def __init__(self) -> None:
            super().__init__()
            self.teacher = torch.nn.Linear(1, 1).requires_grad_(False)

    torch.manual_seed(0)
    task, _, _ = run(Frozen, weight_decay=1.0)
    torch.manual_seed(loop.stream_seed(0, "initial weights"))
    assert torch.equal(task.teacher.weight, Frozen().teacher.weight)


def test_losses_are_weighted_means_over_their_own_counts() -> None:
    class Two(Shift):
        def forward(self, batch: Batch, phase: str = "all") -> dict[str, torch.Tensor]:
            big = batch["x"] > 0.5
            return {"all": (batch["x"] + 0 * self.shift).sum(), "big": (batch["x"][big] * self.shift).sum()}

        def counts(self, batch: Batch) -> dict[str, float]:
            return {"all": len(batch["x"]), "big": int((batch["x"] > 0.5).sum())}

        def loss_weight(self, name: str) -> float:
            return {"all": 1.0, "big": -2.0}[name]

    task, _, _ = run(Two, steps=1, batch_size=40, optimizer="sgd", learning_rate=1.0, clip_norm=None)
    numbers = np.arange(40) / 40
    assert task.shift.item() == pytest.approx(2.0 * numbers[numbers > 0.5].mean(), rel=1e-5)


def test_a_loss_that_does_not_sum_over_samples_refuses_to_be_split() -> None:
    class Contrastive(Shift):
        additive = False

    run(Contrastive)
    with pytest.raises(WrongInput, match="micro_batch_size"):
        run(Contrastive, micro_batch_size=3)


def test_data_may_be_chosen_before_each_epoch() -> None:
    _, _, recipe = run(Shift)
    assert recipe.refreshed == [0, 1, 2, 3]


def test_a_loss_that_is_not_finite_stops_the_run_with_its_step() -> None:
    class Breaks(Shift):
        def before_step(self, step: int, num_steps: int) -> None:
            self.factor = math.nan if step == 4 else 1.0

        def forward(self, batch: Batch, phase: str = "all") -> dict[str, torch.Tensor]:
            return {"loss": ((batch["x"] - self.shift) ** 2).sum() * self.factor}

    with pytest.raises(loop.Diverged, match="step 5"):
        run(Breaks)


@pytest.mark.parametrize(
    ("schedule", "final", "end"), [("linear", 0, 0), ("cosine", 0, 0), ("constant", 0, 1), ("linear", 0.3, 0.3),
                                   ("cosine", 0.3, 0.3)],
)  # fmt: skip
def test_the_learning_rate_rises_and_falls_as_scheduled(schedule: str, final: float, end: float) -> None:
    config = Training(steps=100, learning_rate=1.0, final_learning_rate=final, warmup=0.1, schedule=schedule)
    rates = [loop.learning_rate(config, step, 100) for step in range(101)]
    assert rates[0] == 0.1 and rates[9] == rates[10] == 1.0
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(end)


def test_each_step_moves_by_the_scheduled_rate() -> None:
    """Plain gradient descent on a mean: step k moves by rate_k x 2 (mean of the batch - shift)."""

    class Traced(Shift):
        def __init__(self) -> None:
            super().__init__()
            self.trace: list[tuple[float, float]] = []

        def forward(self, batch: Batch, phase: str = "all") -> dict[str, torch.Tensor]:
            if self.training:
                self.trace.append((self.shift.item(), batch["x"].mean().item()))
            return super().forward(batch, phase)

    changes = {"steps": 10, "warmup": 0.4, "schedule": "linear", "optimizer": "sgd", "betas": (0.0, 0.9)}
    task, _, _ = run(Traced, clip_norm=None, **changes)
    after = [shift for shift, _ in task.trace[1:]] + [task.shift.item()]
    moved = [(new - shift) / (2 * (mean - shift)) for (shift, mean), new in zip(task.trace, after, strict=True)]
    config = CONFIG.model_copy(update=changes)
    assert moved == pytest.approx([loop.learning_rate(config, step, 10) for step in range(10)], rel=1e-4)
