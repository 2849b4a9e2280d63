"""How fast models of packed batches are, measured in turn in one process, so that other load falls on all alike.

Of several rounds the fastest counts, because other work only slows down.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from training.loop import build_optimizer
from training.sections import Training
from training.task import Batch, Task, to_device

ROUNDS = 5


@torch.inference_mode()
def texts_per_second(
    models: Mapping[str, torch.nn.Module],
    batches: Sequence[Batch],
    rounds: int = ROUNDS,
    ask: Callable[[Any, Batch], Any] = lambda model, batch: model.logits(batch),
) -> dict[str, float]:
    """Texts a second of each model, by the clock. ask: lets a model answer a batch."""
    num_texts = sum(len(batch["lengths"]) for batch in batches)
    calls = {name: (partial(ask, model), next(model.parameters()).device) for name, model in models.items()}
    best = _fastest(calls, batches, rounds)
    return {name: num_texts / seconds for name, seconds in best.items()}


@dataclass(frozen=True)
class StepCost:
    """Of one training step."""

    seconds: float
    """Forward, backward and the optimiser's step."""
    optimizer_bytes: int
    """AdamW's two moments of each parameter that is trained."""


def training_steps(tasks: Sequence[Task], batches: Sequence[Batch], rounds: int = ROUNDS) -> list[StepCost]:
    """What a step over each batch costs each task, in its first phase, without gradients that meet other workers'. At
    a learning rate of 0: no weight changes."""
    steps, optimizers = {}, []
    for number, task in enumerate(tasks):
        optimizer = build_optimizer(task.train(), task.phases[0], Training(steps=1, optimizer="adamw"))
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        optimizers.append(optimizer)
        steps[str(number)] = (_step_of(task, optimizer), next(task.parameters()).device)
    seconds = _fastest(steps, batches, rounds)
    for task in tasks:
        task.zero_grad(set_to_none=True)
        task.eval()
    each = [seconds[str(number)] / len(batches) for number in range(len(tasks))]
    return [StepCost(*cost) for cost in zip(each, map(_moments, optimizers), strict=True)]


def _step_of(task: Task, optimizer: torch.optim.Optimizer) -> Callable[[Batch], None]:
    phase = task.phases[0].name

    def step(batch: Batch) -> None:
        optimizer.zero_grad(set_to_none=True)
        counts = task.counts(batch)
        losses = task(batch, phase=phase)
        torch.stack([task.loss_weight(name) * total / counts[name] for name, total in losses.items()]).sum().backward()
        optimizer.step()

    return step


def _moments(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the optimiser's state, but for its counts of steps."""
    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for key, value in state.items()
        if key != "step"
    )


def _fastest(
    calls: Mapping[str, tuple[Callable[[Batch], Any], torch.device]], batches: Sequence[Batch], rounds: int
) -> dict[str, float]:
    """Seconds of each over all batches."""
    best: dict[str, float] = {}
    for number in range(rounds + 1):  # the first warms caches up
        for name, (call, device) in calls.items():
            there = [to_device(batch, device) for batch in batches]
            _settle(device)
            begun = time.perf_counter()
            for batch in there:
                call(batch)
            _settle(device)
            seconds = time.perf_counter() - begun
            if number:
                best[name] = min(best.get(name, seconds), seconds)
    return best


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
