"""Train: what was prepared becomes a model, its package, and a version in the registry."""

from datetime import UTC, datetime
from typing import Any

from data_contracts import registry
from flows import models
from flows.code_key import code_of
from flows.prepare import dataset_ref, refuse_barred
from flows.promotion import decisions as promotion
from flows.promotion import signatures
from flows.resume import Going, check_resume
from flows.sources import read_sources
from flows.steps import Outputs, Step, artifact_damage, libraries
from infra import artifacts, keys
from infra.errors import WrongInput
from infra.progress import Progress
from infra.settings import Settings
from training.experiment import Experiment
from training.recipe import settings_class
from training.refusals import refuse_here

UNSEEN_IN_RESULTS = {"checkpoint_every_s", "checkpoint_every_steps", "keep_checkpoints", "budget", "diagnose_every"}
"""Fields of `training` that change no result."""


def train_step(
    settings: Settings,
    experiment: Experiment,
    needs: tuple[str, ...],
    going: Going = Going(),  # noqa: B008 (frozen)
) -> Step:
    store = settings.object_store
    sources = read_sources(settings, experiment)
    prepared = f"prepare {experiment.name}"
    kind = settings_class(experiment.recipe)
    learner = "training.worker" if kind.trains else "training.fitter"

    def ingredients(outputs: Outputs) -> dict[str, Any]:
        return {
            "prepared": outputs[prepared]["prepared"],
            "recipe": experiment.recipe,
            "settings": experiment.settings,
            "training": {name: kept for name, kept in experiment.learning.items() if name not in UNSEEN_IN_RESULTS},
            "from": {role: source.digest(settings, outputs) for role, source in sources.items()},
            "code": code_of([learner, f"training.recipes.{experiment.recipe}"]),
            "libraries": libraries(*kind.libraries),
        }

    def run(outputs: Outputs, progress: Progress, key: str) -> dict[str, Any]:
        from infra import tracking
        from training import launch

        version = registry.resolve(store, dataset_ref(experiment, outputs))
        refuse_here(experiment.training, experiment.scaling, experiment.dataset, version.counts)
        request = launch.Request(
            experiment=experiment,
            key=key,
            ingredients=ingredients(outputs),
            prepared=outputs[prepared]["prepared"],
            sources={role: source.place(outputs) for role, source in sources.items()},
            facts={
                "parameters": _flat(_parameters(experiment)),
                "tags": {"slipway.key": key, "slipway.dataset": version.ref, "slipway.author": settings.author_name},
                "dataset": {"name": version.name, "digest": version.digest, "counts": version.counts},
            },
        )
        begun = launch.find_run(store, experiment.name, key, going.fresh)[1]
        lost = begun.status == "finished" and damage(begun.ending) is not None  # its model: it is trained again
        if going.run:
            check_resume(store, going, experiment.name, key, request.ingredients)
        elif not begun.first:
            promotion.refuse_unapprovable(store, experiment.name, experiment.promotion, settings)
            if settings.author_key:
                keys.private_path(settings.keys_folder, settings.author_name)  # refused now, not after the training
        done = launch.train(request, settings, progress, going.fresh or lost, run=going.run, take_over=going.take_over)
        progress.say("packaging the model")
        model = artifacts.load(store, "models", done.ending["model"])
        if done.first.get("author_key"):
            _sign(settings, model.digest, done.first)
        versions = models.versions(store, experiment.name)
        known = [one for one in versions if one.run == done.run or (lost and one.model == model.digest)]
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
        check_inputs=lambda outputs: refuse_barred(store, experiment, outputs),
        gpus=experiment.scaling.workers * experiment.scaling.gpus_per_worker,
    )


def _sign(settings: Settings, model: str, first: dict[str, Any]) -> None:
    """Sign the model's files with the key that the run's first entry names. Raises WrongInput where it is not here."""
    path = keys.private_path(settings.keys_folder, first["author"])
    if keys.public_half(path) != first["author_key"]:
        raise WrongInput(f"key {path}: is not the one that the run names as its author's; put that one back")
    signatures.sign_model(settings.object_store, model, path)


def _parameters(experiment: Experiment) -> dict[str, Any]:
    """What MLflow shows as the run's parameters."""
    told = {"recipe", "dataset", "sources", "settings", *({"scaling"} if experiment.recipe_settings.trains else ())}
    return {**experiment.model_dump(mode="json", by_alias=True, include=told), "training": experiment.learning}


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
