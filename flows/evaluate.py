"""Evaluate: a model version on the test split of its dataset, beside a simple baseline, as its recipe's kind says."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_contracts import registry
from data_contracts.contract import Contract, image_columns
from flows import references
from flows.code_key import code_of
from flows.models import ModelVersion
from flows.steps import Outputs, Step, artifact_damage, libraries
from infra import artifacts
from infra.errors import WrongInput
from infra.progress import Progress
from infra.settings import Settings
from infra.store import Store
from training.evaluation import Asked, load_kind
from training.recipe import RecipeSettings, settings_class
from training.run_log import RunLog, read_state, read_tail


def evaluate_step(settings: Settings, name: str, needs: tuple[str, ...], ablation: str = "") -> Step:
    """`ablation`: the experiment that trained the same network from random weights, compared with when given."""
    store = settings.object_store
    trained = f"train {name}"

    def candidate(outputs: Outputs) -> ModelVersion:
        return references.resolve(store, f"{name}/{outputs[trained]['version']}")

    def random_start(outputs: Outputs) -> str:
        return outputs[f"train {ablation}"]["model"] if ablation else ""

    def ingredients(outputs: Outputs) -> dict[str, Any]:
        version = candidate(outputs)
        recipe = version.experiment["recipe"]
        kind = settings_class(recipe)
        return {
            "model": version.model,
            "dataset": version.dataset,
            "split": judged_split(store, version) if kind.evaluates else "",
            "ablation": random_start(outputs),
            "code": code_of(["flows.evaluate", f"training.recipes.{recipe}", *evaluation_code(recipe)]),
            "libraries": libraries("numpy", "scipy", "scikit-learn", *kind.libraries),
        }

    def run(outputs: Outputs, progress: Progress, key: str) -> dict[str, Any]:
        return {"evaluation": evaluate(settings, candidate(outputs), progress, random_start(outputs))}

    def damage(output: dict[str, Any]) -> str | None:
        return artifact_damage(settings, "evaluations", output["evaluation"])

    return Step(kind="evaluate", subject=name, needs=(*needs, trained), ingredients=ingredients, run=run, damage=damage)


def evaluation_code(recipe: str) -> list[str]:
    """The module of the recipe's kind of evaluation, for keys: it is found by its name."""
    kind = settings_class(recipe).evaluates
    return [f"training.evaluations.{kind}"] if kind else []


def judged_split(store: Store, version: ModelVersion) -> str:
    """The split on which the version is judged: test, or what its kind of evaluation takes where there is none."""
    kind = load_kind(settings_class(version.experiment["recipe"]).evaluates)
    return kind.judged_split(registry.resolve(store, version.dataset).counts)


def evaluate(settings: Settings, version: ModelVersion, progress: Progress, random_start: str = "") -> str:
    """Write the evaluation of a version. Returns its artifact's digest. Raises WrongInput for a model that has none."""
    store = settings.object_store
    recipe = settings_class(version.experiment["recipe"])
    if not recipe.evaluates:
        raise WrongInput(f"model {version.ref}: recipe '{version.experiment['recipe']}' has no evaluation on a test "
                         "split; its validation metrics are on its run (slipway runs)")  # fmt: skip
    chosen = recipe(**version.experiment.get("settings", {}))
    kind, split = load_kind(recipe.evaluates), judged_split(store, version)
    reads = count_read(store, version, settings.author_name, split)
    progress.update(0, 5, "loading the model")
    asked = replace(ask(store, version.model, version.dataset, chosen, split), test_reads=reads)
    if random_start:
        asked = replace(asked, random_start=load_predictor(store, random_start))
    with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
        kind.evaluate(asked, Path(scratch), lambda share, note: progress.update(5 * share, 5, note))
        written = artifacts.commit_folder(store, "evaluations", Path(scratch))
        _show(settings, version, sorted(Path(scratch).glob("*.png")))
    progress.update(5, 5, "")
    return written.digest


def newest_evaluation(store: Store, name: str, model: str) -> Path | None:
    """The files of the newest evaluation of a model (digest) that an experiment of that name became."""
    steps = [json.loads(store.get(key)) for key in store.list(f"steps/evaluate/{name}/")]
    ours = [step for step in steps if step["ingredients"]["model"] == model]
    if not ours:
        return None
    newest = max(ours, key=lambda step: step["ended"])
    return artifacts.fetch(store, artifacts.load(store, "evaluations", newest["output"]["evaluation"]))


def _show(settings: Settings, version: ModelVersion, pictures: list[Path]) -> None:
    """Put what an evaluation drew beside the run's metrics; not where its inputs are personal."""
    from data_contracts.row_sample import personal_columns
    from infra.tracking import log_files

    store = settings.object_store
    contract = registry.contract_of(store, registry.resolve(store, version.dataset))
    if pictures and not personal_columns(contract) & set(contract.inputs):
        log_files(settings, read_state(RunLog(store, version.run)).mlflow_run, pictures, "pictures")


def ask(store: Store, model: str, dataset: str, recipe: RecipeSettings, split: str) -> Asked:
    """A model (digest) on a split of a dataset version (`name@digest`). recipe: the settings it was trained with."""
    data = registry.resolve(store, dataset)
    contract = registry.contract_of(store, data)
    columns = judged_columns(contract)
    splits = {name: registry.read_split(store, data, name, columns) for name in ("train", "validation", "test")}
    return Asked(
        predictor=load_predictor(store, model),
        splits={**splits, "train": recipe.learns_from(splits["train"], contract.label)},
        inputs=tuple(contract.inputs),
        images=tuple(name for name in contract.inputs if name in contract.images),
        label=contract.label,
        texts_only=all(contract.column(name).type == "string" for name in contract.inputs),
        reads=recipe.reads,
        split=split,
        model=model,
        dataset=dataset,
    )


def judged_columns(contract: Contract) -> list[str]:
    """The inputs, the columns that tell a picture's shape, and the label."""
    inputs = [
        column for name in contract.inputs for column in (image_columns(name) if name in contract.images else [name])
    ]
    return [*dict.fromkeys(inputs), *([contract.label] if contract.label else [])]


def count_read(store: Store, version: ModelVersion, who: str, split: str = "test") -> int:
    """Enter in the run's log that this model is about to be judged on the test split: how often that was, this time
    included. A second look is a choice that was made knowing the first, so it is told on the scorecard."""
    log = RunLog(store, version.run)
    finished = read_tail(log).ending.get("sequence", 0)
    since = log.entries(after=finished)
    before = sum(entry["kind"] == "test_read" and entry["model"] == version.model for entry in since)
    log.append("test_read", model=version.model, dataset=version.dataset, split=split, who=who)
    return before + 1


def load_predictor(store: Store, model: str) -> Any:
    """The predictor of a `models` artifact, its files verified first."""
    from importlib import import_module

    artifact = artifacts.load(store, "models", model)
    module, _, function = artifact.facts["files"]["loader"].partition(":")
    return getattr(import_module(module), function)(artifacts.fetch(store, artifact))
