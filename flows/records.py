"""Figures really reached: one record an experiment, small JSON beside the experiments, made of finished runs.

Only `slipway recipes record RUN...` writes one: of runs of an experiment as it is shipped, on one dataset version, that
differ in nothing but the seed. A figure is the mean over the runs; its interval is over seeds and examples, see `mean`.
"""

import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_contracts import registry
from flows.compare import run_of
from flows.evaluate import ask, newest_evaluation
from flows.explanation import explain
from infra.artifacts import check_format
from infra.digests import digest
from infra.errors import Refused, WrongInput, choices
from infra.settings import Settings
from infra.store import Store
from training.evaluation import Kind, load_kind
from training.experiment import FOLDER as EXPERIMENTS
from training.experiment import Experiment, experiment_path, load_experiment, validate_experiment
from training.recipe import settings_class
from training.run_log import RunLog, RunState, read_state
from training.sections import Training

FOLDER = EXPERIMENTS / "records"
"""Of what is shipped."""
FORMAT = 1
Figures = dict[str, dict[str, float]]
"""Name -> value, and the interval's low and high where one is known."""
PARTS = {"model": "", "baseline": "baseline_", "judge": "judge_", "reranking": "reranking_"}
"""Parts of an evaluation whose figures are recorded -> what their names begin with."""
NORMAL = 1.96
"""Standard errors beyond each end of a 95 % interval. Student's factor would double that of three seeds, and a goal is
met when the interval covers it: this is the stricter one."""


def path_of(experiment: str) -> Path:
    """Beside the experiment's file. Raises WrongInput for an experiment there is none of."""
    return experiment_path(experiment).parent / "records" / f"{experiment}.json"


def read(experiment: str) -> dict[str, Any] | None:
    """The record of an experiment; None where there is none."""
    try:
        path = path_of(experiment)
    except WrongInput:
        return None
    if not path.is_file():
        return None
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WrongInput(f"record {path}: is not JSON ({error}); record it again") from error
    check_format(body, FORMAT, str(path))
    return body


