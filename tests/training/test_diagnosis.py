"""Planted faults are named, a healthy run draws no word, and looking changes no bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.examples import open_recipe
from tests.training.gloo_group import GlooGroup
from tests.training.observers import Silent
from training import loop
from training.experiment import Training
from training.recipe import RecipeSettings, recipe_names, settings_class
from training.task import Batch, ModelFiles, Recipe, Task

WIDTH, ROWS = 16, 64


class Telling(Silent):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int, str]] = []

    def finding(self, step: int, sentence: str) -> None:
        self.told.append((step, sentence))

    def kinds(self) -> set[str]:
        words = {"learning rate is too high": "learning rate", "vanishes": "vanishing", "explodes": "exploding",
                 "saturated": "saturated", "are dead": "dead"}  # fmt: skip
        return {kind for _, sentence in self.told for word, kind in words.items() if word in sentence}


class Regression(Task):
    """A stack of layers that learns a fixed linear map."""

    def __init__(self, *layers: torch.nn.Module):
        super().__init__()
        self.layers = torch.nn.Sequential(*layers)
        self.head = torch.nn.Linear(WIDTH, 1)

    def forward(self, batch: Batch, phase: str = "all") -> dict[str, torch.Tensor]:
        return {"loss": ((self.head(self.layers(batch["x"]))[:, 0] - batch["y"]) ** 2).sum()}

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"loss": len(batch["x"])}

    def initial_losses(self) -> dict[str, float]:
        return {}


class Vectors(Recipe):
    """Rows of numbers, one of them poisoned where the test says so."""

    def __init__(self, make: Any, poisoned: int | None = None):
        super().__init__(RecipeSettings(), {})
        self.make = make
        generator = torch.Generator().manual_seed(3)
        self.x = torch.randn(ROWS, WIDTH, generator=generator)
        self.y = self.x @ torch.randn(WIDTH, generator=generator) / 4
        if poisoned is not None:
            self.x[poisoned, 5] = torch.nan

    def prepare(self, *_: Any) -> None: ...

    def open(self, folder: Path) -> None: ...

    def num_samples(self, split: str) -> int:
        return ROWS if split == "train" else 4

    def batch(self, split: str, index: np.ndarray, keys: Any) -> Batch:
        return {"x": self.x[index], "y": self.y[index]}

    def row_ids(self, split: str, index: np.ndarray) -> list[str]:
        return [f"row-{number}" for number in index]

    def build(self) -> Task:
        return self.make()

    def save(self, task: Task, folder: Path) -> ModelFiles:
        raise AssertionError


def stack(depth: int, activation: type[torch.nn.Module], norm: bool = True, scale: float = 1.0) -> Regression:
    layers = []
    for _ in range(depth):
        linear = torch.nn.Linear(WIDTH, WIDTH)
        with torch.no_grad():
            linear.weight.mul_(scale)
        layers.append(torch.nn.Sequential(linear, activation(), *([torch.nn.LayerNorm(WIDTH)] if norm else [])))
    return Regression(*layers)


def dead_relu() -> Regression:
    task = stack(3, torch.nn.ReLU)
    with torch.no_grad():
        task.get_parameter("layers.1.0.bias").fill_(-50.0)
    return task


def run(make: Any, poisoned: int | None = None, **changes: Any) -> Telling:
    told = Telling()
    config = Training(**{"steps": 24, "batch_size": 32, "learning_rate": 1e-3, "validate_every": 1e9, **changes})
    loop.train(Vectors(make, poisoned), config, loop.World(), told)
    return told


def healthy() -> Regression:
    return stack(6, torch.nn.GELU)


def test_a_healthy_run_draws_no_word() -> None:
    assert run(healthy, steps=80).told == []
    assert run(lambda: stack(4, torch.nn.ReLU), steps=80).told == []
    assert run(lambda: stack(2, torch.nn.Tanh, norm=False), steps=80).told == []


@pytest.mark.parametrize("name", [name for name in recipe_names() if settings_class(name).trains])
def test_the_shipped_recipes_draw_no_word(name: str, tmp_path: Path) -> None:
    told = Telling()
    config = Training(steps=40, batch_size=16, learning_rate=1e-3, validate_every=1e9)
    loop.train(open_recipe(name, tmp_path), config, loop.World(), told)
    assert told.told == []
    assert any(key.startswith("layer/") for key in told.points[1])


@pytest.mark.parametrize(
    ("make", "changes", "kind", "named"),
    [
        (healthy, {"learning_rate": 1.0, "warmup": 0.0}, "learning rate", "lower training.learning_rate"),
        (healthy, {"learning_rate": 1.0}, "learning rate", "lower training.learning_rate"),
        (lambda: stack(30, torch.nn.Tanh, norm=False, scale=0.8), {}, "vanishing", "near the output"),
        (lambda: stack(30, torch.nn.Identity, norm=False, scale=3.0), {}, "exploding", "times that of the weights"),
        (lambda: stack(3, torch.nn.Sigmoid, norm=False, scale=400.0), {}, "saturated", "layer 'layers.0.1'"),
        (dead_relu, {}, "dead", "units of layer 'layers.1.1' are dead"),
    ],
    ids=["rate x1000", "rate x1000 with warm-up", "depth without norm", "large weights at depth", "sigmoid", "relu"],
)
def test_a_planted_fault_is_named(make: Any, changes: dict[str, Any], kind: str, named: str) -> None:
    told = run(make, **changes)
    assert kind in told.kinds(), told.told
    assert any(named in sentence for _, sentence in told.told), told.told
    assert len({sentence for _, sentence in told.told}) == len(told.told), "each finding is said once"
    assert not any("\n" in sentence for _, sentence in told.told)


def test_looking_changes_no_bit() -> None:
    weights, points = [], []
    for every in (None, 1):
        told, config = Telling(), Training(steps=12, batch_size=32, diagnose_every=every, micro_batch_size=8)
        task, _ = loop.train(Vectors(healthy), config, loop.World(), told)
        weights.append(task.state_dict())
        points.append({step: {key: value for key, value in values.items() if not key.startswith("layer/")}
                       for step, values in told.points.items()})  # fmt: skip
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert points[0] == points[1]


def test_looks_are_rare_and_their_metrics_bounded() -> None:
    told = run(lambda: stack(40, torch.nn.GELU), steps=60, diagnose_every=50)
    looked = [step for step, values in told.points.items() if any(key.startswith("layer/") for key in values)]
    assert looked == [1, 2, 4, 8, 16, 32, 50]
    names = {key for key in told.points[50] if key.startswith("layer/")}
    assert len(names) == 48 and {"layer/layers.0.0/gradient_norm", "layer/head/update_ratio"} <= names


def test_what_is_measured_of_a_layer() -> None:
    """Plain gradient descent: the update is the rate times the gradient."""
    told = run(lambda: Regression(torch.nn.Linear(WIDTH, WIDTH)), steps=1, optimizer="sgd", betas=(0.0, 0.9),
               clip_norm=None, weight_decay=0, warmup=0, schedule="constant", learning_rate=0.5)  # fmt: skip
    values = told.points[1]
    layers = [values[f"layer/{name}/gradient_norm"] for name in ("layers.0", "head")]
    assert sum(one**2 for one in layers) ** 0.5 == pytest.approx(values["gradient_norm"], rel=1e-5)
    torch.manual_seed(loop.stream_seed(0, "initial weights"))
    task = Regression(torch.nn.Linear(WIDTH, WIDTH))
    weights = torch.cat([value.detach().flatten() for value in task.head.parameters()]).norm()
    assert values["layer/head/update_ratio"] == pytest.approx(0.5 * layers[1] / float(weights), rel=0.5)


def test_a_poisoned_row_is_named_with_the_step_and_the_layer() -> None:
    with pytest.raises(loop.Diverged) as caught:
        run(healthy, poisoned=37, steps=4, batch_size=16)
    order = loop.SampleOrder(loop.stream_seed(0, "samples"), ROWS)
    step = int(np.flatnonzero(order.at(np.arange(ROWS))[1] == 37)[0]) // 16 + 1
    assert str(caught.value).startswith(f"step {step}: ")
    assert caught.value.rows == ("row-37",)
    assert "the batch's 'x'" in caught.value.layer and "layer 'layers.0.0'" in caught.value.layer
    assert "row-37 of the batch's 16 rows" in str(caught.value)


class Breaks(torch.nn.Module):
    """Right for three steps of training, and then not."""

    def __init__(self, backward: bool):
        super().__init__()
        self.backward_only, self.calls = backward, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        if self.calls <= 3:
            return x
        # 0 x sqrt(0): right forwards, and its gradient is 0 x infinity.
        return x + 0 * (x - x.detach()).sqrt() if self.backward_only else x / 0


@pytest.mark.parametrize(
    ("backward", "layer"), [(False, "layer 'layers.2'"), (True, "the gradient of 'layers.1.2.bias'")]
)
def test_the_layer_where_it_began_is_named(backward: bool, layer: str) -> None:
    told = Telling()

    def make() -> Regression:
        first, second = (list(healthy().layers.children())[:2] for _ in range(2))
        return Regression(*first, Breaks(backward), *second)

    with pytest.raises(loop.Diverged, match="step 4") as caught:
        loop.train(Vectors(make), Training(steps=9, batch_size=32, validate_every=1e9), loop.World(), told)
    assert caught.value.layer == layer
    assert len(caught.value.rows) == 32, "no row is at fault: all of the batch are named"
    assert told.told[-1] == (4, str(caught.value))


def diverge(world: loop.World) -> tuple[str, tuple[str, ...], str]:
    recipe = Vectors(healthy, poisoned=37)
    with pytest.raises(loop.Diverged) as caught:
        loop.train(recipe, Training(steps=8, batch_size=16, validate_every=1e9), world, Silent())
    return str(caught.value), caught.value.rows, caught.value.layer


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_workers_agree_on_what_one_of_them_saw(gloo_pair: GlooGroup, sharding: Any) -> None:
    first, second = gloo_pair.run(diverge, sharding=sharding)
    assert first == second
    message, rows, layer = first
    assert "row-37" in rows and (len(rows) == 1 or sharding == "fsdp"), message
    assert "layer 'layers.0.0'" in layer, message
