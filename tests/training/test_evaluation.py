"""An evaluation's figures equal scikit-learn's, and its two files hold what gates read."""

import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from sklearn.metrics import confusion_matrix, f1_score, log_loss

from training.baseline import Baseline
from training.evaluation import TEXT_CHARS
from training.evaluations.classification import describe_predictions, evaluate_classification


@pytest.mark.parametrize("absent", [False, True])
def test_figures_equal_scikit_learns(absent):
    rng = np.random.default_rng(0)
    names = ["a", "b", "c", "d"]
    truth = rng.choice(names[: 3 if absent else 4], 500).tolist()
    predictions = rng.choice(names[: 3 if absent else 4], 500).tolist()
    found = describe_predictions(names, truth, predictions)
    assert found["macro_f1"]["value"] == pytest.approx(f1_score(truth, predictions, average="macro"))
    assert found["confusion"] == confusion_matrix(truth, predictions, labels=names).tolist()
    per_class = f1_score(truth, predictions, labels=names, average=None, zero_division=0)
    assert [row["f1"] for row in found["per_class"]] == pytest.approx(per_class.tolist())
    assert sum(row["support"] for row in found["per_class"]) == 500


@pytest.fixture
def table():
    return pa.table(
        {
            "row_id": [f"{i:064x}" for i in range(6)],
            "label": ["a", "b", "a", "b", "a", "b"],
            "prediction": ["a", "b", "b", "b", "a", "c"],
            "confidence": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4],
            "text": ["short", "x" * 1000, "", "d", "e", "f"],
        }
    )


def test_evaluation_writes_both_files(table, tmp_path):
    linear = Baseline(["a"] * 6, "a", {"C": 10}, [{"C": 10, "validation_accuracy": 0.5}])
    found = evaluate_classification(
        table, ["a", "b", "c"], tmp_path, baseline=linear, model="m", dataset="d@1", random_start=["b"] * 6
    )
    assert json.loads((tmp_path / "metrics.json").read_text()) == found
    assert found["rows"] == 6
    assert found["test_reads"] == 1 and "log_loss" not in found["model"]
    assert found["calibration"]["ece"]["value"] > 0
    assert found["subject"] == {"model": "m", "dataset": "d@1"}
    assert found["model"]["accuracy"]["value"] == pytest.approx(4 / 6)
    assert found["baseline"]["accuracy"]["value"] == found["majority"]["accuracy"]["value"] == 0.5
    assert found["difference"]["accuracy"]["value"] == pytest.approx(1 / 6)
    assert found["ablation"]["accuracy"]["value"] == pytest.approx(1 / 6)
    assert "cannot be told" in found["ablation"]["sentence"]
    written = parquet.read_table(tmp_path / "predictions.parquet")
    assert written["row_id"].to_pylist() == table["row_id"].to_pylist()
    assert written["baseline_prediction"].to_pylist() == ["a"] * 6
    assert [len(text) for text in written["text"].to_pylist()] == [5, TEXT_CHARS, 0, 1, 1, 1]


def test_probabilities_give_losses_of_every_row_and_are_kept(table, tmp_path):
    shares = np.full((6, 3), 0.1)
    shares[np.arange(6), [0, 1, 1, 1, 0, 2]] = 0.8
    table = table.append_column("probabilities", pa.array(shares.tolist(), pa.list_(pa.float32())))
    linear = Baseline(["a"] * 6, "a", {}, [])
    found = evaluate_classification(table, ["a", "b", "c"], tmp_path, baseline=linear, model="m", dataset="d@1")
    truth = table["label"].to_pylist()
    assert found["model"]["log_loss"]["value"] == pytest.approx(log_loss(truth, shares, labels=["a", "b", "c"]))
    onehot = np.array([[label == name for name in "abc"] for label in truth])
    written = parquet.read_table(tmp_path / "predictions.parquet")
    assert written["brier"].to_pylist() == pytest.approx(((shares - onehot) ** 2).sum(1).tolist())
    assert found["model"]["brier"]["value"] == pytest.approx(np.mean(written["brier"].to_pylist()))
    assert np.allclose(written["probabilities"].to_pylist(), shares)
    assert found["model"]["log_loss"]["low"] < found["model"]["log_loss"]["value"] < found["model"]["log_loss"]["high"]