def record(settings: Settings, asked: Sequence[str], wanted_of: Callable[[str], set[str]]) -> Path:
    """Write the record of finished runs, each given by its id or by the model it became. Returns its path.

    wanted_of: the figures that goals ask of an experiment. Raises WrongInput and Refused where the runs are not of one
    experiment as it is shipped, are not finished, or lack a figure.
    """
    store = settings.object_store
    states = [read_state(RunLog(store, run_of(store, one))) for one in asked]
    body = _common(states)
    wanted = wanted_of(body["experiment"])
    runs = [_describe(store, state, wanted) for state in states]
    names = set.intersection(*(set(run["figures"]) for run in runs))
    body |= {
        "runs": runs,
        "figures": {name: mean([run["figures"][name] for run in runs]) for name in sorted(names)},
        "hardware": hardware(),
        "recorded": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path = path_of(body["experiment"])
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(aside, path)
    return path.absolute()


def _common(states: Sequence[RunState]) -> dict[str, Any]:
    """What all the runs share, which is what a figure of them is a figure of."""
    shared: dict[str, Any] = {}
    seeds: dict[int, str] = {}
    for state in states:
        if state.status != "finished":
            raise Refused(f"run {state.run}: is {state.status}; record finished runs")
        ran = validate_experiment(state.first["experiment"], f"run {state.run}")
        ingredients = state.first["ingredients"]
        if changed := changed_since({"ran": _deciding(ran)}, load_experiment(ran.name)):
            raise Refused(
                f"run {state.run}: is not of experiment {ran.name} as it is shipped ({'; '.join(changed)}); record "
                "what the file says, or change the file"
            )
        if other := seeds.get(ran.training.seed):
            raise WrongInput(f"run {state.run}: has the seed {ran.training.seed}, as run {other}; give one of them")
        seeds[ran.training.seed] = state.run
        dataset = state.first["dataset"]
        found = {
            "format": FORMAT,
            "experiment": ran.name,
            "ran": _deciding(ran),
            "dataset": f"{dataset['name']}@{dataset['digest']}",
            "sources": ingredients.get("from", {}),
            "code": digest(ingredients.get("code", {})),
            "libraries": ingredients.get("libraries", {}),
            "command": _command(ran),
            "precision": ran.training.precision,
        }
        for field, value in found.items():
            if (before := shared.setdefault(field, value)) != value:
                if field == "code":  # a digest of what is told here
                    told = explain(states[0].first["ingredients"].get("code", {}), ingredients.get("code", {}), "code")
                else:
                    told = explain({field: before}, {field: value})
                raise Refused(
                    f"run {state.run}: differs from {states[0].run} in more than the seed ({'; '.join(told)})"
                )
    return shared


def _deciding(experiment: Experiment) -> dict[str, Any]:
    """The part of an experiment that decides a figure, but for the seed, the few labels drawn, where a base lies, and
    the precision that the hardware is fast in, which a record names beside it."""
    learning = {name: value for name, value in experiment.learning.items() if name not in ("seed", "precision")}
    settings = {name: value for name, value in experiment.settings.items() if name != "draw"}
    return {"recipe": experiment.recipe, "dataset": experiment.dataset_name, "settings": settings,
            "training": learning, "from": sorted(experiment.sources)}  # fmt: skip


def changed_since(record: dict[str, Any], shipped: Experiment) -> list[str]:
    """What a record's runs had otherwise than the experiment has today; a later setting was at its default."""
    ran, today = record["ran"], _deciding(shipped)
    for section, kind in (("settings", settings_class(shipped.recipe)), ("training", Training)):
        usual = {name: field.default for name, field in kind.model_fields.items() if name not in ran[section]}
        later = {name: value for name, value in today[section].items() if name in usual and usual[name] == value}
        ran = {**ran, section: {**later, **ran[section]}}
    return explain(ran, today)


def _command(experiment: Experiment) -> str:
    """What trains one of the runs anew; folders of this machine are written as PATH."""
    shipped = load_experiment(experiment.name)
    given = [
        f"--set {role}={'PATH' if Path(value).is_absolute() or '/' in value else value}"
        for role, value in experiment.sources.items()
        if value != shipped.sources.get(role)
    ]
    if experiment.training.precision != shipped.training.precision:
        given.append(f"--set precision={experiment.training.precision}")
    if experiment.settings.get("labels_per_class"):
        given.append("--set draw=SEED")
    then = f" && slipway gate {experiment.name}" if settings_class(experiment.recipe).evaluates else ""
    return " ".join(["slipway train", experiment.name, *given, "--set seed=SEED"]) + then


def _describe(store: Store, state: RunState, wanted: set[str]) -> dict[str, Any]:
    figures = figures_of(store, state, wanted)
    if missing := sorted(wanted - set(figures)):
        name = state.first["experiment"]["name"]
        hint = f"; slipway gate {name} reads the test split" if missing[0].startswith("test_") else ""
        raise Refused(f"run {state.run}: has no figure '{missing[0]}', which the goals ask of {name}{hint}; "
                      f"{choices(missing[0], figures)}")  # fmt: skip
    return {
        "run": state.run,
        "seed": state.first["experiment"]["training"]["seed"],
        "model": state.ending["model"],
        "began": datetime.fromtimestamp(state.first["time"], UTC).isoformat(timespec="seconds"),
        "figures": figures,
    }


def figures_of(store: Store, state: RunState, wanted: set[str]) -> Figures:
    """What is known of a finished run: validation and test figures, size, seconds, energy, and what else is `wanted`.

    Validation figures are those of the weights that became the model; those that are wanted come with intervals over
    examples where the recipe has a kind of evaluation.
    """
    ending = state.ending
    best = state.checkpoints[-1].get("best", {}).get("step") if state.checkpoints else None
    until = best if state.first["experiment"]["training"]["keep"] == "best" and best else state.step
    last = {
        name: next((value for step, value in reversed(points) if step <= until), points[0][1])
        for name, points in state.curves().items()
    }
    found: Figures = {
        name: {"value": value} for name, value in last.items() if name in wanted or name.startswith("validation_")
    }
    found |= {f"test_{name}": {"value": value} for name, value in (ending.get("test") or {}).items()}
    counted: dict[str, Any] = {
        name: ending[name] for name in ("parameters", "steps", "energy_kwh", "co2_kg") if name in ending
    }
    counted["seconds"] = round(ending["time"] - state.first["time"], 1)
    counted |= ending.get("figures") or {}  # what the saved model told of itself
    found |= {name: {"value": value} for name, value in counted.items()}
    recipe = settings_class(state.first["experiment"]["recipe"])
    if recipe.evaluates:
        found |= _evaluated(store, state)
        kind = load_kind(recipe.evaluates)
        if any(f"validation_{name}" in wanted - _sure(found) for name in kind.metrics):
            found |= _on_validation(store, state, kind)
    return found


def _sure(figures: Figures) -> set[str]:
    return {name for name, one in figures.items() if "low" in one}


def _evaluated(store: Store, state: RunState) -> Figures:
    """Figures of the newest evaluation of the run's model, the baseline's beside them."""
    folder = newest_evaluation(store, state.first["experiment"]["name"], state.ending["model"])
    if folder is None:
        return {}
    body = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return {"times_judged": {"value": body["test_reads"]}, **_figures(body)}


def _on_validation(store: Store, state: RunState, kind: Kind) -> Figures:
    """As an evaluation, of the validation split, which may be looked at as often as one likes."""
    dataset, ran = state.first["dataset"], validate_experiment(state.first["experiment"], f"run {state.run}")
    version = f"{dataset['name']}@{dataset['digest']}"
    asked = ask(store, state.ending["model"], version, ran.recipe_settings, "validation")
    with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
        return _figures(kind.evaluate(asked, Path(scratch), lambda share, note: None))


def _figures(evaluation: dict[str, Any]) -> Figures:
    return {
        f"{evaluation['split']}_{prefix}{name}": value
        for who, prefix in PARTS.items()
        for name, value in evaluation.get(who, {}).items()
        if isinstance(value, dict) and {"value", "low", "high"} <= value.keys()
    }


def mean(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of one figure over runs of other seeds, with its interval and the number of seeds.

    Errors of two kinds, taken as independent, their squares added: that of the examples, which all seeds share, so more
    seeds make it no smaller (the mean of the runs' own intervals), and that of the seeds (s / sqrt(seeds)). A figure
    without an interval of its own has the second alone.
    """
    values = [one["value"] for one in figures]
    middle = statistics.fmean(values)
    seeds = NORMAL * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    below = statistics.fmean(one["value"] - one.get("low", one["value"]) for one in figures)
    above = statistics.fmean(one.get("high", one["value"]) - one["value"] for one in figures)
    low, high = middle - (below**2 + seeds**2) ** 0.5, middle + (above**2 + seeds**2) ** 0.5
    return {"value": middle, "low": low, "high": high, "seeds": len(values)}


def hardware() -> str:
    """Processor and cores of this machine, and its GPUs where torch sees some."""
    found = Path("/proc/cpuinfo")
    lines = found.read_text(encoding="utf-8", errors="replace").splitlines() if found.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    told = f"{os.cpu_count()} cores, {model or platform.processor() or platform.machine()}"
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return ", ".join([told, *gpus])


def reproduced(recorded: Figures, again: Figures, wanted: Iterable[str]) -> dict[str, tuple[float, bool]]:
    """Name -> (the figure of a run of today, whether it is within the recorded interval).

    A figure of one run without an interval of its own is compared to a part in a thousand.
    """
    found = {}
    for name in sorted(set(wanted) & set(recorded) & set(again)):
        one, value = recorded[name], again[name]["value"]
        room = 1e-3 * abs(one["value"]) if one["low"] == one["high"] else 0.0
        found[name] = (value, one["low"] - room <= value <= one["high"] + room)
    return found


def rerun(settings: Settings, experiment: str, overrides: Sequence[str], wanted: Iterable[str]) -> dict[str, Any]:
    """Train an experiment again as its record's first run was, and hold its figures against the recorded intervals.

    overrides: fields of the experiment, where its base lies for instance. Returns `run`, `seed` and `figures`: name ->
    recorded figure, value and whether it is within. Raises WrongInput where there is no record, Refused where data or
    settings are not those of the record.
    """
    from flows.config import load_config
    from flows.graph import build_graph
    from flows.resume import Going
    from flows.retrain import run_steps

    recorded = read(experiment)
    if recorded is None:
        names = [path.stem for path in path_of(experiment).parent.glob("*.json")]
        raise WrongInput(f"experiment '{experiment}': has no record; {choices(experiment, names)}")
    seed = recorded["runs"][0]["seed"]
    config = load_config(experiment, [*overrides, f"training.seed={seed}"])
    if changed := changed_since(recorded, config):
        raise Refused(f"experiment {experiment}: was recorded with other settings ({'; '.join(changed)})")
    store = settings.object_store
    version = registry.resolve(store, config.dataset)
    if (found := f"{version.name}@{version.digest}") != recorded["dataset"]:
        raise Refused(f"dataset {found}: the record is of {recorded['dataset']}; register those rows")
    until = "evaluate" if config.recipe_settings.evaluates else "train"
    steps = build_graph(settings, config, until=until, read_sources_again=False, going=Going(fresh=True))
    asked = {f"train {config.name}": "asked to train again (--rerun)"}
    report = run_steps(settings, steps, config.name, flow="train", asked=asked, whole_way=False)
    run = report.outputs[f"train {config.name}"]["run"]
    again = figures_of(store, read_state(RunLog(store, run)), set(wanted))
    compared = {*wanted, *(name for name in recorded["figures"] if name.startswith(("test_", "validation_")))}
    judged = {
        name: {"recorded": recorded["figures"][name], "value": value, "within": within}
        for name, (value, within) in reproduced(recorded["figures"], again, compared).items()
    }
    return {"experiment": experiment, "run": run, "seed": seed, "figures": judged}
