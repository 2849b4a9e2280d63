"""Prepare and train: the two steps that turn a dataset version into a model version."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_contracts import registry
from data_contracts.withdrawal import refuse_withdrawn
from flows import models, promotion, signatures
from flows.code_key import code_of
from flows.resume import Going, check_resume
from flows.sources import read_sources
from flows.steps import Outputs, Step, libraries
from infra import artifacts, keys
from infra.errors import WrongInput
from infra.progress import Progress
from infra.settings import Settings
from infra.store import NotFound, Store
from training.experiment import Experiment
from training.recipe import load_recipe, settings_class
from training.refusals import refuse_here

UNSEEN_IN_RESULTS = {"checkpoint_every_s", "checkpoint_every_steps", "keep_checkpoints", "budget", "diagnose_every"}
"""Fields of `training` that change no result."""


def dataset_ref(experiment: Experiment, outputs: Outputs) -> str:
    """The version to train on: what the register step gave, else what the experiment's reference means now."""
    registered = outputs.get(f"register {experiment.dataset_name}")
    return registered["ref"] if registered else experiment.dataset


def _refuse_withdrawn(store: Store, experiment: Experiment, outputs: Outputs) -> None:
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
            "dataset": {"name": version.name, "rows": version.rows, "schema": version.schema_digest},
            "recipe": experiment.recipe,
            "settings": {name: experiment.settings[name] for name in sorted(kind.prepare_fields())},
            "from": {role: {name: files[role].get(name, "") for name in reads.get(role, ())} for role in sources},
            "code": code_of([f"training.recipes.{experiment.recipe}"]),
            "libraries": libraries("tokenizers", "pyarrow"),
        }

    def run(outputs: Outputs, progress: Progress, key: str) -> dict[str, Any]:
        version = registry.resolve(store, dataset_ref(experiment, outputs))
        contract = registry.contract_of(store, version)
        folders = {role: source.local(settings, outputs) for role, source in sources.items()}
        recipe = load_recipe(experiment.recipe).Recipe(experiment.recipe_settings, folders)
        splits = {name: registry.read_split(store, version, name) for name in ("train", "validation", "test")}
        with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
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
        check_inputs=lambda outputs: _refuse_withdrawn(store, experiment, outputs),
    )


def train_step(
    settings: Settings,
    experiment: Experiment,
    needs: tuple[str, ...],
    going: Going = Going(),  # noqa: B008 (frozen)
) -> Step:
    store = settings.object_store
    sources = read_sources(settings, experiment)
    prepared = f"prepare {experiment.name}"

    def ingredients(outputs: Outputs) -> dict[str, Any]:
        return {
            "prepared": outputs[prepared]["prepared"],
            "recipe": experiment.recipe,
            "settings": experiment.settings,
            "training": experiment.training.model_dump(mode="json", exclude=UNSEEN_IN_RESULTS),
            "from": {role: source.digest(settings, outputs) for role, source in sources.items()},
            "code": code_of(["training.worker", f"training.recipes.{experiment.recipe}"]),
            "libraries": libraries("torch", "transformers", "tokenizers", "numpy"),
        }

    def run(outputs: Outputs, progress: Progress, key: str) -> dict[str, Any]:
        from infra import tracking
        from training import launch

        version = registry.resolve(store, dataset_ref(experiment, outputs))
        refuse_here(experiment, version.counts)
        request = launch.Request(
            experiment=experiment,
            key=key,
            ingredients=ingredients(outputs),
            prepared=outputs[prepared]["prepared"],
            sources={role: source.place(outputs) for role, source in sources.items()},
            facts={
                "parameters": _flat(experiment.model_dump(mode="json", by_alias=True, include=_PARAMETERS)),
                "tags": {"slipway.key": key, "slipway.dataset": version.ref, "slipway.author": settings.author_name},
                "dataset": {"name": version.name, "digest": version.digest, "counts": version.counts},
            },
        )
        if going.run:
            check_resume(store, going, experiment.name, key, request.ingredients)
        elif not launch.find_run(store, experiment.name, key, going.fresh)[1].first:
            promotion.refuse_unapprovable(store, experiment.name, experiment.promotion, settings)
            if settings.author_key:
                keys.private_path(settings.keys_folder, settings.author_name)  # refused now, not after the training
        done = launch.train(request, settings, progress, going.fresh, run=going.run, take_over=going.take_over)
        progress.say("packaging the model")
        model = artifacts.load(store, "models", done.ending["model"])
        if done.first.get("author_key"):
            _sign(settings, model.digest, done.first)
        known = [one for one in models.versions(store, experiment.name) if one.run == done.run]
        if known:
            return {"model": model.digest, "run": done.run, "version": known[-1].version}
        address, package_digest, mlflow_version = tracking.log_package(
            settings, done.mlflow_run, artifacts.fetch(store, model), model.facts["files"], experiment.name
        )
        added = models.add_version(
            store,
            name=experiment.name,
            run=done.run,
            experiment=experiment.model_dump(mode="json", by_alias=True),
            model=model.digest,
            package=address,
            package_digest=package_digest,
            dataset=f"{version.name}@{version.digest}",
            author=done.first["author"],
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            mlflow_version=mlflow_version,
        )
        return {"model": model.digest, "run": done.run, "version": added.version}

    def damage(output: dict[str, Any]) -> str | None:
        return artifact_damage(settings, "models", output["model"])

    return Step(
        kind="train",
        subject=experiment.name,
        needs=(*needs, prepared),
        ingredients=ingredients,
        run=run,
        damage=damage,
        check_inputs=lambda outputs: _refuse_withdrawn(store, experiment, outputs),
    )


def _sign(settings: Settings, model: str, first: dict[str, Any]) -> None:
    """Sign the model's files with the key that the run's first entry names. Raises WrongInput where it is not here."""
    path = keys.private_path(settings.keys_folder, first["author"])
    if keys.public_half(path) != first["author_key"]:
        raise WrongInput(f"key {path}: is not the one that the run names as its author's; put that one back")
    signatures.sign_model(settings.object_store, model, path)


_PARAMETERS = {"recipe", "dataset", "sources", "settings", "training", "scaling"}


def artifact_damage(settings: Settings, kind: str, digest: str) -> str | None:
    """What is missing or altered of an artifact, a lost manifest included."""
    try:
        return artifacts.damage(settings.object_store, artifacts.load(settings.object_store, kind, digest))
    except NotFound:
        return f"{kind}/{digest} is missing"
    except (ValueError, KeyError, WrongInput) as error:
        return f"{kind}/{digest}/manifest.json is unreadable ({error})"


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
