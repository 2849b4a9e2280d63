"""Models that grade pairs and models that search meet the same gates, scorecard and card as classifiers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_contracts import registry
from flows import models
from flows.config import load_config
from flows.evaluate import evaluate, load_predictor
from flows.inference.predict import Served, nearest, served, zero_shot
from flows.judging.evidence import Subject
from infra import artifacts, package_trial
from infra.errors import WrongInput
from infra.progress import Progress
from tests.flows.conftest import World
from tests.flows.test_scorecard import page_of
from tests.training.examples import EXAMPLES, open_recipe
from training import loop
from training.experiment import Training
from training.recipe import load_recipe, settings_class
from training.run_log import RunLog

HEAD = """
apiVersion: v3.1.0
kind: DataContract
id: animals
name: animals
version: 1.0.0
status: active
servers:
  - {server: local, type: local, path: rows.csv, format: csv}
schema:
  - name: rows
    properties:
"""
PAIRS = (
    HEAD
    + """
      - {name: first, logicalType: string, required: true}
      - {name: second, logicalType: string, required: true}
      - {name: score, logicalType: number, required: true}
customProperties:
  - {property: slipway.inputs, value: [first, second]}
  - {property: slipway.label, value: score}
  - {property: slipway.split, value: {test: 0.3, validation: 0.1}}
"""
)
BOOKS = (
    HEAD
    + """
      - {name: text, logicalType: string, required: true}
customProperties:
  - {property: slipway.inputs, value: [text]}
  - {property: slipway.split, value: {test: 0.3, validation: 0.1}}
