"""A model that no label judges meets the same gates, scorecard and card; what only fits classifiers says so."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts import registry
from flows import models
from flows.config import load_config
from flows.evaluate import evaluate
from flows.judging.evidence import Subject
from infra import artifacts, package_trial
from infra.errors import WrongInput
from infra.progress import Progress
from tests.flows.conftest import World
from tests.flows.test_scorecard import page_of
from training import loop
from training.experiment import Training
from training.recipe import settings_class
from training.recipes.gpt import Recipe

SETTINGS = {"tokens": "characters", "block_size": 24, "hidden_size": 32, "num_layers": 1, "new_tokens": 12}


class Silent(loop.Observer):
    pass


class Library(World):
    """The world's texts, and language models trained on them, little and longer."""

    def __init__(self, folder: Path, references: dict[str, str]):
        super().__init__(folder, references)
        self.settings.create_workspace()
        self.short, self.long = self.trained(3), self.trained(120)

    def trained(self, steps: int) -> Subject:
        data = self.dataset("old")
        contract = registry.contract_of(self.store, data)
        recipe = Recipe(settings_class("gpt")(**SETTINGS), {})
        folder = self.folder / f"gpt-{steps}"
        (folder / "prepared").mkdir(parents=True)
        (folder / "model").mkdir()
        splits = {name: registry.read_split(self.store, data, name) for name in ("train", "validation", "test")}
        recipe.prepare(splits, contract, folder / "prepared", lambda note: None)
        recipe.open(folder / "prepared")
        training = Training(steps=steps, batch_size=32, learning_rate=1e-2, validate_every=1e9, diagnose_every=None)
        task, _ = loop.train(recipe, training, loop.World(), Silent())
        files = recipe.save(task, folder / "model")
        model = artifacts.commit_folder(self.store, "models", folder / "model", {"files": asdict(files)})
        version = models.add_version(
            self.store, name="animals", run=f"animals-{steps}", experiment={"recipe": "gpt"}, model=model.digest,
            package="models:/none", package_digest="1" * 64, dataset=self.references["old"], author="mel",
            created="2026-01-01T00:00:00+00:00",
        )  # fmt: skip
        return Subject.of(version, evaluate(self.settings, version, Progress("evaluate")))

    def lineage(self, dataset: str = "old") -> Any:
        from dataclasses import replace

        return replace(super().lineage(dataset), experiment="recipe: gpt\n")


