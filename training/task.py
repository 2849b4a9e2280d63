"""The protocol between the loop and a recipe.

The loop knows nothing of texts or images. It asks a `Recipe` for batches and a `Task`, and a `Task` for losses.

A `Task` is the module that DDP or FSDP2 wraps, so that their hooks fire: `forward(batch)` returns every loss as a *sum*
over its items, `counts(batch)` how many items that is, known without a forward pass. The loop adds the counts over all
micro-batches and workers before the first backward and backpropagates

    weight x sum x world_size / count

because DDP and FSDP2 average gradients over workers. Then the gradient is that of the mean over the global batch, for
any number of workers and micro-batches.

How the kinds of model fit, without a branch in the loop:

- *two stages* (an image codebook, then a transformer over its codes): two experiments; the second names the first in
  `from:` and finds its files in `Recipe.sources`. A frozen teacher is the same, kept in `eval()` and out of `phases`.
- *contrastive, two towers*: `additive = False`; `forward` gathers across workers with gradient
  (`torch.distributed.nn.all_gather`) and returns the sum over its own rows. The loop refuses to split such a batch.
- *frozen parts*: `requires_grad_(False)` in `Recipe.build`; only what needs a gradient reaches an optimiser.
- *phases* (parts trained in turn, or against each other): several `Phase`s, each with its parameters, its own
  optimiser and its span of the run. In one step the active phases follow each other, each with its own forward, which
  is told the phase and returns that phase's losses.
- *state outside the gradient* (EMA weights, an EMA codebook): a buffer, changed in `after_step`, with sums over
  workers through the `reduce` it is given.
- *values that depend on the step* (annealed temperature, noise schedule): `before_step` sets them. Noise itself is
  drawn in `Recipe.batch` from the samples' keys, or in `forward` from torch's generator, which the loop seeds with
  (seed, step, rank).
- *packed sequences*: a batch is what `Recipe.batch` returns; the loop only moves its tensors to the device.
- *sharded parameters*: the loop shards `Task.shards()` (FSDP2) instead of wrapping in DDP.
- *fits without gradients* (trees, a tokenizer, a linear baseline): not here; `training.fit`.
- *a periodic pass that chooses data* (hard negatives): `Recipe.refresh`, called on every worker before each epoch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from training import model
from training.experiment import Training
from training.model import ModelFiles as ModelFiles
from training.model import Predictor as Predictor
from training.randomness import SampleKeys

Batch = Mapping[str, Any]
"""Tensors by name; `to_device` moves them, objects with a `to` included."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Parameters that one optimiser moves, over one span of the run."""

    name: str = "all"
    owns: Callable[[str], bool] = lambda name: True
    """Whether the parameter of that name is moved in this phase."""
    span: tuple[float, float] = (0.0, 1.0)
    """First and last share of the run in which the phase is active."""
    learning_rate_scale: float = 1.0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """What this phase has otherwise than the section `training`: optimizer, betas, weight_decay, clip_norm."""

    def of(self, config: Training) -> Training:
        """The settings of the phase's optimiser."""
        return config.model_copy(update=dict(self.overrides))


class Task(torch.nn.Module, ABC):
    additive: ClassVar[bool] = True
    """Whether each loss is a sum over samples. When not, a worker's share of a batch is never split."""
    phases: tuple[Phase, ...] = (Phase(),)

    @abstractmethod
    def forward(self, batch: Batch, phase: str = "all") -> dict[str, torch.Tensor]:
        """Every loss of this phase as a sum, a scalar tensor."""

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, float]:
        """The denominator of each loss: how many items its sum is over."""

    def loss_weight(self, name: str) -> float:
        """The weight of a loss in what is minimised."""
        return 1.0

    @abstractmethod
    def initial_losses(self) -> dict[str, float]:
        """The mean that an untrained model should show of each loss of which that is known (not of those that depend
        on what another model says): a task that starts elsewhere is built wrong."""

    def measure(self, batch: Batch) -> dict[str, tuple[float, float]]:
        """Validation: name -> (sum, count), summed over batches and workers. Default: the losses."""
        counts = self.counts(batch)
        return {name: (float(total), counts[name]) for name, total in self(batch).items()}

    def before_step(self, step: int, num_steps: int) -> None:
        """Set values that depend on the step."""

    def after_step(self, step: int, reduce: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Update state outside the gradient; `reduce` returns a tensor's sum over the workers."""

    def shards(self) -> list[torch.nn.Module]:
        """The parts to shard one by one (FSDP2), inner ones first: a transformer's layers. Default: none of its own."""
        return []


class Recipe(model.Recipe):
    """One kind of model that the loop trains: how its batches are made, its task built, its model saved."""

    @abstractmethod
    def batch(self, split: str, index: np.ndarray, keys: SampleKeys) -> Batch:
        """The samples of these indexes (N,), with all randomness drawn from `keys`, one key a sample."""

    def num_tokens(self, split: str) -> int | None:
        """Tokens of all samples together, where samples are made of tokens."""
        return None

    @abstractmethod
    def build(self) -> Task:
        """The task, on CPU, its initial weights a function of torch's seed alone."""

    def refresh(self, task: Task, epoch: int) -> None:
        """Choose data for the epoch that begins (hard negatives)."""

    @abstractmethod
    def save(self, task: Task, folder: Path) -> ModelFiles:
        """Write weights (safetensors), configuration and tokenizer."""


def to_device(batch: Batch, device: torch.device) -> Batch:
    return {name: value.to(device) if hasattr(value, "to") else value for name, value in batch.items()}
