"""Averaged weights, the best weights, early stopping, phases' own optimisers, memory: each does what it says, and a
resumed run does the same to the bit."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from infra.errors import WrongInput
from infra.store import FolderStore
from tests.training.examples import open_recipe
from tests.training.gloo_group import GlooGroup
from tests.training.observers import Saving, Silent
from tests.training.test_loop import CONFIG, Numbers, Shift
from tests.training.test_sharding import train_whole
from training import loop
from training.checkpoint import load_checkpoint
from training.experiment import Training
from training.stopping import judge
from training.task import Batch, Phase, Task


class Scripted(Shift):
    """Each look at the validation split finds the next of these values, whatever was learnt."""

    values: tuple[float, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.step = 0

    def before_step(self, step: int, num_steps: int) -> None:
        self.step = step + 1

    def measure(self, batch: Batch) -> dict[str, tuple[float, float]]:
        place = max(self.step - 1, 0)
        return {"accuracy": (self.values[min(place, len(self.values) - 1)] * len(batch["x"]), len(batch["x"]))}


def script(*found: float) -> type[Scripted]:
    return type("Script", (Scripted,), {"values": found})


def run(make: Any, observer: Any = None, restore: Any = None, **changes: Any) -> tuple[Any, Any]:
    observer = observer or Silent()
    config = CONFIG.model_validate({**CONFIG.model_dump(), "validate_every": 0.2, **changes})  # each step: 8 of 40
    task, _ = loop.train(Numbers(make), config, loop.World(), observer, restore)
    return task, observer


def stop_after(wanted: int, step: int) -> tuple[bool, bool]:
    return False, step == wanted


def trace(**changes: Any) -> list[float]:
    """The weight after each step, without averages."""
    seen: list[float] = []

    class Traced(Shift):
        def after_step(self, step: int, reduce: Any) -> None:
            seen.append(self.shift.item())

    run(Traced, **changes)
    return seen


def test_averaged_weights_are_validated_and_become_the_model() -> None:
    class Shown(Shift):
        def measure(self, batch: Batch) -> dict[str, tuple[float, float]]:
            return {"shift": (self.shift.item() * len(batch["x"]), len(batch["x"]))}

    task, observer = run(Shown, ema=0.9)
    average, expected = 0.0, []
    for step, weight in enumerate(trace(), start=1):
        share = 1 - min(0.9, (1 + step) / (10 + step))
        average += share * (weight - average)
        expected.append(average)
    assert [observer.points[step]["validation_shift"] for step in range(1, 21)] == pytest.approx(expected, rel=1e-5)
    assert task.shift.item() == pytest.approx(expected[-1], rel=1e-5)
    assert trace()[-1] != pytest.approx(expected[-1], rel=1e-2), "the average lags behind the weights"


def test_averaging_changes_no_step() -> None:
    plain, averaged = (run(Shift, ema=ema, validate_every=1e9)[1].points for ema in (None, 0.9))
    assert [plain[step]["loss"] for step in plain] == [averaged[step]["loss"] for step in averaged]


@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_best_weights_become_the_model(ema: float | None) -> None:
    found = [0.1, 0.4, 0.9, 0.3, 0.9, 0.2]
    kept, _ = run(script(*found), keep="best", best_by="accuracy", steps=6, ema=ema)
    third, _ = run(Shift, steps=3, ema=ema)
    assert torch.equal(kept.shift, third.shift), "the first of two equally good ones"


def test_early_stopping_ends_after_the_patience_is_over() -> None:
    found = [0.1, 0.5, 0.52, 0.5, 0.53, 0.9, 0.9]
    rule = {"metric": "accuracy", "patience": 3, "minimum_change": 0.05}
    task, observer = run(script(*found), early_stopping=rule)
    assert max(observer.points) == 5
    assert torch.equal(task.shift, run(Shift, steps=5)[0].shift)


@pytest.mark.parametrize(
    ("metric", "mode", "curve", "best"),
    [
        ("loss", None, [3.0, 1.0, 2.0], 2),
        ("accuracy", None, [0.1, 0.9, 0.5], 2),
        ("distance_gain", "minimum", [5.0, 6.0, 4.0], 3),
        ("loss", None, [math.nan, 3.0, math.inf], 2),
    ],
)
def test_which_end_of_a_metric_is_better(metric: str, mode: str | None, curve: list[float], best: int) -> None:
    rule = {"metric": metric, "mode": mode, "patience": 9}
    config = CONFIG.model_validate({**CONFIG.model_dump(), "keep": "best", "early_stopping": rule})
    facts: dict[str, Any] = {}
    for step, value in enumerate(curve, start=1):
        judge(config, facts, {metric: value, "other": 0.0}, step)
    assert facts["best"]["step"] == best


def test_a_metric_that_is_not_measured_is_refused_at_the_start() -> None:
    with pytest.raises(WrongInput, match=r"early_stopping\.metric: 'acuracy' is not measured; did you mean 'accuracy'"):
        run(script(0.1), early_stopping={"metric": "acuracy"})
    with pytest.raises(WrongInput, match=r"training\.best_by: 'f1' is not measured"):
        run(script(0.1), keep="best", best_by="f1")


def test_a_resumed_run_averages_judges_and_ends_alike(tmp_path: Path) -> None:
    changes = {"ema": 0.9, "keep": "best", "best_by": "accuracy",
               "early_stopping": {"metric": "accuracy", "patience": 4}}  # fmt: skip
    make = script(0.1, 0.5, 0.9, 0.3, 0.4, 0.5, 0.6)
    expected, unbroken = run(make, **changes)
    assert max(unbroken.points) == 7
    for stop_at in (2, 4, 6, 7):
        store = FolderStore(tmp_path / str(stop_at))
        broken = Saving(store, loop.World(), partial(stop_after, stop_at))
        run(make, broken, **changes)
        entry, resumed = broken.entries[-1], Silent()
        found, _ = run(make, resumed, lambda state, s=store, e=entry: load_checkpoint(s, e, state), **changes)
        assert torch.equal(found.shift, expected.shift)
        assert {**broken.points, **resumed.points} == unbroken.points


def test_a_phase_may_have_an_optimiser_of_its_own() -> None:
    class Pair(Task):
        phases = (
            Phase(name="a", owns=lambda name: name == "a", overrides={"optimizer": "sgd", "betas": (0.0, 0.9)}),
            Phase(name="b", owns=lambda name: name == "b", overrides={"clip_norm": 1e-3, "optimizer": "sgd"}),
        )

        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Parameter(torch.zeros(1))
            self.b = torch.nn.Parameter(torch.zeros(1))

        def forward(self, batch: Batch, phase: str = "all") -> dict[str, torch.Tensor]:
            name = "a" if phase == "all" else phase
            return {"loss": ((batch["x"] - getattr(self, name)) ** 2).sum()}

        def counts(self, batch: Batch) -> dict[str, float]:
            return {"loss": len(batch["x"])}

        def initial_losses(self) -> dict[str, float]:
            return {}

    task, _ = run(Pair, steps=1, batch_size=40, clip_norm=None)
    assert task.a.item() == pytest.approx(2 * 0.05 * (np.arange(40) / 40).mean(), rel=1e-4), "a plain gradient step"
    assert task.b.item() == pytest.approx(0.05 * 1e-3, rel=1e-3), "the same, clipped"


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_activation_checkpointing_changes_no_bit(dropout: float, tmp_path: Path) -> None:
    results = []
    for again in (False, True):
        recipe = open_recipe("text_classifier", tmp_path, dropout=dropout)
        observer = Silent()
        config = CONFIG.model_copy(update={"activation_checkpointing": again, "steps": 4, "micro_batch_size": 4})
        task, _ = loop.train(recipe, config, loop.World(), observer)
        results.append((observer.points, task.state_dict()))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(value, results[1][1][name]) for name, value in results[0][1].items())


def test_activation_checkpointing_without_layers_is_refused() -> None:
    with pytest.raises(WrongInput, match=r"activation_checkpointing: this recipe's task names no layers"):
        run(Shift, activation_checkpointing=True)


def test_a_cpu_trains_in_float32_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    with loop.autocast(CONFIG, torch.device("cpu"))():
        assert not torch.is_autocast_enabled("cpu")
    monkeypatch.setattr("training.hardware.cpu_has_bf16", lambda: False)
    with pytest.raises(WrongInput, match=r"training\.precision: bf16"):
        run(Shift, precision="bf16")


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_workers_average_judge_and_look_as_one_does(gloo_pair: GlooGroup, sharding: Any) -> None:
    config = Training(steps=12, batch_size=16, learning_rate=0.01, validate_every=0.2, diagnose_every=2, ema=0.8,
                      keep="best", best_by="accuracy")  # fmt: skip
    weights, points = train_whole(loop.World(), config)
    trained, found = gloo_pair.run(train_whole, config, sharding=sharding)[0]
    assert found.keys() == points.keys()
    for step, values in points.items():
        assert found[step] == pytest.approx(values, rel=1e-4, abs=1e-6)
    assert any(name.startswith("layer/") for name in points[2])
    for name, value in weights.items():
        assert torch.allclose(trained[name], value, atol=1e-5), name
