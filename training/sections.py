"""The sections of an experiment that every recipe shares: how long and how fast it trains, and where."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from infra.errors import WrongInput


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True)


class Budget(Strict):
    """What a run may take, all its attempts together. Used up, it stops after a checkpoint; raised, it goes on."""

    hours: float | None = Field(None, gt=0)
    kwh: float | None = Field(None, gt=0)
    """Energy as codecarbon estimates it, over all nodes."""
    kgco2e: float | None = Field(None, gt=0)
    """CO2 that goes with the energy, by the setting `country`."""


class EarlyStopping(Strict):
    """When the run ends before its last step: once a validation metric no longer improves."""

    metric: str
    """As the validation measures call it: `loss`, `accuracy`."""
    patience: int = Field(3, ge=1)
    """Looks at the validation split without improvement before the run ends."""
    minimum_change: float = Field(0.0, ge=0)
    """What counts as an improvement, in the metric's own unit."""
    mode: Literal["minimum", "maximum"] | None = None
    """Which end of the metric is the better one; null: losses, errors and perplexities fall, all else rises."""


class Training(Strict):
    """How long and how fast; the same fields for every recipe."""

    epochs: float | None = Field(None, gt=0, le=100_000)
    """Passes over the training split; give this or `steps`."""
    steps: int | None = Field(None, ge=1)
    """Optimiser steps; give this or `epochs`."""
    batch_size: int = Field(32, ge=1, le=1_000_000)
    """Samples per optimiser step over all workers together, whatever their number."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Samples a worker holds at once; a smaller one needs less memory and changes no result. None: its whole share."""
    learning_rate: float = Field(1e-3, gt=0, le=10)
    """Peak learning rate."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warm-up."""
    final_learning_rate: float = Field(0.0, ge=0)
    """Where the schedule ends; at most `learning_rate`."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = Field(0.01, ge=0, le=10)
    """Decoupled weight decay, on matrices only (no biases, no norms)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates; the first is SGD's momentum."""
    clip_norm: float | None = Field(1.0, gt=0)
    """Largest norm of the whole gradient; None: not clipped."""
    seed: int = Field(0, ge=0, lt=2**31)
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """auto: bf16 on a GPU that has it, float32 elsewhere (bf16 is slower on a CPU without native support)."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay per step of an exponential moving average of the weights; the averaged ones are validated and saved."""
    keep: Literal["last", "best"] = "last"
    """Which weights become the model: those of the last step, or the best that a look at the validation split saw."""
    best_by: str | None = None
    """The validation metric that `keep: best` goes by; null: that of `early_stopping`, else the first loss."""
    early_stopping: EarlyStopping | None = None
    compile: bool = False
    """torch.compile the model's layers: minutes at the start, faster steps after."""
    activation_checkpointing: bool = False
    """Compute each layer's activations again in the backward pass instead of keeping them: about a third more time for
    a fraction of the memory, and the same results."""
    diagnose_every: int | None = Field(50, ge=1)
    """Steps between two looks into the layers (gradient, update, dead and saturated units); null: none."""
    validate_every: float = Field(1.0, gt=0)
    """Epochs between two looks at the validation split; there is always one at the end."""
    checkpoint_every_s: float = Field(60, gt=0)
    """Seconds between two checkpoints."""
    checkpoint_every_steps: int | None = Field(None, ge=1)
    """Steps between two checkpoints, beside the seconds: whichever comes first."""
    keep_checkpoints: int = Field(2, ge=1)
    """Newest checkpoints that are kept, beside the best one."""
    budget: Budget | None = None

    @model_validator(mode="after")
    def _one_length(self) -> "Training":
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of 'epochs' and 'steps'")
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate: {self.final_learning_rate:g} is above the peak, {self.learning_rate:g}; lower it"
            )
        if self.best_by and self.keep != "best":
            raise ValueError("best_by says what 'keep: best' goes by; add that, or take best_by out")
        return self

    def num_steps(self, num_samples: int) -> int:
        """Optimiser steps of the whole run."""
        if self.steps is not None:
            return self.steps
        return max(1, -(-int((self.epochs or 0) * num_samples) // self.batch_size))

    def num_micro_batches(self, workers: int, additive: bool) -> int:
        """Parts of each worker's share of a batch: the same number on all, since each part ends in a collective.

        additive: whether the losses sum over samples. Raises WrongInput when the loss forbids parts, or the batch is
        too small for them.
        """
        share = -(-self.batch_size // workers)
        size = min(self.micro_batch_size or share, share)
        if size < share and not additive:
            raise WrongInput(
                f"training.micro_batch_size: {size} splits a batch whose loss does not sum over samples; leave it out, "
                "or lower training.batch_size"
            )
        parts = -(-share // size)
        if self.batch_size // workers < parts:
            raise WrongInput(
                f"training.batch_size: {self.batch_size} gives some of {workers} workers fewer micro-batches than "
                "others; make it a multiple of scaling.workers, or raise training.micro_batch_size"
            )
        return parts


class Scaling(Strict):
    """Where it runs. Not part of what a result depends on: another number of workers trains the same model."""

    workers: int = Field(1, ge=1, le=4096)
    gpus_per_worker: float = Field(0, ge=0, le=8)
    sharding: Literal["ddp", "fsdp"] = "ddp"
    """ddp: each worker holds the whole model. fsdp: each holds a part of weights and optimiser state (FSDP2), for
    models too large for one; results are equal to 1e-6, and to the bit for resuming under the same choice."""
    max_failures: int = Field(2, ge=0)
    """How often a dead worker is replaced before the run gives up."""
