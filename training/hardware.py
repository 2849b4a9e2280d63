"""What a model's layers are made ready for: the number format that the hardware is fast in, memory, compilation."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from infra.errors import WrongInput
from training.experiment import Training
from training.refusals import cpu_has_bf16, refuse_slow_bf16
from training.task import Task


def autocast(config: Training, device: torch.device) -> Callable[[], Any]:
    """The context of the forward passes. Raises WrongInput for bf16 on hardware that is slow in it."""
    native = torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else cpu_has_bf16()
    refuse_slow_bf16(config.precision, native, device.type.upper())
    if config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda" and native):
        return lambda: torch.autocast(device.type, torch.bfloat16)
    return nullcontext


def ready_layers(task: Task, config: Training) -> None:
    """Activation checkpointing and compilation of the task's layers, in place; before DDP or FSDP2 wraps them."""
    if config.activation_checkpointing:
        if not task.shards():
            raise WrongInput(
                "training.activation_checkpointing: this recipe's task names no layers (`shards`); leave it out, or "
                "lower training.micro_batch_size to need less memory"
            )
        for layer in task.shards():
            # Not torch's wrapper module: it would change the parameters' names.
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    if config.compile:
        for layer in task.shards() or [task]:
            layer.compile(dynamic=True)
