"""The recipe `baseline`: what it packages decides as scikit-learn's own model does, and is chosen on validation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.svm import LinearSVC

from infra.errors import WrongInput
from training.baseline import tfidf
from training.examples import ExampleContract, texts
from training.recipes.baseline import Recipe, Settings, load_predictor

KINDS = ["logistic_regression", "linear_svm", "naive_bayes"]


def made(folder: Path, splits: dict[str, pa.Table] | None = None, **settings: Any) -> tuple[Any, Path]:
    """The predictor, and the folder of its model."""
    recipe = Recipe(Settings(**settings), {})
    (folder / "prepared").mkdir(parents=True)
    given = splits or {"train": texts(200, 1), "validation": texts(60, 2)}
    recipe.prepare(given, ExampleContract(), folder / "prepared", lambda note: None)
    recipe.open(folder / "prepared")
    (folder / "model").mkdir()
    recipe.fit(folder / "model", 0, lambda *_, **__: None)
    return load_predictor(folder / "model"), folder / "model"


@pytest.mark.parametrize("num_labels", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_packaged_decides_as_the_librarys_own_model(kind: str, num_labels: int, tmp_path: Path) -> None:
    splits = {name: texts(150, seed) for name, seed in (("train", 1), ("validation", 2))}
    kept = [f"label {number}" for number in range(num_labels)]
    splits = {name: table.filter(pa.compute.is_in(table["label"], pa.array(kept))) for name, table in splits.items()}
    model, _ = made(tmp_path, splits, classifier=kind, strengths=(1,), calibrate="none")
    vectorizer = tfidf()
    features = vectorizer.fit_transform(splits["train"]["text"].to_pylist())
    own = {
        "logistic_regression": LogisticRegression(C=1, tol=1e-3, solver="saga", max_iter=200, random_state=0),
        "linear_svm": LinearSVC(C=1, random_state=0),
        "naive_bayes": MultinomialNB(alpha=1),
    }[kind].fit(features, splits["train"]["label"].to_pylist())
    asked = texts(100, 3)["text"].to_pylist()
    rows = vectorizer.transform(asked)
    answers = model([{"text": text} for text in asked])
    assert [one["label"] for one in answers] == own.predict(rows).tolist()
    if kind != "linear_svm":
        shares = np.array([[one["scores"][label] for label in own.classes_] for one in answers])
        assert shares == pytest.approx(own.predict_proba(rows), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_as_sure_as_it_is_right_on_validation(kind: str, tmp_path: Path) -> None:
    splits = {"train": texts(150, 1), "validation": texts(400, 2)}
    model, folder = made(tmp_path, splits, classifier=kind)
    plain, _ = made(tmp_path / "plain", splits, classifier=kind, calibrate="none")
    rows, truth = splits["validation"].select(["text"]).to_pylist(), splits["validation"]["label"].to_pylist()

    def loss(predictor: Any) -> float:
        told = predictor(rows)
        return -float(np.mean([np.log(one["scores"][label]) for one, label in zip(told, truth, strict=True)]))

    assert json.loads((folder / "recipe.json").read_text())["chosen"]["temperature"] != 1.0
    assert loss(model) < loss(plain)
    assert [one["label"] for one in model(rows)] == [one["label"] for one in plain(rows)]


def test_the_strength_is_chosen_on_validation(tmp_path: Path) -> None:
    """Of these two the first is all but deaf."""
    for place, strengths in enumerate([(1e-6, 10), (10, 1e-6)]):
        _, folder = made(tmp_path / str(place), strengths=strengths)
        chosen = json.loads((folder / "recipe.json").read_text())["chosen"]
        assert chosen["C"] == 10
        assert {one["C"]: one["validation_accuracy"] for one in chosen["tried"]}.keys() == set(strengths)


def test_balanced_classes_count_alike(tmp_path: Path) -> None:
    table = texts(400, 1)
    rare = np.array(table["label"].to_pylist()) == "label 1"
    kept = np.flatnonzero(~rare | (np.cumsum(rare) <= 8))
    splits = {"train": table.take(kept), "validation": texts(100, 2)}
    asked = [{"text": text} for text in texts(300, 3)["text"].to_pylist()]
    said = {
        weight: sum(
            one["label"] == "label 1"
            for one in made(tmp_path / weight, splits, strengths=(1,), class_weight=weight)[0](asked)
        )
        for weight in ("none", "balanced")
    }
    assert said["balanced"] > said["none"] + 10


def test_empty_and_missing_texts_and_unseen_labels_are_answered_and_counted(tmp_path: Path) -> None:
    extra = pa.table({"row_id": ["a", "b"], "text": ["", "w1 w2"], "label": ["label 0", "never seen"]})
    train = pa.concat_tables([texts(100, 1), extra.slice(0, 1)])
    validation = pa.concat_tables([texts(40, 2), extra.slice(1), pa.table(
        {"row_id": ["c"], "text": ["w3"], "label": pa.array([None], pa.string())})])  # fmt: skip
    model, _ = made(tmp_path, {"train": train, "validation": validation})
    for one in model([{"text": ""}, {"text": None}, {"text": "words it never saw"}]):
        assert sum(one["scores"].values()) == pytest.approx(1)


def test_a_label_unseen_in_training_changes_no_temperature(tmp_path: Path) -> None:
    """It has no score to be right with: the fit would read another label's in its place."""
    seen = texts(60, 2)
    strange = seen.set_column(2, "label", pa.array(["never seen"] * len(seen)))
    chosen = []
    for name, validation in (("seen", seen), ("both", pa.concat_tables([seen, strange]))):
        _, folder = made(tmp_path / name, {"train": texts(150, 1), "validation": validation}, strengths=(1,))
        chosen.append(json.loads((folder / "recipe.json").read_text())["chosen"]["temperature"])
    assert chosen[0] == chosen[1] != 1.0


def test_what_cannot_be_fitted_is_refused_in_one_line(tmp_path: Path) -> None:
    one = texts(50, 1).filter(pa.compute.equal(texts(50, 1)["label"], "label 1"))
    with pytest.raises(WrongInput, match="has 1 value; 2 needed"):
        made(tmp_path / "one", {"train": one, "validation": texts(10, 2)})
    silent = pa.table({"row_id": ["a", "b"], "text": ["", "!"], "label": ["x", "y"]})
    with pytest.raises(WrongInput, match="no training text has a word"):
        made(tmp_path / "silent", {"train": silent, "validation": silent.slice(0, 0)})


def test_without_a_validation_split_the_first_strength_stands(tmp_path: Path) -> None:
    _, folder = made(tmp_path, {"train": texts(100, 1), "validation": texts(10, 2).slice(0, 0)}, strengths=(3, 1))
    chosen = json.loads((folder / "recipe.json").read_text())["chosen"]
    assert (chosen["C"], chosen["temperature"]) == (3, 1.0)
    assert load_file(folder / "linear.safetensors")["coef"].dtype == np.float32
