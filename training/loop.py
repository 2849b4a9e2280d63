"""The training loop: plain torch, one worker's view. It knows no recipe, no Ray and no tracking server.

Each step, on every worker: its share of the global batch in micro-batches; the counts summed over all workers; for
each phase forward, backward, clip, optimiser; then what the task does after a step. One message a step goes between
the workers beside the gradients: this step's counts, the last step's losses, and whether to save or stop.
"""

import math
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist

from training.averages import averaged, begin_average, keep_as_best, settle_weights, update_average
from training.diagnosis import Diagnosis
from training.divergence import Diverged as Diverged
from training.divergence import Share, explain
from training.experiment import Training
from training.hardware import autocast, ready_layers
from training.randomness import SampleKeys, stream_seed
from training.sampler import SampleOrder, batch_positions
from training.sharding import World as World
from training.sharding import clip, meeting, wrap
from training.state import TrainState
from training.stopping import check_metrics, judge
from training.task import Batch, Phase, Recipe, Task, to_device


class Observer(Protocol):
    """What the loop tells a worker's surroundings. As it stands it does nothing and wishes for nothing."""

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """The metrics of the step that made `step` steps done. Rank 0 only, in order, each step once."""
        return

    def finding(self, step: int, sentence: str) -> None:
        """Something in the model that should not be as it is, in plain words. Rank 0 only, each finding once."""
        return

    def say(self, note: str) -> None:
        """What this worker is at for a while, when it is no step."""
        return

    def wishes(self, step: int) -> tuple[bool, bool]:
        """(save a checkpoint, stop) after this step, when `step` steps are done. Rank 0 only."""
        return False, False

    def save(self, step: int, state: TrainState) -> None:
        """Write this worker's part of a checkpoint; may go on in the background, from a copy."""
        return

    def written(self) -> tuple[int, int]:
        """Of the checkpoint under way, (1 if this worker's part is whole, 1 if it was given up)."""
        return 0, 0

    def heard(self, whole: int, failed: int) -> None:
        """`written` summed over the workers, each step: a checkpoint exists once all parts are whole."""
        return

    def wait(self) -> None:
        """Until this worker's part is whole or given up, and what `heard` set off is done."""
        return


