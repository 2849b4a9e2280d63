"""What every recipe that gradients train must do, found by its name: a new file in training/recipes/ is tested by being
there. Those that are fitted in one go: test_fits.py."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from infra.errors import WrongInput
from tests.training.examples import EXAMPLES, open_recipe
from tests.training.gloo_group import GlooGroup
from tests.training.observers import Saving, Silent
from training import loop
from training.checkpoint import load_checkpoint, newest_whole
from training.examples import example_sources
from training.experiment import Training
from training.randomness import SampleKeys
from training.recipe import recipe_names, recipe_summary, settings_class
from training.sharding import Sharding, World, whole

pytestmark = pytest.mark.parametrize("name", [name for name in recipe_names() if settings_class(name).trains])
NO_DROPOUT: dict[str, Any] = {"dropout": 0.0}
HELD_BACK = {"lora_gpt": 0.9, "lora_mlm": 0.9, "distillation_mlm": 0.7}
"""How far one batch's loss falls at least, where it is less than usual: these begin with a language model that knows
what texts share; embeddings that do not move, or a teacher that does not know the batch by heart, hold them back."""


def batch_of(recipe: Any, size: int) -> Any:
    index = np.arange(size)
    return recipe.batch("train", index, SampleKeys.of(0, np.zeros_like(index), index))


def test_settings_are_documented_and_have_a_tiny_preset(name: str) -> None:
    kind = settings_class(name)
    kind(**kind.presets["tiny"])
    assert recipe_summary(name).endswith("."), "the lab sheet begins with one sentence"


def test_starts_near_its_analytic_loss(name: str, tmp_path: Path) -> None:
    recipe = open_recipe(name, tmp_path)
    torch.manual_seed(0)
    task = recipe.build()
    # Of pictures the whole split where the loss allows it: how far a few are from their average varies.
    whole = task.additive and settings_class(name).reads.startswith("image")
    batch = batch_of(recipe, recipe.num_samples("train") if whole else 64)
    counts = task.counts(batch)
    with torch.no_grad():
        losses = {key: float(value) / counts[key] for key, value in task(batch).items()}
    known = task.initial_losses()  # but for those that depend on what another model says
    assert known
    begins_trained = bool(settings_class(name).example_sources)  # another model's weights may know something already
    for key, value in known.items():
        assert losses[key] < 1.1 * value and (begins_trained or losses[key] > 0.9 * value), key


def test_gradients_are_finite_and_reach_every_parameter(name: str, tmp_path: Path) -> None:
    recipe = open_recipe(name, tmp_path)
    torch.manual_seed(0)
    task = recipe.build()
    sum(task(batch_of(recipe, 32)).values()).backward()
    for key, parameter in task.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, f"{key} gets no gradient"
        assert torch.isfinite(parameter.grad).all(), f"{key}'s gradient is not finite"


class _UntilLearned(Silent):
    """Stops once twenty steps in a row lost, on average, less than `share` of what the first did."""

    def __init__(self, share: float):
        super().__init__()
        self.share = share
        self.losses: list[float] = []

    def metrics(self, step: int, values: dict[str, float]) -> None:
        super().metrics(step, values)
        self.losses.append(sum(v for key, v in values.items() if key.endswith("loss") and "valid" not in key))

    @property
    def left(self) -> float:
        return float(np.mean(self.losses[-20:])) / self.losses[0] if len(self.losses) > 20 else 1.0

    def wishes(self, step: int) -> tuple[bool, bool]:
        return False, self.left < self.share


def test_overfits_one_batch(name: str, tmp_path: Path) -> None:
    """The same eight samples each step; a recipe that draws noise gets new noise each epoch."""
    recipe = open_recipe(name, tmp_path, num_train=8, **NO_DROPOUT)
    config = Training(steps=300, batch_size=8, learning_rate=3e-3, weight_decay=0, warmup=0.05, validate_every=1e9)
    share = HELD_BACK.get(name, 0.35)
    observer = _UntilLearned(share)
    loop.train(recipe, config, loop.World(), observer)
    assert observer.left < share


def test_saved_model_answers_as_the_trained_one_and_loads_bit_equal(name: str, tmp_path: Path) -> None:
    recipe = open_recipe(name, tmp_path / "prepared")
    torch.manual_seed(0)
    task = recipe.build()
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)  # equality with fresh weights would prove nothing
    (tmp_path / "model").mkdir()
    files = recipe.save(task, tmp_path / "model")
    module, _, function = files.loader.partition(":")
    load = getattr(__import__(module, fromlist=[function]), function)
    first, second = (load(tmp_path / "model") for _ in range(2))
    rows = [dict(row) for row in files.input_example] * 2
    assert first(rows) == second(rows)
    for column, _ in files.outputs:
        assert column in first(rows)[0]
    saved = first.model.state_dict()
    merged = getattr(recipe, "merged", torch.nn.Module.state_dict)  # as saved, where that is not as trained
    own = {re.sub(r"^(model\.)+", "", key): value for key, value in merged(task).items()}  # a task's own names before
    shared = saved.keys() & own.keys()
    assert len(shared) > len(own) * 0.8
    assert all(torch.equal(saved[key], own[key]) for key in shared)
    assert not first.model.training, "a predictor never drops out"


def test_a_batch_is_a_function_of_seed_epoch_and_index(name: str, tmp_path: Path) -> None:
    recipe = open_recipe(name, tmp_path)
    index = np.array([3, 9, 4, 30])
    keys = SampleKeys.of(7, np.array([0, 0, 1, 2]), index)
    whole = recipe.batch("train", index, keys)
    again = recipe.batch("train", index, keys)
    for key, value in whole.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, again[key])
    # Split in two, the halves are the whole's: what a sample looks like does not depend on its neighbours.
    halves = [recipe.batch("train", index[part], SampleKeys(keys.keys[part])) for part in (slice(2), slice(2, 4))]
    key, axis = ("pixels", 0) if "pixels" in whole else ("input_ids", 1)
    assert torch.equal(torch.cat([half[key] for half in halves], dim=axis), whole[key])


def test_texts_packed_together_have_the_losses_that_each_has_alone(name: str, tmp_path: Path) -> None:
    """A text that is alone is what a padded row of it is: test_attention.py."""
    recipe = open_recipe(name, tmp_path, **NO_DROPOUT)
    torch.manual_seed(0)
    task = recipe.build().eval()
    index = np.arange(10)
    keys = SampleKeys.of(0, np.zeros_like(index), index)
    if "lengths" not in recipe.batch("train", index, keys):
        pytest.skip("packs nothing")

    def judged(part: slice) -> dict[str, float]:
        batch = recipe.batch("train", index[part], SampleKeys(keys.keys[part]))
        if task.additive:
            return {key: float(value) for key, value in task(batch).items()}
        embedded = task.embed(batch)  # its loss is of samples together
        towers = embedded if isinstance(embedded, tuple) else (embedded,)
        return {"embedding": sum(float(one[..., ::2].double().sum()) for one in towers)}

    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)  # fresh ones hardly attend to anything
        together, each = judged(slice(10)), [judged(slice(one, one + 1)) for one in index]
    assert together == pytest.approx({key: sum(one[key] for one in each) for key in together}, rel=1e-4, abs=1e-4)


def test_settings_say_whether_the_losses_sum_over_samples(name: str, tmp_path: Path) -> None:
    recipe = open_recipe(name, tmp_path)
    assert recipe.settings.additive == recipe.build().additive


def test_samples_name_the_rows_they_are_made_of(name: str, tmp_path: Path) -> None:
    recipe = open_recipe(name, tmp_path)
    given = EXAMPLES[settings_class(name).reads](200, 1)["row_id"].to_pylist()  # what `open_recipe` prepares from
    ids = recipe.row_ids("train", np.arange(recipe.num_samples("train")))
    assert len(ids) == recipe.num_samples("train") and set(ids) <= set(given)
    assert recipe.row_ids("train", np.array([5, 0])) == [ids[5], ids[0]]


def test_resumes_to_the_same_bits(name: str, tmp_path: Path) -> None:
    from infra.store import FolderStore

    store = FolderStore(tmp_path / "store")
    config = Training(steps=12, batch_size=16, learning_rate=1e-3, validate_every=0.5)
    recipe = open_recipe(name, tmp_path / "prepared")  # dropout on: it is keyed by the step too
    unbroken, resumed = Silent(), Silent()
    broken = Saving(store, loop.World(), wish=lambda step: (False, step == 5))
    expected, _ = loop.train(recipe, config, loop.World(), unbroken)
    _, finished = loop.train(recipe, config, loop.World(), broken)
    assert not finished
    entry, _ = newest_whole(store, broken.entries)
    assert entry is not None and entry["step"] == 5
    found, finished = loop.train(
        recipe, config, loop.World(), resumed, lambda state: load_checkpoint(store, entry, state)
    )
    assert finished
    for key, value in expected.state_dict().items():
        assert torch.equal(value, found.state_dict()[key]), f"{key} differs after the resume"
    assert {**broken.points, **resumed.points} == unbroken.points


def _train_in_group(
    world: World, name: str, prepared: str, sources: dict[str, Path], config: Training
) -> tuple[dict[str, Any], Any]:
    recipe = open_recipe(name, Path(prepared), sources=sources, **NO_DROPOUT)
    observer = Silent()
    task, _ = loop.train(recipe, config, world, observer)
    trained = whole(task, recipe.build, world)  # on rank 0; elsewhere it is the part still
    return (trained.state_dict(), observer.points) if world.rank == 0 else ({}, None)


@pytest.mark.parametrize(("sharding", "micro_batch_size"), [("ddp", None), ("ddp", 3), ("fsdp", 3)])
def test_two_workers_train_what_one_does(
    name: str, sharding: Sharding, micro_batch_size: int | None, tmp_path: Path, gloo_pair: GlooGroup
) -> None:
    _hold_against_one(name, tmp_path, gloo_pair, sharding, micro_batch_size)


@pytest.mark.slow
def test_four_workers_train_what_one_does(name: str, tmp_path: Path, gloo_four: GlooGroup) -> None:
    _hold_against_one(name, tmp_path, gloo_four)


def _hold_against_one(
    name: str, folder: Path, group: GlooGroup, sharding: Sharding = "ddp", micro_batch_size: int | None = None
) -> None:
    """Same order, same losses, same gradients: plain SGD, so that a gradient scaled wrongly cannot hide."""
    config = Training(
        steps=6, batch_size=15, micro_batch_size=micro_batch_size, optimizer="sgd", learning_rate=0.01,
        clip_norm=None, weight_decay=0, validate_every=0.2,
    )  # fmt: skip
    recipe = open_recipe(name, folder / "prepared", **NO_DROPOUT)
    if not recipe.settings.additive:
        if micro_batch_size and sharding == "ddp":
            with pytest.raises(WrongInput, match="does not sum over samples"):
                loop.micro_batches(15, config, World(0, 2), recipe.settings.additive)
            return
        config = config.model_copy(update={"micro_batch_size": None})
    observer = Silent()
    alone, _ = loop.train(recipe, config.model_copy(update={"micro_batch_size": None}), loop.World(), observer)
    given = (name, str(folder / "prepared"), example_sources(name), config)
    weights, points = group.run(_train_in_group, *given, sharding=sharding)[0]
    for key, value in alone.state_dict().items():
        assert torch.allclose(weights[key], value, atol=1e-6, rtol=1e-5), f"{key} differs"
    for step, values in observer.points.items():
        assert points[step] == pytest.approx(values, rel=1e-4, abs=1e-6)
        assert all(math.isfinite(value) for value in values.values())
