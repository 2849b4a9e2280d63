"""Copies of the weights that a run keeps beside them: their moving average, and the best ones validated so far.

Both are part of `TrainState.averages`, so in every checkpoint: the average under the parameter's name, the best under
`best|<name>`. Everything is done element by element on this worker's part, so DDP and FSDP2 are the same here.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.tensor import DTensor

from training.pieces import model_tensors
from training.state import TrainState

BEST = "best|"


def begin_average(state: TrainState) -> None:
    """The average begins as the weights are. Frozen parameters and buffers have none."""
    for name, value in model_tensors(state.task).items():
        if value.requires_grad:
            state.averages[name] = value.detach().clone()


def update_average(state: TrainState, decay: float, step: int) -> None:
    """average = d average + (1 - d) weights, after the step that made `step` steps done.

    d = min(decay, (1 + step) / (10 + step)), so that a short run is not held by its random beginning (TensorFlow's
    ExponentialMovingAverage with num_updates).
    """
    share = 1 - min(decay, (1 + step) / (10 + step))
    now = model_tensors(state.task)
    names = [name for name in state.averages if not name.startswith(BEST)]
    torch._foreach_lerp_([local(state.averages[name]) for name in names], [local(now[name]) for name in names], share)


@contextmanager
def averaged(state: TrainState) -> Iterator[None]:
    """Inside, the task has the averaged weights; nothing happens where there is no average."""
    now = model_tensors(state.task)
    names = [name for name in state.averages if not name.startswith(BEST)]
    own = {name: local(now[name]).clone() for name in names}
    for name in names:
        local(now[name]).copy_(local(state.averages[name]))
    try:
        yield
    finally:
        for name, value in own.items():
            local(now[name]).copy_(value)


def keep_as_best(state: TrainState) -> None:
    """Remember the weights and buffers that the task has now."""
    for name, value in model_tensors(state.task).items():
        if BEST + name in state.averages:
            local(state.averages[BEST + name]).copy_(local(value))
        else:
            state.averages[BEST + name] = value.detach().clone()


def settle_weights(state: TrainState) -> None:
    """Give the task the weights that become the model: the best where they were kept, else the averaged, else its own.
    After the last checkpoint, which holds the task's own."""
    now = model_tensors(state.task)
    best = {name.removeprefix(BEST): value for name, value in state.averages.items() if name.startswith(BEST)}
    for name, value in (best or state.averages).items():
        local(now[name]).copy_(local(value))


def local(value: torch.Tensor) -> torch.Tensor:
    """This worker's part, sharing memory with the whole."""
    return (value.to_local() if isinstance(value, DTensor) else value).detach()
