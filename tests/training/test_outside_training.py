"""Outside training nothing drops out and nothing is differentiated: in validation, saving, answering and data choice.

Watched at the call of every module and of what drops out, for every recipe, found by its name.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.nn.modules.module import register_module_forward_pre_hook

from tests.training.examples import open_recipe
from training import loop, speed
from training.experiment import Training
from training.recipe import recipe_names, settings_class

TRAINED = [name for name in recipe_names() if settings_class(name).trains]
FITTED = [name for name in recipe_names() if not settings_class(name).trains]
DROPOUT: dict[str, Any] = {"dropout": 0.5}


@contextmanager
def watched(at_least: int = 1) -> Iterator[None]:
    """Inside, whatever drops something out, or a module called while gradients are recorded, fails the test; but for
    training steps that are timed."""
    found: set[str] = set()
    calls = 0

    def timed(*given: Any) -> Any:
        before = set(found)
        costs = times(*given)
        found.intersection_update(before)
        return costs

    def look(module: torch.nn.Module, arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if torch.is_grad_enabled():
            found.add(f"{type(module).__name__} is called with gradients recorded")

    def dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        if training and p:
            found.add(f"{p:g} of {tuple(input.shape)} dropped out")
        return drops(input, p, training, inplace)

    def attention(*given: Any, **named: Any) -> torch.Tensor:
        if named.get("dropout_p"):
            found.add(f"{named['dropout_p']:g} of the attention dropped out")
        return attends(*given, **named)

    drops, attends, times = functional.dropout, functional.scaled_dot_product_attention, speed.training_steps
    handle = register_module_forward_pre_hook(look)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(functional, "dropout", dropout)
        patched.setattr(functional, "scaled_dot_product_attention", attention)
        patched.setattr(speed, "training_steps", timed)
        yield
    handle.remove()
    assert found == set()
    assert calls >= at_least, "nothing was watched"


def ask(files: Any, folder: Path) -> None:
    """Load a saved model and let it answer its own example."""
    module, _, function = files.loader.partition(":")
    getattr(import_module(module), function)(folder)([dict(row) for row in files.input_example] * 3)


@pytest.mark.parametrize("name", TRAINED)
def test_a_trained_recipe(name: str, tmp_path: Path) -> None:
    recipe = open_recipe(name, tmp_path / "prepared", **DROPOUT)
    task = recipe.build()
    task.train()
    with watched():
        for split in ("validation", "test"):
            loop.validate(recipe, task, split, Training(steps=1), loop.World())
    task.train()
    (tmp_path / "model").mkdir()
    with watched():
        recipe.refresh(task, 0)
        ask(recipe.save(task, tmp_path / "model"), tmp_path / "model")


@pytest.mark.parametrize("name", FITTED)
def test_a_fitted_recipe(name: str, tmp_path: Path) -> None:
    """Those of trees and words have no module; a model made of another one has."""
    recipe = open_recipe(name, tmp_path / "prepared")
    (tmp_path / "model").mkdir()
    with watched(at_least=0):
        ask(recipe.fit(tmp_path / "model", 0, lambda *_, **__: None), tmp_path / "model")


@pytest.mark.parametrize("settings", [{"freeze_encoder": True}, {"calibrate": "temperature"}])
def test_a_text_classifier_that_answers_before_it_is_saved(settings: dict[str, Any], tmp_path: Path) -> None:
    """Frozen features and the temperature are read off the task that was training a moment ago."""
    recipe = open_recipe("text_classifier", tmp_path / "prepared", **DROPOUT, **settings)
    task = recipe.build()
    task.train()
    (tmp_path / "model").mkdir()
    with watched(at_least=20):
        recipe.refresh(task, 0)
        recipe.save(task, tmp_path / "model")
