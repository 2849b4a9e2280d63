"""Where a step that is no longer finite began: the layer, and the rows.

Only once it has happened: the failing batch is run again, with a look at what every module gives.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves

from training.sharding import World
from training.task import Batch, Recipe, Task

ROWS_NAMED = 8


class Diverged(RuntimeError):
    """A loss or gradient that is not finite. `rows`: the ids of the rows it came with; `layer`: where it began."""

    def __init__(self, message: str, layer: str = "", rows: Sequence[str] = ()):
        super().__init__(message)
        self.layer, self.rows = layer, tuple(rows)


@dataclass(frozen=True)
class Share:
    """A worker's part of the failing step."""

    recipe: Recipe
    index: np.ndarray
    """(N,): its samples of the training split."""
    batches: Sequence[Batch]
    """Its micro-batches."""
    cut: Callable[[slice], Batch]
    """A part of its samples as a batch."""
    forward: Callable[[Batch], dict[str, torch.Tensor]]
    """The losses of a batch as the step computed them."""


def explain(step: int, task: Task, share: Share, world: World) -> Diverged:
    """What to raise for the failing step; every worker calls and gets the same. The gradients are still there."""
    layer = _forward(task, share)
    alone = task.additive and not (world.size > 1 and world.sharding == "fsdp")  # a forward there is everyone's
    rows = _guilty(task, share) if layer and alone else ()
    found = (layer, rows, _ids(share, range(len(share.index))))
    everyone: list[Any] = [found]
    if world.size > 1:
        everyone = [None] * world.size
        dist.all_gather_object(everyone, found)
    layer, rows, _ = next((one for one in everyone if one[1]), next((one for one in everyone if one[0]), everyone[0]))
    batch = [row for one in everyone for row in one[2]]
    layer = layer or _backward(task)
    with_rows = (
        f"with {_listed(rows)} of the batch's {len(batch)} rows" if rows else f"in the batch of {_listed(batch)}"
    )
    what = f"step {step}: the loss or its gradient is not finite: it began in {layer}, {with_rows}"
    return Diverged(what, layer, rows or batch)


def _forward(task: Task, share: Share) -> str:
    """Where the forward pass first was not finite; empty where it was finite to its end."""
    broken = [name for name, value in task.state_dict().items() if not _finite(value)]
    first: list[str] = [f"the weights '{broken[0]}', by the step before"] if broken else []
    for batch in share.batches:
        wrong = [name for name, value in batch.items() if not _finite(value)]
        with torch.no_grad(), _watched(task, first):
            sums = share.forward(batch)
        if wrong and first and not broken:
            return f"the batch's '{wrong[0]}', then {first[0]}"
        if not all(_finite(value) for value in sums.values()):
            first.append("the loss")
    return first[0] if first else ""


@contextmanager
def _watched(task: Task, first: list[str]) -> Iterator[None]:
    """Inner modules end before those around them: the first whose output is not finite is where it began."""

    def look(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            if not first and not _finite(output):
                first.append(f"layer '{name}'")

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in task.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _guilty(task: Task, share: Share) -> tuple[str, ...]:
    """The rows whose sample is not finite by itself; none where none is, or each."""
    wrong = []
    for number in range(len(share.index)):
        with torch.no_grad():
            if not all(_finite(value) for value in share.forward(share.cut(slice(number, number + 1))).values()):
                wrong.append(number)
    return () if len(wrong) == len(share.index) > 1 else tuple(_ids(share, wrong))  # all of them: it is not the rows


def _backward(task: Task) -> str:
    """The last layer, in the order of the forward pass, whose gradient is not finite: those before it have it from
    there."""
    broken = [name for name, value in task.named_parameters() if value.grad is not None and not _finite(value.grad)]
    return f"the gradient of '{broken[-1]}'" if broken else "the gradient's norm, too large to be a number"


def _ids(share: Share, numbers: Sequence[int] | range) -> list[str]:
    index = share.index[list(numbers)]
    try:
        return share.recipe.row_ids("train", index)
    except NotImplementedError:
        return [f"sample {one}" for one in index]


def _listed(rows: Sequence[str]) -> str:
    more = f" and {len(rows) - ROWS_NAMED} more" if len(rows) > ROWS_NAMED else ""
    return ", ".join(row[:16] for row in rows[:ROWS_NAMED]) + more


def _finite(value: Any) -> bool:
    for leaf in tree_leaves(value):
        if isinstance(leaf, DTensor):
            leaf = leaf.to_local()
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and not bool(torch.isfinite(leaf).all()):
            return False
        if isinstance(leaf, float) and not math.isfinite(leaf):
            return False
    return True
