"""Settings that cannot work together, found before anything starts; each refusal says the way out. No torch here."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import WrongInput

if TYPE_CHECKING:
    from training.experiment import Experiment

CPU_FACTS = Path("/proc/cpuinfo")


def refuse_settings(experiment: "Experiment", additive: bool, where: str) -> None:
    """What the experiment itself shows. `additive`: whether the recipe's losses sum over samples. Raises WrongInput."""
    training, scaling = experiment.training, experiment.scaling
    share = -(-training.batch_size // scaling.workers)
    size = min(training.micro_batch_size or share, share)
    if size < share and not additive:
        raise WrongInput(
            f"{where}: training.micro_batch_size: {size} splits a batch, and the loss of recipe '{experiment.recipe}' "
            "does not sum over samples; leave it out, or lower training.batch_size"
        )
    if training.batch_size // scaling.workers < -(-share // size):
        raise WrongInput(
            f"{where}: training.batch_size: {training.batch_size} gives some of {scaling.workers} workers fewer "
            "micro-batches than others; make it a multiple of scaling.workers, or raise training.micro_batch_size"
        )
    if training.compile and training.activation_checkpointing:
        raise WrongInput(
            f"{where}: training.compile: compiles nothing under activation_checkpointing; leave one of them out"
        )
    if training.compile and scaling.sharding == "fsdp":
        raise WrongInput(
            f"{where}: training.compile: does not go with scaling.sharding fsdp here; write sharding: ddp, or leave "
            "compile out"
        )


def section_of_fit(given: "Mapping[str, Any]", recipe: str, where: str) -> dict[str, Any]:
    """The section `training` of a recipe that is fitted in one go: the seed, and the rest as it is by default.

    Raises WrongInput for a field that says something, for it would change nothing.
    """
    from training.experiment import Training

    usual = Training(steps=1).model_dump(mode="json")
    for name, value in given.items():
        if name != "seed" and name in usual and value != usual[name]:
            raise WrongInput(
                f"{where}: training.{name}: recipe '{recipe}' is fitted in one go and has none; leave it out, or look "
                f"for its like among the recipe's settings (slipway recipes draft {recipe} DATASET)"
            )
    return {**given, "steps": 1}


def refuse_scaling_of_fit(experiment: "Experiment", where: str) -> None:
    from training.experiment import Scaling

    usual = Scaling()
    for name in Scaling.model_fields:
        if (found := getattr(experiment.scaling, name)) != getattr(usual, name):
            raise WrongInput(
                f"{where}: scaling.{name}: {found}: recipe '{experiment.recipe}' is fitted in one process; leave it out"
            )


def refuse_here(experiment: "Experiment", counts: Mapping[str, int]) -> None:
    """What the dataset's splits and this machine show. counts: rows by split. Raises WrongInput."""
    training = experiment.training
    judged = "training.early_stopping" if training.early_stopping else "training.keep: best"
    if (training.early_stopping or training.keep == "best") and not counts.get("validation"):
        raise WrongInput(
            f"{judged}: dataset '{experiment.dataset}' has no validation split to judge by; give its contract one "
            "(slipway.split), or leave it out"
        )
    if not experiment.scaling.gpus_per_worker:
        refuse_slow_bf16(training.precision, cpu_has_bf16(), "CPU")


def refuse_slow_bf16(precision: str, native: bool, device: str) -> None:
    if precision == "bf16" and not native:
        raise WrongInput(
            f"training.precision: bf16 is emulated on this {device}, about 4 times slower than float32; write auto"
        )


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies in bf16 itself (Intel and AMD: avx512_bf16, amx_bf16; ARM: bf16)."""
    try:
        facts = CPU_FACTS.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(facts)
