"""Prepare: a dataset version becomes what a recipe reads: tokenised, packed, indexed."""

import tempfile
from pathlib import Path
from typing import Any

from data_contracts import registry
from data_contracts.withdrawal import refuse_withdrawn
from flows.code_key import code_of
from flows.sources import read_sources
from flows.steps import Outputs, Step, artifact_damage, libraries
from infra import artifacts
from infra.progress import Progress
from infra.settings import Settings
from infra.store import Store
from training.experiment import Experiment
from training.recipe import load_recipe, settings_class


def dataset_ref(experiment: Experiment, outputs: Outputs) -> str:
    """The version to train on: what the register step gave, else what the experiment's reference means now."""
    registered = outputs.get(f"register {experiment.dataset_name}")
    return registered["ref"] if registered else experiment.dataset


def refuse_barred(store: Store, experiment: Experiment, outputs: Outputs) -> None:
    """Raises Refused where the version to train on was withdrawn or has expired."""
    refuse_withdrawn(store, registry.resolve(store, dataset_ref(experiment, outputs)))


def prepare_step(settings: Settings, experiment: Experiment, needs: tuple[str, ...]) -> Step:
    store = settings.object_store
    kind = settings_class(experiment.recipe)
    reads = kind.prepare_reads
    sources = read_sources(settings, experiment)

    def ingredients(outputs: Outputs) -> dict[str, Any]:
        version = registry.resolve(store, dataset_ref(experiment, outputs))
        files = {role: source.files(settings, outputs) for role, source in sources.items()}
        return {
            "dataset": {
                "name": version.name,
                "rows": version.rows,
                "schema": version.schema_digest,
                "counts": version.counts,  # of those rows: so that a plan can tell how many came
            },
            "recipe": experiment.recipe,
            "settings": {name: experiment.settings[name] for name in sorted(kind.prepare_fields())},
            "from": {role: {name: files[role].get(name, "") for name in reads.get(role, ())} for role in sources},
            "code": code_of([f"training.recipes.{experiment.recipe}"]),
            "libraries": libraries("tokenizers", "pyarrow"),
        }

    def run(outputs: Outputs, progress: Progress, key: str) -> dict[str, Any]:
        version = registry.resolve(store, dataset_ref(experiment, outputs))
        registry.refresh(store, version)
        contract = registry.contract_of(store, version)
        kind.check_columns(contract)
        folders = {role: source.local(settings, outputs) for role, source in sources.items()}
        recipe = load_recipe(experiment.recipe).Recipe(experiment.recipe_settings, folders)
        splits = {name: registry.read_split(store, version, name) for name in ("train", "validation", "test")}
        with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
            splits["train"] = experiment.recipe_settings.learns_from(splits["train"], contract.label)
            recipe.prepare(splits, contract, Path(scratch), progress.say)
            prepared = artifacts.commit_folder(store, "prepared", Path(scratch))
        return {"prepared": prepared.digest}

    def damage(output: dict[str, Any]) -> str | None:
        return artifact_damage(settings, "prepared", output["prepared"])

    return Step(
        kind="prepare",
        subject=experiment.name,
        needs=needs,
        ingredients=ingredients,
        run=run,
        damage=damage,
        check_inputs=lambda outputs: refuse_barred(store, experiment, outputs),
    )
