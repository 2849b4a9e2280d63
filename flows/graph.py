"""An experiment as a list of steps, each after those it needs: the plan, and what is run."""

from flows.evaluate import evaluate_step
from flows.ingest import register_step
from flows.models import versions
from flows.prepare import prepare_step
from flows.promote import gate_step, promote_step
from flows.resume import Going
from flows.sources import read_sources
from flows.steps import Step
from flows.train import train_step
from infra.errors import SlipwayError, WrongInput
from infra.settings import Settings
from training.experiment import Experiment, load_experiment

KINDS = ("register", "prepare", "train", "evaluate", "gate", "promote")
"""In the order of a run; `until` names the last one wanted."""


def build_graph(
    settings: Settings,
    experiment: Experiment,
    *,
    until: str = "promote",
    read_sources_again: bool = True,
    ablation: bool = False,
    going: Going = Going(),  # noqa: B008 (frozen)
) -> list[Step]:
    """All steps of an experiment, those of the experiments it builds on first.

    `read_sources_again`: begin with registering, as `retrain` does; else train on what is registered, as `train` does.
    """
    steps: dict[str, Step] = {}
    _training(settings, experiment, steps, read_sources_again, going, ())
    wanted = KINDS.index(until)
    if wanted >= KINDS.index("evaluate") and experiment.recipe_settings.evaluates:
        name = experiment.name
        bare = ""
        if ablation:
            if not experiment.sources:
                raise WrongInput(f"experiment {name}: starts from random weights already; there is nothing to ablate")
            start = experiment.model_copy(update={"name": f"{name}-random-start", "sources": {}})
            _training(settings, start, steps, read_sources_again, Going(), ())
            bare = start.name
        _add(steps, evaluate_step(settings, name, (f"train {bare}",) if bare else (), bare))
        if wanted >= KINDS.index("gate"):
            _add(steps, gate_step(settings, experiment, ()))
        if wanted >= KINDS.index("promote"):
            _add(steps, promote_step(settings, experiment, ()))
    return list(steps.values())


def _training(
    settings: Settings,
    experiment: Experiment,
    steps: dict[str, Step],
    register: bool,
    going: Going,
    above: tuple[str, ...],
) -> None:
    if experiment.name in above:
        raise WrongInput(f"experiment {experiment.name}: `from:` leads back to itself ({' -> '.join(above)})")
    bases = []
    for source in read_sources(settings, experiment).values():
        if source.experiment:
            base = load_experiment(source.experiment)
            try:
                _training(settings, base, steps, register, Going(), (*above, experiment.name))
            except SlipwayError as error:
                if known := versions(settings.object_store, base.name):
                    there_is = f"the model of it that there is: --set {source.role}={known[-1].ref}"
                    raise type(error)(f"{error}; or give {experiment.name} {there_is}") from error
                raise
            bases.append(f"train {base.name}")
    needs = tuple(bases)
    if register and "@" not in experiment.dataset:
        step = register_step(settings, experiment)
        _add(steps, step)
        needs = (step.name, *needs)
    _add(steps, prepare_step(settings, experiment, needs))
    _add(steps, train_step(settings, experiment, needs, going))


def _add(steps: dict[str, Step], step: Step) -> None:
    steps.setdefault(step.name, step)