@pytest.fixture(scope="module")
def library(registered: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Library:
    folder = tmp_path_factory.mktemp("library")
    shutil.copytree(registered[0], folder / "store")
    return Library(folder, registered[1])


def test_gates_judge_by_what_tokens_cost(library):
    figures = {
        one: library.evidence.evaluation(one).metrics["model"]["loss"]["value"] for one in (library.short, library.long)
    }
    assert figures[library.long] < 1.5 < figures[library.short]
    for maximum, passes in ((figures[library.long] + 0.01, True), (figures[library.long] - 0.01, False)):
        assert library.judge("threshold", {"metric": "loss", "maximum": maximum}, library.long).passed == passes
    better = library.judge("champion", {"metric": "loss", "require": "better"}, library.long, library.short)
    worse = library.judge("champion", {"metric": "loss"}, library.short, library.long)
    assert better.passed and not worse.passed
    gap = figures[library.short] - figures[library.long]
    assert better.observed == pytest.approx(gap) and worse.observed == pytest.approx(-gap)
    assert "Loss in nats a token is +" in better.sentence and "points" not in better.sentence
    baseline = library.judge("baseline", {"metric": "bits_per_character", "margin": 0.05}, library.short)
    assert not baseline.passed and "-grams" in baseline.sentence
    counted = library.judge("beats_baseline", {"metric": "perplexity"}, library.short)
    assert not counted.passed and "A model that counts n-grams does better" in counted.sentence


def test_a_metric_of_another_kind_is_a_no_and_not_a_crash(library):
    for gate, settings in (
        ("threshold", {"minimum": 0.5}),
        ("baseline", {}),
        ("champion", {}),
        ("slices", {"floor": 0.1}),
    ):
        verdict = library.judge(gate, settings, library.long, library.short)
        assert not verdict.passed and "KeyError" not in verdict.sentence and "Traceback" not in verdict.sentence


def test_the_package_is_asked_to_go_on_from_the_prompts_that_the_evaluation_went_on_from(library, monkeypatch):
    from flows.evaluate import load_predictor

    model = load_predictor(library.store, library.long.model)

    def ask(settings: Any, address: str, rows: list[Any], requests: int) -> dict[str, Any]:
        return {"format": 1, "failure": None, "answers": model(rows), "request_ms": [], "requirements": []}

    monkeypatch.setattr(package_trial, "try_package", ask)
    verdict = library.judge("answers", {}, library.long)
    assert verdict.passed and verdict.observed == 16
    monkeypatch.setattr(
        package_trial, "try_package", lambda *given: {**ask(*given), "answers": model([{"text": "ant"}] * 16)}
    )
    assert not library.judge("answers", {"tolerance": 0.002}, library.long).passed


def test_the_page_tells_of_loss_and_shows_how_it_goes_on(library):
    verdicts = [library.judge("threshold", {"metric": "loss", "maximum": 9.0}, library.long)]
    digest = library.scorecard(library.long, verdicts, library.short)
    text = page_of(library, digest).text
    found = library.evidence.evaluation(library.long).metrics
    order = [
        f"Loss in nats a token {found['model']['loss']['value']:.3f}", "test passages", found["baseline"]["name"],
        "Beside the champion", "loss in nats a token", "Figures", "The baseline is tuned: order =", "perplexity",
        "token frequencies alone", "How it goes on", "Lineage",
    ]  # fmt: skip
    position = 0
    for words in order:
        assert (position := text.find(words, position)) >= 0, words
    for absent in ("By class", "What it takes for what", "Examples it gets wrong", "confidence", "Who has a row right"):
        assert absent not in text
    card = json.loads(library.store.get(f"scorecards/{digest}/scorecard.json"))
    assert card["samples"] and set(card["side_by_side"]["figures"]) == {"loss", "perplexity", "bits_per_character"}
    assert card["side_by_side"]["figures"]["loss"]["candidate"] == found["model"]["loss"]
    readme = library.store.get(f"scorecards/{digest}/README.md").decode()
    assert "type: text-generation" in readme and "type: perplexity" in readme and "accuracy" not in readme


def test_marks_on_the_page_lie_inside_their_lines(library):
    from flows.judging.scorecard_plots import compared

    metrics = library.evidence.evaluation(library.short).metrics
    for block in compared(metrics, None):
        assert block["end"] > 1 and all(0 <= row["left"] + row["width"] <= 100 for row in block["rows"])
        assert np.isclose(block["rows"][0]["at"] * block["end"] / 100, block["rows"][0]["value"], atol=0.02)


def test_a_request_may_set_how_an_answer_is_drawn_and_nothing_else(library):
    from flows.inference.predict import predict_inputs, served

    asked = served(library.store, library.long.ref)

    def answer(*settings: str) -> str:
        return predict_inputs(library.store, asked, ("ant number",), False, settings)[0]["label"]

    usual = answer()
    assert answer("temperature=0.8") == usual and len(answer("new_tokens=5")) == 5
    assert len({answer(f"answer_seed={seed}", "temperature=3") for seed in range(5)}) > 1
    for setting, said in (
        ("temprature=1", "knows no 'temprature'; did you mean 'temperature'"),
        ("top_k=few", "give a whole number, such as top_k=0"),
        ("temperature=-1", "temperature: -1.0; give 0 to 100"),
        ("top_p=0", "top_p: 0.0; give above 0, up to 1"),
        ("new_tokens=0", "new_tokens: 0; give 1 to"),
    ):
        with pytest.raises(WrongInput, match=said):
            answer(setting)


def test_monitor_says_that_it_compares_labels(library):
    from flows.inference.policy import MonitorPolicy
    from flows.inference.predict import predict_inputs, served
    from flows.monitor import Asked, monitor_step

    asked = served(library.store, library.long.ref)
    (answer,) = predict_inputs(library.store, asked, ("ant number",))
    assert len(answer["label"]) == SETTINGS["new_tokens"]
    with pytest.raises(WrongInput, match="is evaluated by language_modelling; monitor compares labels"):
        monitor_step(library.settings, Asked(version=asked.version, policy=MonitorPolicy()))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "gates={calibration: {}}",
            "gates.calibration: is for classification; recipe gpt is evaluated by language_modelling",
        ),
        ("gates={slices: {}}", "gates.slices: is for classification"),
        ("gates={label_issues: {}}", "gates.label_issues: is for classification"),
        ("gates={champion: {}}", "gates.champion.metric: there is no accuracy; recipe gpt"),
    ],
)
def test_gates_for_another_kind_are_refused_when_the_experiment_is_read(override, said, tmp_path):
    path = tmp_path / "one.yaml"
    key, _, value = override.partition("=")
    path.write_text(f"recipe: gpt\ndataset: x\ntraining: {{steps: 5}}\n{key}: {value}\n")
    with pytest.raises(WrongInput, match=said):
        load_config(str(path))


def test_without_gates_an_experiment_gets_those_that_fit_its_kind(tmp_path):
    (tmp_path / "one.yaml").write_text("recipe: gpt\ndataset: x\ntraining: {steps: 40}\n")
    found = load_config(str(tmp_path / "one.yaml")).gates
    assert found["champion"]["metric"] == found["baseline"]["metric"] == "loss" and "threshold" not in found
