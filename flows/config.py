"""The whole of an experiment file: what training reads, and gates, promotion policy, schedule and monitor beside it."""

from typing import Any

from flows.inference.policy import parse_monitor
from flows.judging.gate import parse_gates, refuse_misfits
from flows.orchestration.schedule import parse_schedule
from flows.promotion.policy import parse_policy
from infra.errors import WrongInput
from training.evaluation import load_kind
from training.experiment import Experiment, load_experiment

DEFAULT_GATES: dict[str, Any] = {
    "threshold": {"metric": "accuracy", "minimum": 0.5},
    "champion": {"margin": 0.02},
    "baseline": {"margin": 0.02},
    "beats_baseline": {"severity": "warn"},
    "drift": {},
    "contract": {},
    "package": {},
    "answers": {},
}
"""For an experiment that names no gates: none of them is a reason to let a model pass unseen."""


def default_gates(kind: str) -> dict[str, Any]:
    """Those for a kind of evaluation: by its first metric, and without a threshold where no value means the same for
    all data."""
    metric = next(iter(load_kind(kind).metrics))
    if metric == DEFAULT_GATES["threshold"]["metric"]:
        return DEFAULT_GATES
    by_metric = {name: {**DEFAULT_GATES[name], "metric": metric} for name in ("champion", "baseline", "beats_baseline")}
    return {name: by_metric.get(name, settings) for name, settings in DEFAULT_GATES.items() if name != "threshold"}


def load_config(name: str, overrides: list[str] | tuple[str, ...] = ()) -> Experiment:
    """The experiment of that name or file, every section checked. Raises WrongInput in one line."""
    experiment = load_experiment(name, overrides)
    where = f"experiment {experiment.name}"
    kind = experiment.recipe_settings.evaluates
    if not experiment.gates and kind:
        experiment = experiment.model_copy(update={"gates": default_gates(kind)})
    gates = parse_gates(experiment.gates, where)
    if kind:
        refuse_misfits(gates, experiment.recipe, kind, where)
    parse_policy(experiment.promotion, where)
    parse_schedule(experiment.schedule, where)
    parse_monitor(experiment.monitor, where)
    if experiment.training.batch_size < experiment.scaling.workers:
        raise WrongInput(
            f"{where}: training.batch_size: {experiment.training.batch_size} samples do not go round "
            f"{experiment.scaling.workers} workers; raise it or lower scaling.workers"
        )
    return experiment
