"""A model that draws meets the same gates and commands; a new codebook makes it stale, and the plan says why."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_contracts import registry
from data_contracts.contract import load_contract
from flows import models
from flows.config import load_config
from flows.evaluate import evaluate
from flows.inference.pictures import check_place, write_grid
from flows.inference.predict import predict_inputs, served
from flows.judging.evidence import Evidence, Subject
from flows.prepare import prepare_step
from flows.steps import Step, decide, execute, record
from flows.train import train_step
from infra import artifacts, package_trial
from infra.errors import WrongInput
from infra.progress import Progress
from infra.settings import Settings
from tests.flows.conftest import World
from tests.flows.test_scorecard import page_of
from training import loop
from training.experiment import Training, load_experiment
from training.recipe import load_recipe, settings_class

ROWS = 240
CODEBOOK = {"image_size": 8, "channels": 3, "halvings": 1, "hidden_size": 16, "codes": 16, "code_size": 8}
PAINTER = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 280, "text_length": 32}


class Silent(loop.Observer):
    pass


class Studio(World):
    """Coloured digits, two codebooks of them, and a model that draws with the first."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.settings = Settings(workspace=str(folder / "workspace"), store=str(folder / "store"))
        self.settings.create_workspace()
        self.store = self.settings.object_store
        self.evidence = Evidence(self.store, self.settings)
        text = load_contract("digits-colours").text.replace("value: 8000", f"value: {ROWS}")
        (folder / "digits-colours.odcs.yaml").write_text(text)
        contract = load_contract(str(folder / "digits-colours.odcs.yaml"))
        self.data, _ = registry.register(self.store, contract, None, cache=folder / "cache")
        self.references = {"digits": self.data.ref}
        self.codebooks = [self.trained("dvae", {**CODEBOOK}, {}, steps) for steps in (30, 31)]
        experiment = {
            "name": "painter", "recipe": "dalle", "dataset": "digits-colours", "from": {"dvae": "codes"},
            "settings": PAINTER, "training": {"steps": 40},
        }  # fmt: skip
        (folder / "painter.yaml").write_text(json.dumps(experiment))
        codes = {"recipe": "dvae", "dataset": "digits-colours", "settings": CODEBOOK, "training": {"steps": 30}}
        (folder / "codes.yaml").write_text(json.dumps(codes))
        self.model = self.trained("dalle", PAINTER, {"dvae": self.codebooks[0]}, 40)
        self.version_of_painter = models.add_version(
            self.store, name="painter", run="painter-1", experiment=experiment, model=self.model,
            package="models:/none", package_digest="1" * 64, dataset=self.data.ref, author="mel",
            created="2026-01-01T00:00:00+00:00",
        )  # fmt: skip
        self.subject = Subject.of(
            self.version_of_painter, evaluate(self.settings, self.version_of_painter, Progress("evaluate"))
        )

    def trained(self, name: str, settings: dict[str, Any], sources: dict[str, str], steps: int) -> str:
        """The digest of a model of these settings, trained in this process."""
        folders = {role: artifacts.fetch(self.store, artifacts.load(self.store, "models", digest))
                   for role, digest in sources.items()}  # fmt: skip
        recipe = load_recipe(name).Recipe(settings_class(name)(**settings), folders)
        folder = self.folder / f"{name}-{steps}"
        for part in ("prepared", "model"):
            (folder / part).mkdir(parents=True)
        splits = {one: registry.read_split(self.store, self.data, one) for one in ("train", "validation", "test")}
        recipe.prepare(splits, registry.contract_of(self.store, self.data), folder / "prepared", lambda note: None)
        recipe.open(folder / "prepared")
        training = Training(steps=steps, batch_size=32, learning_rate=5e-3, validate_every=1e9, diagnose_every=None)
        task, _ = loop.train(recipe, training, loop.World(), Silent())
        files = recipe.save(task, folder / "model")
        return artifacts.commit_folder(self.store, "models", folder / "model", {"files": asdict(files)}).digest


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("studio"))