def train(
    recipe: Recipe,
    config: Training,
    world: World,
    observer: Observer,
    restore: Callable[[TrainState], int] | None = None,
) -> tuple[Task, bool]:
    """Train to the end, or until the observer wishes to stop. Returns the task and whether it ran to the end.

    `restore` puts a checkpoint into the state and returns the number of steps done. Raises Diverged, and WrongInput for
    settings that do not go together.
    """
    precision = autocast(config, world.device)
    torch.manual_seed(stream_seed(config.seed, "initial weights"))
    task = recipe.build().to(world.device)
    ready_layers(task, config)
    module = wrap(task, world)
    optimizers = {phase.name: build_optimizer(task, phase, config) for phase in task.phases}
    state = TrainState(task, optimizers)
    if config.ema:
        begin_average(state)
    if config.early_stopping or config.keep == "best":
        measured = validate(recipe, task, "validation", config, world, at_most=1)
        check_metrics(config, list(measured), recipe.num_samples("validation"))
    first = restore(state) if restore else 0
    num_samples = recipe.num_samples("train")
    num_steps = config.num_steps(num_samples)
    order = SampleOrder(stream_seed(config.seed, "samples"), num_samples)
    validate_steps = _validation_steps(config, num_samples, num_steps)
    diagnosis = Diagnosis(task, config.diagnose_every, world)
    pending: dict[str, float] = {}
    names: list[str] = []
    epoch_begun = -1
    last: dict[str, float] = {}
    last_counts: dict[str, float] = {}

    for step in range(first, state.facts.get("ended", num_steps)):
        positions = batch_positions(step, config.batch_size, world.rank, world.size)
        epoch, index = order.at(positions)
        epoch_now = step * config.batch_size // num_samples
        if epoch_now != epoch_begun:
            recipe.refresh(task, epoch_now)
            epoch_begun = epoch_now
        keys = SampleKeys.of(stream_seed(config.seed, "sample"), epoch, index)
        cut = partial(_cut, recipe, index, keys, world)
        batches = [cut(part) for part in micro_batches(len(index), config, world, task.additive)]

        own: dict[str, float] = {}
        for batch in batches:
            for name, count in task.counts(batch).items():
                own[name] = own.get(name, 0.0) + float(count)
        names = names or sorted(own)
        wishes = observer.wishes(step + 1) if world.rank == 0 else (False, False)
        message = world.sum(
            torch.tensor(
                [own[name] for name in names]
                + [pending.get(name, 0.0) for name in names]
                + [*wishes, *observer.written()],
                dtype=torch.float64,
            )
        ).tolist()
        saving, stopping, written, failed = (int(value) for value in message[-4:])
        observer.heard(written, failed)
        counts = dict(zip(names, message, strict=False))
        if step > first and world.rank == 0:
            _report(observer, step, last, dict(zip(names, message[len(names) :], strict=False)), last_counts)

        seed = stream_seed(config.seed, "dropout", step, world.rank)
        torch.manual_seed(seed)
        task.train()
        task.before_step(step, num_steps)
        rate = learning_rate(config, step, num_steps)
        pending, norm = {}, 0.0
        diagnosis.begin(step + 1)
        for phase in task.phases:
            if not phase.span[0] * num_steps <= step < phase.span[1] * num_steps:
                continue
            optimizer = optimizers[phase.name]
            optimizer.zero_grad(set_to_none=True)
            for number, batch in enumerate(batches):
                with meeting(module, last=number + 1 == len(batches)):
                    with precision(), diagnosis.forward():
                        sums = module(batch, phase=phase.name)
                    total = sum(
                        task.loss_weight(name) * value * (world.size / max(counts[name], 1.0))
                        for name, value in sums.items()
                    )
                    total.backward()
                for name, value in sums.items():
                    pending[name] = pending.get(name, 0.0) + float(value.detach())
            parameters = [value for group in optimizer.param_groups for value in group["params"]]
            with diagnosis.update(parameters):
                norm = clip(parameters, phase.of(config).clip_norm or math.inf)
                for group in optimizer.param_groups:
                    group["lr"] = rate * phase.learning_rate_scale
                if not math.isfinite(norm):
                    torch.manual_seed(seed)
                    again = Share(recipe, index, batches, cut, partial(_losses, task, phase.name, precision))
                    diverged = explain(step + 1, task, again, world)
                    if world.rank == 0:
                        observer.finding(step + 1, str(diverged))
                    raise diverged
                optimizer.step()
        task.after_step(step, world.sum)
        if config.ema:
            update_average(state, config.ema, step + 1)
        last, last_counts = {"learning_rate": rate, "gradient_norm": norm, **diagnosis.metrics()}, counts
        if world.rank == 0:
            for sentence in diagnosis.findings():
                observer.finding(step + 1, sentence)

        if step + 1 in validate_steps or step + 1 == num_steps:
            observer.say("answering the validation split")
            with averaged(state):
                found = validate(recipe, task, "validation", config, world)
                is_best, ends = judge(config, state.facts, found, step + 1)
                if is_best:
                    keep_as_best(state)
            last |= {f"validation_{name}": value for name, value in found.items()}
            if ends:
                state.facts["ended"] = step + 1
        at_end = step + 1 == state.facts.get("ended", num_steps)
        if saving or stopping or at_end:
            # The step's own losses have not met yet: settle them, so that the log is complete up to the checkpoint.
            losses = world.sum(torch.tensor([pending.get(name, 0.0) for name in names], dtype=torch.float64)).tolist()
            if world.rank == 0:
                _report(observer, step + 1, last, dict(zip(names, losses, strict=True)), counts)
            if stopping or at_end:
                settle(observer, world)  # the checkpoint before: one is written at a time
            observer.save(step + 1, state)
            if stopping or at_end:
                settle(observer, world)
            pending, first = {}, step + 1
        if at_end:
            break
        if stopping:
            return task, False
    settle_weights(state)
    return task, True


