"""How the workers of a run share a model: a copy each (DDP), a part each (FSDP2), or one worker alone.

Both average the gradients, and both train the same model to rounding (1e-6 over 50 steps, tests/training/
test_sharding.py), so the choice is a matter of `scaling`. A resumed run has the same bits under the same choice.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from training.task import Task

Sharding = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class World:
    """The group of workers this process belongs to; alone when `size` is 1 and torch.distributed is not set up."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    sharding: Sharding = "ddp"

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over the workers, in place."""
        if self.size > 1:
            there = tensor.to(self.device)  # NCCL moves nothing that lies on the CPU
            dist.all_reduce(there)
            tensor.copy_(there)
        return tensor


def wrap(task: Task, world: World) -> Any:
    """The module to call for a forward pass whose gradients meet; before the optimisers are built, because FSDP2 puts
    other parameters in the task's place."""
    if world.size == 1:
        return task
    if world.sharding == "fsdp":
        return _shard(task, world)
    from torch.nn.parallel import DistributedDataParallel

    devices = [world.device.index] if world.device.type == "cuda" else None
    # find_unused_parameters also keeps DDP from rebuilding its buckets after the first step, which would make a
    # resumed run differ in the last bits on 3 workers and more.
    return DistributedDataParallel(task, device_ids=devices, find_unused_parameters=True)


def _shard(task: Task, world: World) -> Task:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(world.device.type, (world.size,))
    for part in [*task.shards(), task]:
        # The outermost too, against torch's default: else its weights stay gathered after a validation, and what
        # changes them meanwhile (averaged weights swapped in and out) is not seen by the next forward.
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(task, "measure")  # it too needs the parameters gathered
    return task


@contextmanager
def meeting(module: Any, last: bool) -> Iterator[None]:
    """The context of a micro-batch: gradients meet in the backward pass of the `last` one of a step."""
    if hasattr(module, "set_requires_gradient_sync"):
        module.set_requires_gradient_sync(last)
        yield
    else:
        with module.no_sync() if not last and hasattr(module, "no_sync") else nullcontext():
            yield


def clip(parameters: list[torch.Tensor], limit: float) -> float:
    """Scale the gradients down to `limit` in norm, over all workers' parts. Returns the norm before; where it is not
    finite, the gradients are left to tell why."""
    norm = torch.nn.utils.get_total_norm([value.grad for value in parameters if value.grad is not None])
    found = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    if math.isfinite(found):
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return found


def whole(task: Task, build: Callable[[], Task], world: World) -> Task:
    """The task with all its weights, as a recipe saves it. Every worker calls; on rank 0 alone it holds the weights."""
    if world.size == 1 or world.sharding != "fsdp":
        return task
    full = build() if world.rank == 0 else None
    places = full.state_dict(keep_vars=True) if full is not None else {}
    with torch.no_grad():
        for name, value in task.state_dict().items():
            gathered = value.full_tensor() if isinstance(value, DTensor) else value
            if places:
                places[name].copy_(gathered)
    return task if full is None else full