def test_a_retrained_codebook_makes_what_draws_with_it_stale_and_the_plan_says_why(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(studio.folder)
    experiment = load_experiment("painter.yaml")
    first, second = ({"train codes": {"model": digest}} for digest in studio.codebooks)
    prepare = prepare_step(studio.settings, experiment, ("train codes",))
    train = train_step(studio.settings, experiment, ("train codes",))

    def after(outputs: dict[str, Any], step: Step) -> dict[str, Any]:
        return {**outputs, step.name: execute(studio.store, step, outputs, Progress("prepare"))}

    begun = after(first, prepare)
    record(studio.store, train, train.ingredients(begun), {"model": studio.model, "run": "", "version": 1}, 0.0, [])
    assert decide(studio.store, prepare, first).cached and decide(studio.store, train, begun).cached
    stale = decide(studio.store, prepare, second)
    files = [artifacts.load(studio.store, "models", digest).files for digest in studio.codebooks]
    digests = [one["model.safetensors"]["sha256"][:12] for one in files]
    assert stale.status == "stale"
    assert f"from.dvae.model.safetensors: from {digests[0]} to {digests[1]}" in stale.reasons
    stale = decide(studio.store, train, {**after(second, prepare), **second})
    assert stale.status == "stale"
    assert f"from.dvae: from {studio.codebooks[0][:12]} to {studio.codebooks[1][:12]}" in stale.reasons


def test_its_page_tells_of_copies_and_of_a_judge_where_there_is_one(studio: Studio) -> None:
    text = page_of(studio, studio.scorecard(studio.subject)).text
    assert "To the nearest training picture" in text and "Drawn by captions alone" in text
    assert "The judge names" not in text and "clip likes best" not in text
    folder = studio.folder / "judged"
    shutil.copytree(
        artifacts.fetch(studio.store, artifacts.load(studio.store, "evaluations", studio.subject.evaluation)), folder
    )
    (folder / "manifest.json").unlink(missing_ok=True)
    metrics = json.loads((folder / "metrics.json").read_text())
    told = {"value": 0.5, "low": 0.25, "high": 0.75}
    metrics["judge"] = {"real": told, "chance": 0.125}
    metrics["reranking"] = {"rows": 7, "candidates": 8, "with": told, "without": told, "difference": told}
    metrics["model"]["judge_agreement"] = told
    (folder / "metrics.json").write_text(json.dumps(metrics))
    judged = replace(studio.subject, evaluation=artifacts.commit_folder(studio.store, "evaluations", folder).digest)
    text = page_of(studio, studio.scorecard(judged)).text
    assert "The judge names 50.0 % of the real test pictures right; chance is 12.5 %" in text
    assert "a difference of +50.0 points" in text


def test_prompts_become_a_grid_of_pictures_with_the_prompts_in_it(studio: Studio, tmp_path: Path) -> None:
    asked = served(studio.store, "painter/1")
    prompts = ("a red three", "a purple three")
    answers = predict_inputs(studio.store, asked, prompts, False, ("samples=4", "guidance=2"))
    assert [len(one["images"]) for one in answers] == [4, 4]
    assert "unseen_words" not in answers[0] and answers[1]["unseen_words"] == ["purple"]
    out = tmp_path / "grid.png"
    check_place(out)
    write_grid(out, prompts, answers, asked.version.ref)
    with Image.open(out) as page:
        assert page.format == "PNG" and page.width >= 4 * 96 and page.height >= 2 * 96
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


@pytest.mark.parametrize(("name", "said"), [("grid.jpg", "ends in .png"), ("none/grid.png", "there is no folder")])
def test_a_place_where_no_grid_can_be_written_is_refused_before_anything_is_drawn(
    name: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(WrongInput, match=said):
        check_place(tmp_path / name)


def test_models_that_draw_nothing_write_no_grid(tmp_path: Path) -> None:
    with pytest.raises(WrongInput, match="draws nothing"):
        write_grid(tmp_path / "grid.png", ("a text",), [{"label": "good", "confidence": 0.9}], "animals/1")
    assert not list(tmp_path.iterdir())


def test_gates_judge_what_is_foretold_and_drawn(studio: Studio) -> None:
    figures = studio.evidence.evaluation(studio.subject).metrics["model"]
    assert set(figures) == {"image_loss", "text_loss", "copies"}, "without a judge nothing is said of what is seen"
    for maximum, passes in (
        (figures["image_loss"]["value"] + 0.1, True),
        (figures["image_loss"]["value"] - 0.1, False),
    ):
        verdict = studio.judge("threshold", {"metric": "image_loss", "maximum": maximum}, studio.subject)
        assert verdict.passed == passes
    without = studio.judge("threshold", {"metric": "judge_agreement", "minimum": 0.1}, studio.subject)
    assert not without.passed and "KeyError" not in without.sentence


def test_the_package_is_asked_to_draw_the_captions_that_the_evaluation_asked_for(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.evaluate import load_predictor

    model = load_predictor(studio.store, studio.model)
    seen: list[Any] = []

    def ask(settings: Any, address: str, rows: list[Any], requests: int) -> dict[str, Any]:
        seen.extend(rows)
        return {"format": 1, "failure": None, "answers": model(rows), "request_ms": [], "requirements": []}

    monkeypatch.setattr(package_trial, "try_package", ask)
    verdict = studio.judge("answers", {}, studio.subject)
    assert verdict.passed and len(seen) >= 2 and set(seen[0]) == {"caption"}


def test_experiments_are_shipped_whose_stages_and_gates_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "digits-dalle",
        "digits-image-gpt",
        "digits-colours-dalle",
        "digits-pairs-dalle",
        "fashion_mnist-dalle",
    ):
        experiment = load_config(name)
        kind = settings_class(experiment.recipe)
        assert kind.evaluates == "image_generation" and "dvae" in experiment.sources
        for role, source in experiment.sources.items():
            wanted = {"dvae": {"dvae"}, "judge": {"cnn", "vit"}, "clip": {"clip"}}[role]
            assert load_config(source).recipe in wanted
