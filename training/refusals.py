"""Settings that cannot work together, found before anything starts; each refusal says the way out. No torch here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.errors import WrongInput
from training.sections import Scaling, Training

CPU_FACTS = Path("/proc/cpuinfo")


def refuse_settings(training: Training, scaling: Scaling, additive: bool, where: str) -> None:
    """What the experiment itself shows. `additive`: whether the recipe's losses sum over samples. Raises WrongInput."""
    try:
        training.num_micro_batches(scaling.workers, additive)
    except WrongInput as error:
        raise WrongInput(f"{where}: {error}") from None
    if training.compile and training.activation_checkpointing:
        raise WrongInput(
            f"{where}: training.compile: compiles nothing under activation_checkpointing; leave one of them out"
        )
    if training.compile and scaling.sharding == "fsdp":
        raise WrongInput(
            f"{where}: training.compile: does not go with scaling.sharding fsdp here; write sharding: ddp, or leave "
            "compile out"
        )


def section_of_fit(given: Mapping[str, Any], recipe: str, where: str) -> dict[str, Any]:
    """The section `training` of a recipe that is fitted in one go: the seed, and the rest as it is by default.

    Raises WrongInput for a field that says something, for it would change nothing.
    """
    usual = Training(steps=1).model_dump(mode="json")
    for name, value in given.items():
        if name != "seed" and name in usual and value != usual[name]:
            raise WrongInput(
                f"{where}: training.{name}: recipe '{recipe}' is fitted in one go and has none; leave it out, or look "
                f"for its like among the recipe's settings (slipway recipes draft {recipe} DATASET)"
            )
    return {**given, "steps": 1}


def refuse_scaling_of_fit(scaling: Scaling, recipe: str, where: str) -> None:
    usual = Scaling()
    for name in Scaling.model_fields:
        if (found := getattr(scaling, name)) != getattr(usual, name):
            raise WrongInput(
                f"{where}: scaling.{name}: {found}: recipe '{recipe}' is fitted in one process; leave it out"
            )


def refuse_here(training: Training, scaling: Scaling, dataset: str, counts: Mapping[str, int]) -> None:
    """What the dataset's splits and this machine show. counts: rows by split. Raises WrongInput."""
    judged = "training.early_stopping" if training.early_stopping else "training.keep: best"
    if (training.early_stopping or training.keep == "best") and not counts.get("validation"):
        raise WrongInput(
            f"{judged}: dataset '{dataset}' has no validation split to judge by; give its contract one "
            "(slipway.split), or leave it out"
        )
    if not scaling.gpus_per_worker:
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
