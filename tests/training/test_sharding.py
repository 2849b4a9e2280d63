"""Two ways to share a model among workers train the same model, and read each other's checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import torch

from infra.errors import WrongInput
from infra.store import FolderStore
from tests.training.gloo_group import GlooGroup
from tests.training.observers import Saving, Silent
from tests.training.small_task import Sequences
from training import loop
from training.checkpoint import load_checkpoint
from training.experiment import Training
from training.pieces import named_tensors
from training.sharding import World, whole, wrap
from training.state import TrainState

CONFIG = Training(steps=50, batch_size=16, learning_rate=1e-2, validate_every=1.0)


def train_whole(world: World, config: Training) -> tuple[dict[str, torch.Tensor], Any]:
    """Weights and metrics after a run."""
    recipe, observer = Sequences(), Silent()
    task, _ = loop.train(recipe, config, world, observer)
    return _numbers(whole(task, recipe.build, world).state_dict()), observer.points


@pytest.mark.parametrize("changes", [{}, {"micro_batch_size": 3, "ema": 0.9, "validate_every": 0.5}])
def test_sharded_workers_train_what_copies_do(gloo_pair: GlooGroup, changes: dict[str, Any]) -> None:
    config = CONFIG.model_copy(update=changes)
    copies, copied = gloo_pair.run(train_whole, config, sharding="ddp")[0]
    shards, sharded = gloo_pair.run(train_whole, config, sharding="fsdp")[0]
    assert copied[50]["loss"] < 0.5 * copied[1]["loss"], "it learns"
    assert copies.keys() == shards.keys()
    for name, value in copies.items():
        assert torch.allclose(shards[name], value, atol=1e-6, rtol=1e-6), f"{name} differs"
    for step, values in copied.items():
        assert sharded[step] == pytest.approx(values, rel=1e-5, abs=1e-6)


def measure(world: World, batch_size: int) -> dict[str, float]:
    recipe = Sequences()
    torch.manual_seed(3)
    task = recipe.build()
    wrap(task, world)
    return loop.validate(recipe, task, "validation", Training(steps=1, batch_size=batch_size), world)


@pytest.mark.parametrize("batch_size", [4, 8])
def test_evaluation_covers_each_sample_once_though_workers_have_unequal_shares(
    gloo_pair: GlooGroup, batch_size: int
) -> None:
    """33 samples: one worker has a batch more than the other with 4 x 4 at once."""
    alone = measure(World(), batch_size)
    for sharding in ("ddp", "fsdp"):
        for found in gloo_pair.run(measure, batch_size, sharding=sharding):
            assert found == pytest.approx(alone, rel=1e-5)


def save_trained(world: World, folder: str, steps: int) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Train, keep averages as well, and write a checkpoint: entries, and every tensor of the state in full."""
    recipe = Sequences()
    task = recipe.build()
    state = _state(task, world)
    _step(state, world, steps)
    observer = Saving(FolderStore(Path(folder)), world)
    observer.save(steps, state)
    loop.settle(observer, world)
    return observer.entries, _full(state)


