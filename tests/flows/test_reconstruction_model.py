"""Autoencoders meet the same gates, scorecard and card as classifiers; and what they drew is seen."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_contracts import registry
from data_contracts.contract import load_contract
from flows import models
from flows.evaluate import evaluate, load_predictor
from flows.judging.evidence import Subject
from infra import artifacts, package_trial
from infra.progress import Progress
from infra.settings import Settings
from infra.tracking import open_run
from tests.flows.conftest import World
from tests.flows.test_scorecard import page_of
from training import loop
from training.codebook import Codebook
from training.experiment import Training
from training.recipe import load_recipe, settings_class
from training.run_log import RunLog


class Silent(loop.Observer):
    pass


def mlflow_run(settings: Settings, name: str) -> str:
    facts = {"parameters": {}, "tags": {}, "dataset": {"name": "digits", "digest": "0" * 64, "counts": {}}}
    return open_run(settings, "animals", name, facts)


class Gallery(World):
    """The digits, a codebook and a VAE of them, hardly trained."""

    def __init__(self, folder: Path, references: dict[str, str]):
        super().__init__(folder, references)
        self.settings.create_workspace()
        version, _ = registry.register(self.store, load_contract("digits"), cache=folder / "cache")
        self.references["digits"] = f"{version.name}@{version.digest}"
        self.codebook = self.trained("dvae", "dvae")
        self.vae = self.trained("autoencoder", "vae", variational=True)

    def trained(self, recipe: str, run: str, **chosen: Any) -> Subject:
        data, folder = self.dataset("digits"), self.folder / run
        kind = settings_class(recipe)
        own = load_recipe(recipe).Recipe(kind(**{**kind.presets["tiny"], **chosen}), {})
        (folder / "prepared").mkdir(parents=True)
        (folder / "model").mkdir()
        splits = {split: registry.read_split(self.store, data, split) for split in ("train", "validation", "test")}
        own.prepare(splits, registry.contract_of(self.store, data), folder / "prepared", lambda note: None)
        own.open(folder / "prepared")
        training = Training(steps=20, batch_size=32, learning_rate=3e-3, validate_every=1e9, diagnose_every=None)
        task, _ = loop.train(own, training, loop.World(), Silent())
        files = own.save(task, folder / "model")
        log = RunLog(self.store, f"animals-{run}")
        log.append("mlflow", mlflow_run=mlflow_run(self.settings, run))
        log.append("finished", figures=dict(files.figures))
        told = {"loader": files.loader, "input_columns": list(files.input_columns)}
        model = artifacts.commit_folder(self.store, "models", folder / "model", {"files": told})
        experiment = {
            "name": "animals", "recipe": recipe, "dataset": "digits", "training": {"steps": 20},
            "settings": {**kind.presets["tiny"], **chosen},
        }  # fmt: skip
        version = models.add_version(
            self.store, name="animals", run=f"animals-{run}", experiment=experiment, model=model.digest,
            package="models:/none", package_digest="1" * 64, dataset=self.references["digits"], author="mel",
            created="2026-01-01T00:00:00+00:00",
        )  # fmt: skip
        return Subject.of(version, evaluate(self.settings, version, Progress("evaluate")))

    def lineage(self, dataset: str = "old") -> Any:
        return replace(super().lineage(dataset), experiment="recipe: dvae\n")


@pytest.fixture(scope="module")
def gallery(registered: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("gallery")
    shutil.copytree(registered[0], folder / "store")
    return Gallery(folder, registered[1])


def test_gates_judge_by_error_bound_and_use_of_the_codebook(gallery):
    use = gallery.evidence.evaluation(gallery.codebook).metrics["model"]["codebook_use"]["value"]
    for minimum in (use - 0.01, use + 0.01):
        verdict = gallery.judge("threshold", {"metric": "codebook_use", "minimum": minimum}, gallery.codebook)
        assert verdict.passed == (use >= minimum), verdict.sentence
    simple = gallery.judge("beats_baseline", {"metric": "reconstruction_error"}, gallery.codebook)
    assert not simple.passed and "A linear code of the same size does better" in simple.sentence
    again = gallery.judge("champion", {"metric": "elbo", "margin": 1.0}, gallery.vae, gallery.vae)
    assert again.passed


@pytest.mark.parametrize("which", ["codebook", "vae"])
def test_the_package_is_asked_what_the_evaluation_asked(gallery, which, monkeypatch):
    subject = getattr(gallery, which)
    model = load_predictor(gallery.store, subject.model)

    def ask(settings: Any, address: str, rows: list[Any], requests: int) -> dict[str, Any]:
        return {"format": 1, "failure": None, "answers": model(rows), "request_ms": [], "requirements": []}

    monkeypatch.setattr(package_trial, "try_package", ask)
    verdict = gallery.judge("answers", {}, subject)
    assert verdict.passed and verdict.observed == 64


def test_the_page_tells_bits_codes_and_bound_and_shows_what_was_drawn(gallery):
    wanted = {
        "codebook": ("A picture becomes 64 bits", "PCA of 64 bits", "bits a component =", "Of 16 codes", "The codes"),
        "vae": (
            "A picture becomes 16 numbers",
            "PCA of 16 components",
            "ELBO",
            "Walks through",
            "drawn from the prior",
        ),
    }
    for which, sentences in wanted.items():
        page = page_of(gallery, gallery.scorecard(getattr(gallery, which)))
        for words in (*sentences, "Pictures, and what is left of them"):
            assert words in page.text, words
        assert page.tags.count("img") == (2 if which == "codebook" else 4)


def test_the_run_in_mlflow_has_the_pictures(gallery):
    import mlflow

    run = mlflow_run(gallery.settings, "vae")  # the same again
    client = mlflow.MlflowClient(gallery.settings.mlflow_uri)
    found = {file.path for file in client.list_artifacts(run, "pictures")}
    assert found == {f"pictures/{name}.png" for name in ("reconstructions", "latent_walk", "latents", "samples")}


def test_another_recipes_model_is_no_codebook(gallery):
    from infra.errors import WrongInput

    folder = artifacts.fetch(gallery.store, artifacts.load(gallery.store, "models", gallery.vae.model))
    with pytest.raises(WrongInput, match="is of recipe 'autoencoder'; a codebook is one of dvae"):
        Codebook.load(folder)