def test_a_class_without_a_probability_costs_a_great_deal_and_not_all(table, tmp_path):
    sure = table.append_column("probabilities", pa.array([[1.0, 0.0]] * 6))
    linear = Baseline(["a"] * 6, "a", {}, [])
    found = evaluate_classification(
        sure.set_column(1, "label", pa.array(["a", "b", "z", "a", "a", "a"])).set_column(2, "prediction", [["a"] * 6]),
        ["a", "b"], tmp_path, baseline=linear, model="m", dataset="d@1",
    )  # fmt: skip
    losses = parquet.read_table(tmp_path / "predictions.parquet")["log_loss"].to_pylist()
    assert losses[0] == 0 and 30 < losses[1] == losses[2] < 40
    assert found["model"]["log_loss"]["value"] == pytest.approx(2 * losses[1] / 6)


def test_a_class_the_model_never_saw_is_counted(table, tmp_path):
    linear = Baseline(["z"] * 6, "z", {}, [])
    found = evaluate_classification(table, ["a", "b"], tmp_path, baseline=linear, model="m", dataset="d@1")
    assert found["labels"] == ["a", "b", "c", "z"]
    assert sum(map(sum, found["model"]["confusion"])) == 6


@pytest.mark.parametrize("label", [pa.array([None] * 6, pa.string()), None])
def test_rows_without_a_label_are_an_error(table, tmp_path, label):
    broken = table.set_column(1, "label", label) if label is not None else table.slice(0, 0)
    with pytest.raises(ValueError, match="test split of d@1"):
        evaluate_classification(broken, ["a"], tmp_path, baseline=Baseline([], "a", {}, []), model="m", dataset="d@1")
    assert not (tmp_path / "metrics.json").exists()


def test_of_two_labels_there_is_the_f1_of_the_second_and_its_interval(tmp_path):
    rng = np.random.default_rng(0)
    truth, said = (rng.choice(["no", "yes"], 400, p=[0.7, 0.3]).tolist() for _ in range(2))
    rows = {"row_id": [f"{i:064x}" for i in range(400)], "label": truth, "prediction": said}
    table = pa.table({**rows, "confidence": [0.5] * 400, "text": ["x"] * 400})
    linear = Baseline(["no"] * 400, "no", {}, [])
    found = evaluate_classification(table, ["no", "yes"], tmp_path, baseline=linear, model="m", dataset="d@1")["model"]
    assert found["f1"]["value"] == pytest.approx(f1_score(truth, said, pos_label="yes"))
    assert 0.05 < found["f1"]["high"] - found["f1"]["low"] < 0.25 and "absolute_error" not in found
    from training.intervals import compare

    columns = parquet.read_table(tmp_path / "predictions.parquet", columns=["is_second", "said_second"]).to_pydict()
    gain = compare("f1", {**columns, "said_second": columns["is_second"]}, columns)
    assert gain.value == pytest.approx(1 - found["f1"]["value"]) and gain.low > 0


def test_labels_on_a_scale_have_a_mean_error_in_its_unit(table, tmp_path):
    stars = {"a": "1", "b": "2", "c": "10"}
    columns = {name: [stars[one] for one in table[name].to_pylist()] for name in ("label", "prediction")}
    for place, name in enumerate(table.column_names):
        if name in columns:
            table = table.set_column(place, name, pa.array(columns[name]))
    linear = Baseline(["1"] * 6, "1", {}, [])
    found = evaluate_classification(
        table, ["1", "2", "10"], tmp_path, baseline=linear, model="m", dataset="d@1", ordinal=True
    )
    assert found["model"]["absolute_error"]["value"] == pytest.approx((0 + 0 + 1 + 0 + 0 + 8) / 6)
    assert "f1" not in found["model"]
    assert parquet.read_table(tmp_path / "predictions.parquet")["absolute_error"].to_pylist() == [0, 0, 1, 0, 0, 8]