def load(world: World, folder: str, entry: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    torch.manual_seed(world.rank + 99)  # what is there before is another model
    state = _state(Sequences().build(), world)
    assert load_checkpoint(FolderStore(Path(folder)), entry, state) == entry["step"]
    return _full(state), state.facts


@pytest.mark.parametrize(("written_by", "sharding"), [(2, "fsdp"), (2, "ddp"), (1, "ddp")])
def test_any_workers_read_what_others_wrote_to_the_bit(
    gloo_pair: GlooGroup, tmp_path: Path, written_by: int, sharding: Any
) -> None:
    folder = str(tmp_path / "store")
    if written_by == 2:
        entries, expected = gloo_pair.run(save_trained, folder, 3, sharding=sharding)[0]
    else:
        entries, expected = save_trained(World(), folder, 3)
    assert sum(name.startswith("optimizer|all|embed.weight|") for name in expected) == 3
    assert "model|head.weight" not in expected, "tied to the embedding, so kept once"
    readers = [load(World(), folder, entries[0])]
    readers += gloo_pair.run(load, folder, entries[0], sharding="fsdp")
    readers += gloo_pair.run(load, folder, entries[0], sharding="ddp")
    for found, facts in readers:
        assert facts == {"best": {"step": 3}}
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(found[name], value), f"{name} differs"


def tied(world: World, folder: str, entry: dict[str, Any]) -> bool:
    state = _state(Sequences().build(), world)
    load_checkpoint(FolderStore(Path(folder)), entry, state)
    task: Any = whole(state.task, Sequences().build, world)
    return task.head.weight is task.embed.weight


def test_tied_weights_stay_tied(gloo_pair: GlooGroup, tmp_path: Path) -> None:
    entries, _ = gloo_pair.run(save_trained, str(tmp_path), 2, sharding="fsdp")[0]
    assert gloo_pair.run(tied, str(tmp_path), entries[0], sharding="fsdp")[0]
    assert tied(World(), str(tmp_path), entries[0])


def resumed(world: World, folder: str, stop_at: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The state at the end of an unbroken run, and of one stopped and taken up again."""
    recipe, other, store = Sequences(), FolderStore(Path(folder) / "unbroken"), FolderStore(Path(folder) / "broken")
    config = CONFIG.model_copy(update={"steps": 12})
    expected = Saving(other, world)
    loop.train(recipe, config, world, expected)
    broken = Saving(store, world, wish=lambda step: (step == 3, step == stop_at), attempt=1)
    _, finished = loop.train(recipe, config, world, broken)
    assert not finished
    entries = [broken.entries[-1] if world.rank == 0 else None]
    _broadcast(entries, world)
    again = Saving(store, world, attempt=2)
    loop.train(recipe, config, world, again, lambda state: load_checkpoint(store, entries[0] or {}, state))
    ends = [expected.entries[-1], again.entries[-1]] if world.rank == 0 else [None, None]
    _broadcast(ends, world)
    return _loaded(other, ends[0], world), _loaded(store, ends[1], world)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_a_resumed_run_has_the_same_bits(gloo_pair: GlooGroup, tmp_path: Path, sharding: Any) -> None:
    expected, found = gloo_pair.run(resumed, str(tmp_path), 7, sharding=sharding)[0]
    assert expected.keys() == found.keys() and len(expected) > 30
    for name, value in expected.items():
        assert torch.equal(found[name], value), f"{name} differs"


def test_four_workers_read_what_two_wrote_and_resume_to_the_bit(gloo_pair: GlooGroup, tmp_path: Path) -> None:
    entries, expected = gloo_pair.run(save_trained, str(tmp_path / "two"), 3, sharding="fsdp")[0]
    four = GlooGroup(4, tmp_path)
    try:
        for found, _ in four.run(load, str(tmp_path / "two"), entries[0], sharding="fsdp"):
            assert all(torch.equal(found[name], value) for name, value in expected.items())
        unbroken, again = four.run(resumed, str(tmp_path / "four"), 7, sharding="fsdp")[0]
        assert all(torch.equal(again[name], value) for name, value in unbroken.items())
        unbroken, again = four.run(resumed, str(tmp_path / "copies"), 7, sharding="ddp")[0]
        assert all(torch.equal(again[name], value) for name, value in unbroken.items())
    finally:
        four.close()


def test_a_batch_that_gives_workers_unequal_numbers_of_forward_passes_is_refused() -> None:
    config = Training(steps=1, batch_size=5, micro_batch_size=1)
    with pytest.raises(WrongInput, match=r"training\.batch_size: 5"):
        loop.micro_batches(3, config, World(0, 2), additive=True)


# What the functions above share.


def _state(task: Any, world: World) -> TrainState:
    module = wrap(task, world)
    config = Training(steps=1, batch_size=16, learning_rate=1e-2)
    state = TrainState(task, {"all": loop.build_optimizer(task, task.phases[0], config)})
    state.averages = {name: value.detach().clone() for name, value in task.named_parameters()}
    state.facts["best"] = {"step": 3}
    state.module = module  # type: ignore[attr-defined]
    return state


def _step(state: TrainState, world: World, steps: int) -> None:
    recipe = Sequences()
    for _ in range(steps):
        batch = recipe.batch("train", torch.arange(world.rank, 16, world.size).numpy(), None)
        state.optimizers["all"].zero_grad()
        state.module(batch, phase="all")["loss"].backward()  # type: ignore[attr-defined]
        state.optimizers["all"].step()
        state.task.after_step(0, world.sum)
        for name, value in state.task.named_parameters():
            state.averages[name].lerp_(value.detach(), 0.1)


def _full(state: TrainState) -> dict[str, torch.Tensor]:
    from torch.distributed.tensor import DTensor

    return _numbers(
        {
            name: value.full_tensor() if isinstance(value, DTensor) else value
            for name, value in named_tensors(state).items()
        }
    )


def _loaded(store: FolderStore, entry: Any, world: World) -> dict[str, torch.Tensor]:
    state = _state(Sequences().build(), world)
    state.averages = {}
    load_checkpoint(store, entry, state)
    return _full(state)


def _broadcast(objects: list[Any], world: World) -> None:
    import torch.distributed as dist

    dist.broadcast_object_list(objects, src=0)


def _numbers(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in tensors.items()}
