"""Codes and their codebook: what is nearest, what the moving averages follow, who is revived; alike on two workers."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.examples import open_recipe
from tests.training.gloo_group import GlooGroup
from tests.training.observers import Saving, Silent
from training import loop
from training.checkpoint import load_checkpoint, newest_whole
from training.experiment import Training
from training.quantizers import FINAL_TEMPERATURE, GumbelQuantizer, VectorQuantizer
from training.sharding import Sharding, World, whole

ALONE = lambda tensor: tensor  # noqa: E731 - what `World.sum` does with one worker


def grid_of(vectors: torch.Tensor) -> torch.Tensor:
    """(n, width) -> (1, width, 1, n): as an encoder says it."""
    return vectors.T[None, :, None, :]


def quantizer(codes: int, width: int, decay: float = 0.9) -> VectorQuantizer:
    torch.manual_seed(0)
    return VectorQuantizer(codes, width, decay).train()


def test_a_vector_becomes_the_nearest_code_and_its_gradient_goes_straight_through() -> None:
    made = quantizer(8, 3)
    said = torch.randn(1, 3, 4, 4, requires_grad=True)
    found, losses = made(said, None)
    flat = said.detach().permute(0, 2, 3, 1).reshape(-1, 3)
    nearest = torch.cdist(flat, made.codebook).argmin(1)
    assert torch.equal(made.codes(said).reshape(-1), nearest)
    assert torch.allclose(found.permute(0, 2, 3, 1).reshape(-1, 3), made.codebook[nearest], atol=1e-6)
    (found * torch.arange(48.0).reshape(1, 3, 4, 4)).sum().backward()
    assert said.grad is not None and torch.equal(said.grad, torch.arange(48.0).reshape(1, 3, 4, 4))
    expected = (flat - made.codebook[nearest]).square().mean(1).sum()
    assert float(losses["commitment_loss"].detach()) == pytest.approx(float(expected), rel=1e-5)


def test_bf16_names_the_same_codes() -> None:
    made, said = quantizer(256, 8), torch.randn(4, 8, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = made.codes(said)
    assert torch.equal(found, made.codes(said))


def test_a_code_follows_the_mean_of_what_falls_to_it() -> None:
    made = quantizer(2, 1, decay=0.5)
    made.codebook.copy_(torch.tensor([[-1.0], [1.0]]))
    for values in ([-2.0, -4.0, 2.0], [-8.0, 2.0, 4.0]):
        made(grid_of(torch.tensor(values)[:, None]), None)
        made.after_step(0, ALONE)
    # Averages by half: uses (2, 1) then (1, 2); sums (-6, 2) then (-8, 6).
    uses = [0.25 * 2 + 0.5 * 1, 0.25 * 1 + 0.5 * 2]
    sums = [0.25 * -6 + 0.5 * -8, 0.25 * 2 + 0.5 * 6]
    assert made.uses.tolist() == uses
    assert made.codebook[:, 0].tolist() == pytest.approx([s / u for s, u in zip(sums, uses, strict=True)])


def test_outside_training_nothing_is_counted() -> None:
    made = quantizer(4, 2).eval()
    made(torch.randn(2, 2, 3, 3), None)
    assert made.seen is None


def test_dead_codes_are_revived_until_all_are_used() -> None:
    """Sixteen clusters, and a codebook that begins far from all of them but for one code."""
    generator = torch.Generator().manual_seed(0)
    middles = 10 * torch.randn(16, 4, generator=generator)
    made = quantizer(16, 4)
    made.codebook.add_(1000)
    made.codebook[3] = 0
    for step in range(200):
        places = torch.randint(16, (256,), generator=generator)
        made(grid_of(middles[places] + 0.1 * torch.randn(256, 4, generator=generator)), None)
        made.after_step(step, ALONE)
    used = torch.bincount(made.codes(grid_of(middles)).reshape(-1), minlength=16)
    assert (used > 0).sum() >= 14
    apart = torch.cdist(middles, made.codebook).min(1).values
    assert float(apart.median()) < 1


def test_a_revived_code_has_half_of_the_uses_of_the_one_it_shares_with() -> None:
    made = quantizer(2, 1, decay=0.0)
    made.codebook.copy_(torch.tensor([[0.0], [1000.0]]))
    made(grid_of(torch.tensor([[-1.0], [1.0], [-3.0], [3.0]])), None)
    made.after_step(0, ALONE)
    assert made.uses.tolist() == [2, 2]
    assert float(made.codebook.sum()) == pytest.approx(0, abs=1e-6) and float(made.codebook[0]) != 0
    assert torch.allclose(made.sums / made.uses[:, None], made.codebook)


def test_gumbel_reads_one_code_when_it_is_cold_and_a_mixture_when_it_is_warm() -> None:
    torch.manual_seed(0)
    made = GumbelQuantizer(5, 3, annealed=0.5)
    logits, noise = torch.randn(2, 5, 4, 4), torch.zeros(2, 5, 4, 4)
    hard = made.vectors(made.codes(logits))
    made.before_step(0, 100)
    assert made.temperature == 1
    assert not torch.allclose(made(logits, noise)[0], hard, atol=0.01)
    made.before_step(60, 100)
    assert made.temperature == pytest.approx(FINAL_TEMPERATURE)
    made.temperature = 1e-4
    assert torch.allclose(made(logits, noise)[0], hard, atol=1e-5)
    assert torch.equal(made(logits, None)[0], hard)


def test_gumbel_kl_is_0_where_nothing_is_said_and_log_codes_where_all_is() -> None:
    made = GumbelQuantizer(8, 2, annealed=1.0)
    silent, sure = torch.zeros(3, 8, 2, 2), torch.zeros(3, 8, 2, 2)
    sure[:, 4] = 100
    assert float(made(silent, None)[1]["kl_loss"]) == pytest.approx(0, abs=1e-5)
    assert float(made(sure, None)[1]["kl_loss"]) == pytest.approx(12 * math.log(8), rel=1e-5)


# The recipes' other halves: the shared tests train `tiny`, which is `vq` and no VAE.
OTHERS: list[tuple[str, dict[str, Any]]] = [("dvae", {"quantizer": "gumbel"}), ("autoencoder", {"variational": True})]


def _train(world: World, name: str, prepared: str, settings: dict[str, Any], config: Training) -> Any:
    recipe = open_recipe(name, Path(prepared), **settings)
    observer = Silent()
    task, _ = loop.train(recipe, config, world, observer)
    trained = whole(task, recipe.build, world)
    return (trained.state_dict(), observer.points) if world.rank == 0 else ({}, None)


@pytest.mark.parametrize(("name", "settings"), OTHERS)
@pytest.mark.parametrize(("sharding", "micro_batch_size"), [("ddp", 3), ("fsdp", None)])
def test_two_workers_train_what_one_does(
    name: str,
    settings: dict[str, Any],
    sharding: Sharding,
    micro_batch_size: int | None,
    tmp_path: Path,
    gloo_pair: GlooGroup,
) -> None:
    config = Training(
        steps=6, batch_size=15, optimizer="sgd", learning_rate=0.01, clip_norm=None, weight_decay=0, validate_every=0.2
    )
    alone, points = _train(World(), name, str(tmp_path / "prepared"), settings, config)
    config = config.model_copy(update={"micro_batch_size": micro_batch_size})
    weights, found = gloo_pair.run(_train, name, str(tmp_path / "prepared"), settings, config, sharding=sharding)[0]
    for key, value in alone.items():
        assert torch.allclose(weights[key], value, atol=1e-6, rtol=1e-5), f"{key} differs"
    for step, values in points.items():
        assert found[step] == pytest.approx(values, rel=1e-4, abs=1e-6)


def test_two_workers_revive_the_same_codes_as_one(tmp_path: Path, gloo_pair: GlooGroup) -> None:
    """Micro-batches too: what a worker saw in one must outlive DDP's copying of buffers before the next."""
    config = Training(steps=25, batch_size=12, micro_batch_size=3, learning_rate=1e-3, validate_every=1e9)
    settings = {"codes": 64}
    alone, _ = _train(World(), "dvae", str(tmp_path / "prepared"), settings, config)
    assert (alone["model.quantizer.uses"] > 0).all(), "of 64 codes most begin far from all vectors"
    weights, _ = gloo_pair.run(_train, "dvae", str(tmp_path / "prepared"), settings, config, sharding="ddp")[0]
    for key in ("codebook", "uses", "sums", "squares"):
        name = f"model.quantizer.{key}"
        assert torch.allclose(weights[name], alone[name], atol=1e-3, rtol=1e-3), f"{key} differs"


@pytest.mark.parametrize(("name", "settings"), OTHERS)
def test_resumes_to_the_same_bits(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    from infra.store import FolderStore

    store = FolderStore(tmp_path / "store")
    config = Training(steps=8, batch_size=16, learning_rate=1e-3, validate_every=1e9)
    recipe = open_recipe(name, tmp_path / "prepared", **settings)
    expected, _ = loop.train(recipe, config, World(), Silent())
    broken = Saving(store, World(), wish=lambda step: (False, step == 5))
    loop.train(recipe, config, World(), broken)
    entry, _ = newest_whole(store, broken.entries)
    assert entry is not None
    found, finished = loop.train(recipe, config, World(), Silent(), lambda state: load_checkpoint(store, entry, state))
    assert finished
    for key, value in expected.state_dict().items():
        assert torch.equal(value, found.state_dict()[key]), f"{key} differs after the resume"
