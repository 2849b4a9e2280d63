"""A run's state as named tensors, each worker's part of them, and back.

Names: `model|<parameter or buffer>`, `optimizer|<phase>|<parameter>|<key>`, and `average|` before the names of
`TrainState.averages`. By name and not by position, so that a changed order of parameters cannot mix them up. Of tied
weights the first name stands for all.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.distributed.tensor import DTensor

# Private, as is all of torch that answers this; its own checkpoints ask here too.
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from training.sharding import World
from training.state import TrainState


@dataclass(frozen=True)
class Piece:
    """A block of a tensor: where it begins in the whole one."""

    name: str
    shape: tuple[int, ...]
    """Of the whole tensor."""
    offsets: tuple[int, ...]
    """Of the block, in each dimension."""
    tensor: torch.Tensor
    """The block itself, shared with what it is of."""


def named_tensors(state: TrainState) -> dict[str, torch.Tensor]:
    """Every tensor of the state, sharded ones as DTensors."""
    weights = model_tensors(state.task)
    found = {f"model|{name}": value for name, value in weights.items()}
    names = {id(value): name for name, value in weights.items()}
    for phase, optimizer in state.optimizers.items():
        for parameter, values in optimizer.state.items():
            for key, value in values.items():
                if isinstance(value, torch.Tensor):
                    found[f"optimizer|{phase}|{names[id(parameter)]}|{key}"] = value
    return found | {f"average|{name}": value for name, value in state.averages.items()}


def model_tensors(task: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, the first name of each. From the state dict and not from `named_parameters`:
    only there FSDP2 shows the sharded parameters at any time."""
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, value in task.state_dict(keep_vars=True).items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name}: a checkpoint holds tensors, not {type(value).__name__}")
        if id(value) not in seen:
            seen.add(id(value))
            found[name] = value
    return found


def block(name: str, value: torch.Tensor) -> Piece:
    """This worker's block of a tensor; the whole of one that is not sharded."""
    if not isinstance(value, DTensor):
        return Piece(name, tuple(value.shape), (0,) * value.ndim, value.detach())
    _, offsets = compute_local_shape_and_global_offset(value.shape, value.device_mesh, value.placements)
    with torch.no_grad():
        return Piece(name, tuple(value.shape), tuple(offsets), value.to_local())


def own_pieces(state: TrainState, world: World) -> list[Piece]:
    """What this worker writes: its blocks of sharded tensors, and its share of those that all workers hold alike, each
    on the worker that has least to write so far."""
    load = [0] * world.size
    found = []
    for name, value in named_tensors(state).items():
        piece = block(name, value)
        if not isinstance(value, DTensor):
            owner = load.index(min(load))
            load[owner] += value.numel() * value.element_size()
            if owner == world.rank:
                found.append(piece)
        elif piece.tensor.numel():
            found.append(piece)
    return found


def overlap(
    shape: tuple[int, ...], offsets: tuple[int, ...], other_shape: tuple[int, ...], other_offsets: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
    """Where two blocks of one tensor meet, in each block's own coordinates; None where they do not."""
    inside, outside = [], []
    for size, begin, other_size, other_begin in zip(shape, offsets, other_shape, other_offsets, strict=True):
        first, last = max(begin, other_begin), min(begin + size, other_begin + other_size)
        if first >= last:
            return None
        inside.append(slice(first - begin, last - begin))
        outside.append(slice(first - other_begin, last - other_begin))
    return tuple(inside), tuple(outside)


def optimizer_keys(names: Iterator[str] | list[str], phase: str) -> dict[str, list[str]]:
    """Parameter -> its keys in the optimiser state of a phase."""
    found: dict[str, list[str]] = {}
    for name in names:
        kind, *rest = name.split("|")
        if kind == "optimizer" and rest[0] == phase:
            found.setdefault(rest[1], []).append(rest[2])
    return found