def _cut(recipe: Recipe, index: np.ndarray, keys: SampleKeys, world: World, part: slice) -> Batch:
    """A part of a worker's samples as a batch on its device."""
    return to_device(recipe.batch("train", index[part], SampleKeys(keys.keys[part])), world.device)


def _losses(task: Task, phase: str, precision: Callable[[], Any], batch: Batch) -> dict[str, torch.Tensor]:
    with precision():
        return task(batch, phase=phase)


def settle(observer: Observer, world: World) -> None:
    """Wait until the checkpoint under way is whole, or given up, on every worker."""
    observer.wait()
    written, failed = world.sum(torch.tensor(observer.written(), dtype=torch.float64)).tolist()
    observer.heard(int(written), int(failed))
    observer.wait()


def validate(
    recipe: Recipe, task: Task, split: str, config: Training, world: World, at_most: int | None = None
) -> dict[str, float]:
    """The task's measures over a whole split, or `at_most` so many samples of it, each worker its share; the same masks
    and noise every time."""
    task.eval()
    totals: dict[str, list[float]] = {}
    num_samples = min(recipe.num_samples(split), at_most or sys.maxsize)
    mine = np.arange(world.rank, num_samples, world.size)
    with torch.no_grad():
        for begin in range(0, -(-num_samples // world.size), 4 * config.batch_size):
            index = mine[begin : begin + 4 * config.batch_size]
            spare = not len(index)  # FSDP2 gathers weights in each forward: a worker without samples takes part too
            index = np.zeros(1, mine.dtype) if spare else index
            keys = SampleKeys.of(stream_seed(config.seed, "validation"), np.zeros_like(index), index)
            for name, (total, count) in task.measure(to_device(recipe.batch(split, index, keys), world.device)).items():
                so_far = totals.setdefault(name, [0.0, 0.0])
                so_far[0] += 0.0 if spare else total
                so_far[1] += 0.0 if spare else count
    names = sorted(totals)
    if world.size > 1:  # a worker whose share is empty still has to meet the others
        gathered: list[Any] = [None] * world.size
        dist.all_gather_object(gathered, names)
        names = sorted({name for one in gathered for name in one})
    values = torch.tensor([totals.get(name, [0.0, 0.0]) for name in names], dtype=torch.float64).reshape(-1, 2)
    world.sum(values)
    return {name: float(total / max(count, 1.0)) for name, (total, count) in zip(names, values.tolist(), strict=True)}


def build_optimizer(task: Task, phase: Phase, config: Training) -> torch.optim.Optimizer:
    """Weight decay on matrices only: decaying biases and norms' scales pulls them to 0 for no gain."""
    config = phase.of(config)
    owned = [value for name, value in task.named_parameters() if value.requires_grad and phase.owns(name)]
    groups = [
        {"params": [value for value in owned if value.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [value for value in owned if value.ndim < 2], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.betas[0])
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def learning_rate(config: Training, step: int, num_steps: int) -> float:
    """Linear warm-up, then the schedule's decay to the final rate at the end of the run."""
    warmup = round(config.warmup * num_steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    if config.schedule == "constant":
        return config.learning_rate
    share = (step - warmup) / max(num_steps - warmup, 1)
    height = 0.5 * (1 + math.cos(math.pi * share)) if config.schedule == "cosine" else 1 - share
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * height


def micro_batches(num_samples: int, config: Training, world: World, additive: bool) -> list[slice]:
    """A worker's share in parts. Raises WrongInput when the loss forbids parts, or the batch is too small for them."""
    parts = config.num_micro_batches(world.size, additive)
    edges = np.linspace(0, num_samples, parts + 1).round().astype(int)
    return [slice(begin, end) for begin, end in pairwise(edges) if end > begin]


def _report(
    observer: Observer, step: int, extra: dict[str, float], sums: dict[str, float], counts: dict[str, float]
) -> None:
    losses = {name: sums[name] / max(counts[name], 1.0) for name in sums}
    observer.metrics(step, losses | extra)


def _validation_steps(config: Training, num_samples: int, num_steps: int) -> set[int]:
    every = config.validate_every * num_samples / config.batch_size
    return {round(every * number) for number in range(1, int(num_steps / every) + 1)}
