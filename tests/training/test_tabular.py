"""Tables: what is read as what, trees that answer as the library's own, a recipe that refuses what it cannot learn."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from infra.errors import WrongInput
from tests.training.examples import EXAMPLES, ExampleContract, open_recipe
from training import tables
from training.evaluations.classification import evaluate_classification
from training.recipe import load_recipe
from training.table_baseline import fit_table_baseline
from training.trees import Trees

INPUTS = ("count", "size", "colour", "day", "open")
example = EXAMPLES["table"]


def silent(step: int, num_steps: int, metrics: Any = None, note: str = "") -> None:
    return


@pytest.mark.parametrize("num_labels", [2, 3])
@pytest.mark.parametrize("inputs", [INPUTS, ("count", "size")], ids=["categories", "numbers"])
def test_saved_trees_answer_as_the_library_does(num_labels: int, inputs: tuple[str, ...]) -> None:
    from scipy.special import softmax
    from sklearn.ensemble import HistGradientBoostingClassifier

    train, test = example(600, 1), example(400, 2)
    read, _ = tables.read_inputs(train, inputs)
    features, asked = tables.matrix(train, read), tables.matrix(test, read)
    asked[::7] = np.nan  # what was never missing in training, too
    answers = np.array([min(int(label[-1]), num_labels - 1) for label in train["label"].to_pylist()])
    categorical = tables.is_categorical(read)
    model = HistGradientBoostingClassifier(
        max_iter=20, early_stopping=False, categorical_features=categorical if categorical.any() else None
    ).fit(features, answers)
    trees = Trees.of(model, model.n_iter_)
    assert np.abs(softmax(trees.logits(asked), axis=1) - model.predict_proba(asked)).max() < 1e-12
    assert (len(trees.bitsets) > 0) == categorical.any()
    fewer = Trees.of(model, 5)
    staged = list(model.staged_predict_proba(asked))[4]
    assert np.abs(softmax(fewer.logits(asked), axis=1) - staged).max() < 1e-12


def test_columns_become_numbers_categories_and_parts_of_dates() -> None:
    table = pa.table(
        {
            "shop": pa.array([7, 7, None, 9]),
            "town": pa.array(["Ulm", "Bonn", "Ulm", None]),
            "day": pa.array([date(1970, 1, 2), None, date(1970, 2, 1), date(1970, 1, 1)]),
            "open": pa.array([True, None, False, True]),
        }
    )
    read, left_out = tables.read_inputs(table, table.column_names, ["shop"])
    assert left_out == []
    assert [one.categories for one in read] == [("7", "9"), ("Ulm", "Bonn"), None, None]
    names = [name for one in read for name in one.features]
    assert names == ["shop", "town", "day", "day: weekday", "day: day of year", "open"]
    nan = np.nan
    expected = [[0, 0, 1, 4, 2, 1], [0, 1, nan, nan, nan, nan], [nan, 0, 31, 6, 32, 0], [1, nan, 0, 3, 1, 1]]
    np.testing.assert_array_equal(tables.matrix(table, read), expected)
    np.testing.assert_array_equal(tables.is_categorical(read), [one in ("shop", "town") for one in names])


def test_a_row_asked_is_cast_as_when_it_was_registered() -> None:
    read, _ = tables.read_inputs(example(50, 1), INPUTS)
    asked: list[dict[str, Any]] = [
        {"count": "12", "size": "", "colour": "red", "day": "2024-03-01", "open": "true"},
        {"count": 12, "size": float("nan"), "colour": "red", "day": date(2024, 3, 1), "open": True},
        {"count": 12.0, "colour": "never seen", "day": None},
    ]
    first, second, third = tables.matrix(tables.cast_rows(asked, read, ("",)), read)
    np.testing.assert_array_equal(first, second)
    assert third[0] == 12 and np.isnan(third[1:]).all()
    with pytest.raises(WrongInput, match=r"row 2: column 'count': 'many' is not an integer"):
        tables.cast_rows([{"count": 1}, {"count": "many"}], read, ("",))


def test_free_text_is_left_out_and_lists_are_refused() -> None:
    rows = 100
    table = pa.table(
        {"size": [1.5] * rows, "note": [f"note {n}" for n in range(rows)], "parts": pa.array([[1]] * rows)}
    )
    read, left_out = tables.read_inputs(table, ["size", "note"])
    assert ([one.name for one in read], left_out) == (["size"], ["note"])
    with pytest.raises(WrongInput, match="hold free text alone"):
        tables.read_inputs(table, ["note"])
    with pytest.raises(WrongInput, match=r"column 'parts': holds lists.*slipway\.inputs"):
        tables.read_inputs(table, ["size", "parts"])


def prepare(folder: Path, train: pa.Table, validation: pa.Table | None = None, **settings: Any) -> Any:
    module = load_recipe("tabular")
    recipe = module.Recipe(module.Settings(**settings), {})
    splits = {"train": train, "validation": validation or example(60, 2), "test": example(60, 3)}
    folder.mkdir(exist_ok=True)
    recipe.prepare(splits, ExampleContract(inputs=INPUTS), folder, lambda note: None)
    recipe.open(folder)
    return recipe


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda table: table, {"weight": "wieght"}, "settings.weight: dataset example has no 'wieght'"),
        (lambda table: table, {"weight": "colour"}, "column 'colour' is not a number of 0 or more in every row"),
        (lambda table: table, {"categories": ["label"]}, "settings.categories: dataset example has no 'label'"),
        (lambda table: table.set_column(6, "label", pa.array(range(300))), {}, "has 300 values to tell apart"),
        (lambda table: table.set_column(6, "label", pa.array(["a"] * 300)), {}, "has 1 values to tell apart"),
    ],
    ids=["no such weight", "weight of text", "no such category", "a number to predict", "one label"],
)
def test_what_cannot_be_learned_is_one_line(tmp_path: Path, change: Any, settings: Any, message: str) -> None:
    with pytest.raises(WrongInput, match=message):
        prepare(tmp_path, change(example(300, 1)), **settings)


def test_rows_without_a_label_are_not_learned_from(tmp_path: Path) -> None:
    table = example(300, 1)
    labels = [None if place < 100 else label for place, label in enumerate(table["label"].to_pylist())]
    recipe = prepare(tmp_path, table.set_column(6, "label", pa.array(labels)))
    assert recipe.row_ids("train", np.arange(recipe.num_samples("train"))) == table["row_id"].to_pylist()[100:]


def shares(folder: Path, recipe: Any) -> np.ndarray:
    """(N, labels) what a fit answers to other examples."""
    folder.mkdir()
    recipe.fit(folder, 0, silent)
    return load_recipe("tabular").load_predictor(folder).probabilities(example(400, 4).to_pylist())


def test_rows_of_more_weight_are_answered_more_often(tmp_path: Path) -> None:
    def weighing(table: pa.Table, weight: float) -> pa.Table:
        rare = np.array([label == "label 0" for label in table["label"].to_pylist()])
        return table.append_column("weight", pa.array(np.where(rare, weight, 1.0)))

    found = []
    for number, weight in enumerate((1.0, 9.0)):
        train, validation = weighing(example(300, 1), weight), weighing(example(60, 2), weight)
        recipe = prepare(tmp_path / f"p{number}", train, validation=validation, weight="weight", calibrate="none")
        found.append(shares(tmp_path / f"m{number}", recipe)[:, 0].mean())
    assert found[1] > found[0] + 0.01
    with pytest.raises(WrongInput, match="not a number of 0 or more"):
        prepare(tmp_path / "negative", weighing(example(300, 1), -1.0), weight="weight")
    nothing = example(300, 1).append_column("weight", pa.array(np.zeros(300)))
    recipe = prepare(tmp_path / "nothing", nothing, validation=weighing(example(60, 2), 1.0), weight="weight")
    with pytest.raises(WrongInput, match="is 0 in every row to train on"):
        recipe.fit(tmp_path, 0, silent)


def test_balanced_classes_answer_the_rare_one_more_often(tmp_path: Path) -> None:
    plain = shares(tmp_path / "a", open_recipe("tabular", tmp_path / "p"))
    balanced = shares(tmp_path / "b", open_recipe("tabular", tmp_path / "p", class_weight="balanced"))
    rare = int(np.bincount([int(label[-1]) for label in example(200, 1)["label"].to_pylist()]).argmin())
    assert balanced[:, rare].mean() > plain[:, rare].mean()


def test_calibration_changes_how_sure_it_is_and_no_answer(tmp_path: Path) -> None:
    plain = shares(tmp_path / "a", open_recipe("tabular", tmp_path / "p", calibrate="none"))
    calibrated = shares(tmp_path / "b", open_recipe("tabular", tmp_path / "p"))
    assert (plain.argmax(1) == calibrated.argmax(1)).all() and not np.allclose(plain, calibrated)


def test_the_baseline_of_tables_is_tuned_and_sees_what_the_model_sees(tmp_path: Path) -> None:
    train, validation, test = example(400, 1), example(200, 2), example(300, 3)
    found = fit_table_baseline(train, validation, test, list(INPUTS), "label")
    assert found == fit_table_baseline(train, validation, test, list(INPUTS), "label")
    best = max(one["validation_accuracy"] for one in found.tried)
    assert found.settings["C"] == next(one["C"] for one in found.tried if one["validation_accuracy"] == best)
    truth = test["label"].to_pylist()
    assert np.mean([a == b for a, b in zip(found.predictions, truth, strict=True)]) > 0.7
    assert found.majority == "label 1" and found.name == "one-hot + logistic regression"
    answers = pa.table(
        {
            "row_id": test["row_id"], "label": truth, "prediction": truth, "confidence": [1.0] * 300,
            "text": [""] * 300,
        }
    )  # fmt: skip
    metrics = evaluate_classification(
        answers, ["label 0", "label 1", "label 2"], tmp_path, baseline=found, model="m", dataset="d@1"
    )
    assert metrics["baseline"]["name"] == found.name and metrics["difference"]["accuracy"]["value"] > 0


def test_hours_are_told_apart_by_the_baseline_though_they_have_no_order() -> None:
    hours = np.tile(np.arange(24), 30)
    table = pa.table({"hr": hours, "label": np.where(np.isin(hours, [8, 9, 17, 18]), "busy", "calm")})
    found = fit_table_baseline(table, table, table, ["hr"], "label")
    assert found.predictions == table["label"].to_pylist()
