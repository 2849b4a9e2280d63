"""What a run is about to do, told before its first step: sizes, steps, memory; how long, once some steps are timed."""

from typing import TYPE_CHECKING, Any

from training.experiment import Training

if TYPE_CHECKING:
    from training.sharding import World
    from training.task import Recipe, Task

TIMED_STEPS = 5
"""After as many steps the time is estimated: the first ones also warm caches up."""


def outlook(recipe: "Recipe", task: "Task", training: Training, world: "World") -> dict[str, Any]:
    """Counts of the whole run; `memory_gb` is one worker's for weights, gradients, optimiser state and averages, in GB
    of 1e9 bytes: activations come on top, and grow with `micro_batch_size`."""
    values = list(task.parameters())
    size = sum(value.numel() * value.element_size() for value in values)
    trained = sum(value.numel() * value.element_size() for value in values if value.requires_grad)
    moments = 2 if training.optimizer == "adamw" else 1
    state = size + trained * (1 + moments) + size * (training.ema is not None) + size * (training.keep == "best")
    samples = recipe.num_samples("train")
    return {
        "parameters": sum(value.numel() for value in values),
        "trained_parameters": sum(value.numel() for value in values if value.requires_grad),
        "samples_per_epoch": samples,
        "tokens_per_epoch": recipe.num_tokens("train"),
        "steps": training.num_steps(samples),
        "batch_size": training.batch_size,
        "workers": world.size,
        "memory_gb": state / (world.size if world.sharding == "fsdp" else 1) / 1e9,
    }


def sentence(found: dict[str, Any]) -> str:
    tokens = f" ({found['tokens_per_epoch']:,} tokens)" if found["tokens_per_epoch"] else ""
    frozen = found["parameters"] - found["trained_parameters"]
    workers = f"{found['workers']} worker{'s' * (found['workers'] > 1)}"
    return (
        f"{found['parameters']:,} parameters{f', {frozen:,} of them frozen' if frozen else ''}; "
        f"{found['samples_per_epoch']:,} samples{tokens} an epoch; {found['steps']:,} steps of {found['batch_size']:,} "
        f"samples on {workers}; {found['memory_gb']:.2g} GB a worker, activations apart"
    )


def duration(seconds: float) -> str:
    """As a person says it: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
