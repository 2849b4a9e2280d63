"""Gradients of every recipe are those of one process, on 1, 2 and 4 workers, by DDP and by FSDP2."""

import tempfile
from pathlib import Path
from typing import Any

from flows.prove import Options, Say
from training.recipe import recipe_names, settings_class

SIZES = (1, 2, 4)
BATCH_SIZE = 15
"""Goes round neither 2 nor 4 workers: equal shares would hide a gradient that is scaled by the worker's own count."""
WITHIN = 1e-5
"""Largest relative difference of the whole gradient, float32."""


def prove(options: Options, say: Say, sizes: tuple[int, ...] = SIZES) -> dict[str, Any]:
    """Starts groups of plain processes; the options change nothing."""
    import torch.multiprocessing as multiprocessing

    from training.examples import example_sources

    names = [name for name in recipe_names() if settings_class(name).trains]
    arms: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="slipway-prove-") as folder:
        sources = {name: example_sources(name) for name in names}
        for name in names:
            _open(name, Path(folder), sources[name])  # prepares the data, once for all
        for size in sizes:
            say(f"{len(names)} recipes on {size} worker{'s' * (size > 1)}")
            multiprocessing.spawn(_work, (size, sources, folder), nprocs=size)
        for name in names:
            for size in sizes:
                for arm in _arms(size):
                    apart = _difference(Path(folder), f"{name}-1-ddp", f"{name}-{size}-{arm}")
                    right = apart > WITHIN if arm == "wrong" else apart <= WITHIN
                    arms.append(
                        {"recipe": name, "workers": size, "arm": arm, "difference": apart, "as_it_should": right}
                    )
    return {"held": all(one["as_it_should"] for one in arms), "within": WITHIN, "arms": arms}


def _arms(size: int) -> tuple[str, ...]:
    """`wrong`: DDP with counts that were not summed over the workers, to see that this would be noticed."""
    return ("ddp",) if size == 1 else ("ddp", "fsdp", "wrong")


def _open(name: str, folder: Path, sources: dict[str, Path]) -> Any:
    from training.examples import open_recipe

    still: dict[str, Any] = (
        {"dropout": 0.0} if "dropout" in settings_class(name).model_fields else {}
    )  # it is keyed by the worker
    return open_recipe(name, folder / f"prepared-{name}", sources=sources, **still)


def _work(rank: int, size: int, sources: dict[str, dict[str, Path]], folder: str) -> None:
    """One worker of a group; what the loop has done to the gradients when the optimiser gets them is left in files."""
    import torch
    import torch.distributed as dist
    from safetensors.torch import save_file

    from training.sharding import World

    class Careless(World):
        def sum(self, tensor: torch.Tensor) -> torch.Tensor:
            return tensor

    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting-{size}", rank=rank, world_size=size)
    for name in sources:
        for arm in _arms(size):
            kind = Careless if arm == "wrong" else World
            world = kind(rank, size, sharding="fsdp" if arm == "fsdp" else "ddp")
            found = _gradients(_open(name, Path(folder), sources[name]), world)
            if rank == 0:
                save_file(found, Path(folder) / f"{name}-{size}-{arm}.safetensors")
    if size > 1:
        dist.barrier()
        dist.destroy_process_group()


def _gradients(recipe: Any, world: Any) -> dict[str, Any]:
    """Parameter's name -> its gradient in the first step of a run, whole."""
    import torch
    from torch.distributed.tensor import DTensor
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    from training import loop
    from training.experiment import Training

    class Silent(loop.Observer):
        """Wishes for nothing."""

    found: dict[str, torch.Tensor] = {}
    tasks: list[Any] = []
    build = recipe.build

    def remember() -> Any:
        tasks.append(build())
        return tasks[-1]

    def look(optimizer: Any, *_: Any) -> None:
        owned = {id(value) for group in optimizer.param_groups for value in group["params"]}
        for name, value in tasks[0].named_parameters():
            if id(value) in owned and value.grad is not None:
                gradient = value.grad.full_tensor() if isinstance(value.grad, DTensor) else value.grad
                found[name] = gradient.detach().clone().contiguous()

    recipe.build = remember
    hook = register_optimizer_step_pre_hook(look)
    try:
        config = Training(steps=1, batch_size=BATCH_SIZE, clip_norm=None, weight_decay=0, precision="float32")
        loop.train(recipe, config, world, Silent())
    finally:
        hook.remove()
    return found


def _difference(folder: Path, one: str, other: str) -> float:
    """Norm of the difference of two gradients over the norm of the first; infinite where their parameters differ."""
    import torch
    from safetensors.torch import load_file

    first, second = (load_file(folder / f"{name}.safetensors") for name in (one, other))
    if first.keys() != second.keys():
        return float("inf")
    apart = torch.stack([torch.linalg.vector_norm((first[name] - second[name]).double()) for name in first])
    whole = torch.stack([torch.linalg.vector_norm(first[name].double()) for name in first])
    return float(torch.linalg.vector_norm(apart) / torch.linalg.vector_norm(whole))