"""
)


class Silent(loop.Observer):
    pass


class Library(World):
    """Graded pairs and texts, and a model of each, hardly trained."""

    def __init__(self, folder: Path, references: dict[str, str]):
        super().__init__(folder, references)
        self.settings.create_workspace()
        pairs = EXAMPLES["pairs"](300, 1).to_pylist()
        rows = "".join(f"{row['first']},{row['second']},{row['score']}\n" for row in pairs)
        self.add_dataset("pairs", "first,second,score\n" + rows, PAIRS)
        texts = EXAMPLES["text"](80, 1)["text"].to_pylist()
        self.add_dataset("books", "text\n" + "\n".join(texts) + "\n", BOOKS)
        self.grader = self.trained("sentence_embedding", "pairs")
        self.searcher = self.trained("text_search", "books")

    def trained(self, name: str, dataset: str) -> Subject:
        data = self.dataset(dataset)
        kind = settings_class(name)
        recipe = load_recipe(name).Recipe(kind(**kind.presets["tiny"]), {})
        folder = self.folder / name
        (folder / "prepared").mkdir(parents=True)
        (folder / "model").mkdir()
        splits = {split: registry.read_split(self.store, data, split) for split in ("train", "validation", "test")}
        recipe.prepare(splits, registry.contract_of(self.store, data), folder / "prepared", lambda note: None)
        recipe.open(folder / "prepared")
        training = Training(steps=20, batch_size=32, learning_rate=3e-3, validate_every=1e9, diagnose_every=None)
        task, _ = loop.train(recipe, training, loop.World(), Silent())
        files = recipe.save(task, folder / "model")
        RunLog(self.store, f"animals-{name}").append("finished", figures=dict(files.figures))
        told = {"loader": files.loader, "input_columns": list(files.input_columns)}
        model = artifacts.commit_folder(self.store, "models", folder / "model", {"files": told})
        version = models.add_version(
            self.store, name="animals", run=f"animals-{name}", experiment={"recipe": name}, model=model.digest,
            package="models:/none", package_digest="1" * 64, dataset=self.references[dataset], author="mel",
            created="2026-01-01T00:00:00+00:00",
        )  # fmt: skip
        return Subject.of(version, evaluate(self.settings, version, Progress("evaluate")))

    def trained_linear(self) -> Served:
        recipe = open_recipe("baseline", self.folder / "baseline")
        (self.folder / "linear").mkdir()
        files = recipe.fit(self.folder / "linear", 0, lambda *given, **more: None)
        told = {"loader": files.loader, "input_columns": list(files.input_columns)}
        model = artifacts.commit_folder(self.store, "models", self.folder / "linear", {"files": told})
        version = replace(
            models.versions(self.store, "animals")[0], experiment={"recipe": "baseline"}, model=model.digest
        )
        return Served(version, registry.contract_of(self.store, self.dataset("books")), ["text"])

    def lineage(self, dataset: str = "old") -> Any:
        recipe = "text_search" if dataset == "books" else "sentence_embedding"
        return replace(super().lineage(dataset), experiment=f"recipe: {recipe}\n")


@pytest.fixture(scope="module")
def library(registered: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Library:
    folder = tmp_path_factory.mktemp("library")
    shutil.copytree(registered[0], folder / "store")
    return Library(folder, registered[1])


def test_gates_judge_by_the_order_of_the_grades_and_by_what_search_finds(library):
    spearman = library.evidence.evaluation(library.grader).metrics["model"]["spearman"]["value"]
    for minimum in (spearman - 0.01, spearman + 0.01):
        verdict = library.judge("threshold", {"metric": "spearman", "minimum": minimum}, library.grader)
        assert verdict.passed == (spearman >= minimum), verdict.sentence
    simple = library.judge("beats_baseline", {"metric": "spearman"}, library.grader)
    assert not simple.passed and "Counting the words that two texts share does better" in simple.sentence
    assert library.judge("baseline", {"metric": "score_error", "margin": 1.0}, library.grader).passed
    found = library.judge("threshold", {"metric": "index_recall_at_10", "minimum": 0.99}, library.searcher)
    assert found.passed and found.observed == 1
    assert not library.judge("threshold", {"metric": "spearman", "minimum": 0.1}, library.searcher).passed


@pytest.mark.parametrize("which", ["grader", "searcher"])
def test_the_package_is_asked_what_the_evaluation_asked(library, which, monkeypatch):
    subject = getattr(library, which)
    model = load_predictor(library.store, subject.model)

    def ask(settings: Any, address: str, rows: list[Any], requests: int) -> dict[str, Any]:
        return {"format": 1, "failure": None, "answers": model(rows), "request_ms": [], "requirements": []}

    monkeypatch.setattr(package_trial, "try_package", ask)
    verdict = library.judge("answers", {}, subject)
    assert verdict.passed and verdict.observed > 10


def test_the_page_of_graded_pairs_tells_correlations_and_each_range_of_scores(library):
    digest = library.scorecard(library.grader)
    text = page_of(library, digest).text
    found = library.evidence.evaluation(library.grader).metrics
    order = [
        f"Spearman's correlation {found['model']['spearman']['value']:.3f}", "TF-IDF cosine", "The baseline is tuned",
        "Pearson's correlation", "the mean score", "By score", "people's score", "4.0 to 5.0", "validation spearman",
    ]  # fmt: skip
    position = 0
    for words in order:
        assert (position := text.find(words, position)) >= 0, words
    assert "By class" not in text and "Examples it gets wrong" not in text
    card = json.loads(library.store.get(f"scorecards/{digest}/scorecard.json"))
    assert 0 <= card["figures"]["index_recall_at_10"] <= 1
    readme = library.store.get(f"scorecards/{digest}/README.md").decode()
    assert "type: sentence-similarity" in readme and "accuracy" not in readme


def test_the_page_of_a_search_tells_of_its_index_and_what_it_finds(library):
    text = page_of(library, library.scorecard(library.searcher)).text
    for words in ("Mean reciprocal rank", "The index found 100.0 %", "What it finds", "index queries per second"):
        assert words in text, words


def test_predict_names_unseen_labels_and_nearest_texts_by_any_model_that_embeds(library):
    grader, searcher = (served(library.store, one.ref) for one in (library.grader, library.searcher))
    named = zero_shot(library.store, grader, ("w1 w2 w3", "w7"), ["w1 w2 w3", "w50 w51"])
    assert named[0]["label"] == "w1 w2 w3" and set(named[1]["scores"]) == {"w1 w2 w3", "w50 w51"}
    for asked in (grader, searcher):
        (found,) = nearest(library.store, asked, ("w1 w2",), 3)
        scores = [one["score"] for one in found["nearest"]]
        assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    with pytest.raises(WrongInput, match="--labels one: gives 1; two are needed"):
        zero_shot(library.store, grader, ("w1",), ["one"])


def test_predict_refuses_labels_for_a_model_that_embeds_nothing(library):
    linear = library.trained_linear()
    with pytest.raises(WrongInput, match="recipe 'baseline' embeds no texts"):
        nearest(library.store, linear, ("w1",), 3)


def test_without_gates_an_experiment_gets_those_that_fit_its_kind(tmp_path):
    (tmp_path / "one.yaml").write_text("recipe: text_search\ndataset: x\ntraining: {steps: 40}\n")
    assert load_config(str(tmp_path / "one.yaml")).gates["champion"]["metric"] == "reciprocal_rank"
    (tmp_path / "two.yaml").write_text("recipe: text_search\ndataset: x\ntraining: {steps: 4, micro_batch_size: 8}\n")
    with pytest.raises(WrongInput, match="splits a batch whose loss does not sum over samples"):
        load_config(str(tmp_path / "two.yaml"))
