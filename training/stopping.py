"""Which look at the validation split was the best, and when no better one is to be expected."""

import math
from typing import Any

from infra.errors import WrongInput, choices
from training.experiment import Training

FALLING = ("loss", "error", "perplexity", "distance", "mae", "mse", "rmse", "wer", "cer")
"""Metrics that end so are better when lower."""


def check_metrics(config: Training, measured: list[str], num_validation: int) -> None:
    """Raises WrongInput where early stopping or `keep: best` goes by what validation does not measure."""
    asked = {"training.early_stopping.metric": config.early_stopping and config.early_stopping.metric,
             "training.best_by": config.best_by or (config.keep == "best" and _by(config, measured))}  # fmt: skip
    for field, metric in asked.items():
        if not metric:
            continue
        if not num_validation:
            raise WrongInput(
                f"{field}: there is no validation split to judge by; give the contract one, or leave it out"
            )
        if _plain(metric) not in measured:
            raise WrongInput(f"{field}: '{metric}' is not measured; {choices(_plain(metric), measured)}")


def judge(config: Training, facts: dict[str, Any], found: dict[str, float], step: int) -> tuple[bool, bool]:
    """After the look at the validation split when `step` steps were done: (these weights are the best so far, the run
    ends here). What it remembers goes into `facts` ("best", "early_stopping"), so that a resumed run judges alike."""
    is_best = ends = False
    if config.keep == "best":
        metric = _by(config, list(found))
        so_far = facts.get("best", {}).get("value")
        stopping = config.early_stopping
        mode = stopping.mode if stopping and _plain(stopping.metric) == metric else None
        if is_best := _better(found[metric], so_far, metric, mode):
            facts["best"] = {"step": step, "metric": metric, "value": found[metric]}
    if config.early_stopping:
        metric = _plain(config.early_stopping.metric)
        before = facts.get("early_stopping", {"value": None, "looks": 0})
        if _better(found[metric], before["value"], metric, config.early_stopping.mode,
                   config.early_stopping.minimum_change):  # fmt: skip
            facts["early_stopping"] = {"value": found[metric], "looks": 0}
        else:
            facts["early_stopping"] = {"value": before["value"], "looks": before["looks"] + 1}
        ends = facts["early_stopping"]["looks"] >= config.early_stopping.patience
    return is_best, ends


def _by(config: Training, measured: list[str]) -> str:
    stopping = config.early_stopping
    losses = [name for name in measured if name.endswith("loss")] or [*measured, "loss"]
    return _plain(config.best_by or (stopping.metric if stopping else losses[0]))


def _plain(metric: str) -> str:
    """As the task calls it: the run's metrics have it as `validation_<metric>`."""
    return metric.removeprefix("validation_")


def _better(value: float, than: float | None, metric: str, mode: str | None, change: float = 0.0) -> bool:
    if not math.isfinite(value):
        return False
    falls = mode == "minimum" if mode else metric.endswith(FALLING)
    return than is None or (than - value if falls else value - than) > change
