"""Figures and their intervals: equal to the textbook's, paired where they say so, honest over many draws."""

import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, f1_score

from training.baseline import Baseline
from training.evaluation import (
    TEXT_CHARS,
    describe_predictions,
    evaluate_classification,
    macro_f1,
    paired_difference,
    wilson,
)


@pytest.mark.parametrize(("successes", "rows"), [(0, 10), (10, 10), (1500, 1900), (1, 3)])
def test_wilson_equals_scipys(successes, rows):
    expected = binomtest(successes, rows).proportion_ci(0.95, method="wilson")
    found = wilson(successes, rows)
    assert found.value == successes / rows
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_an_interval_of_no_rows_is_an_error():
    with pytest.raises(ValueError, match="no interval"):
        wilson(0, 0)
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference([], [], [])


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


def test_macro_f1_interval_equals_that_of_resampled_rows():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 400)
    predictions = np.where(rng.random(400) < 0.7, truth, rng.integers(0, 3, 400))
    found = macro_f1(truth, predictions, 3)
    draws = [rng.integers(0, 400, 400) for _ in range(1000)]
    plain = [f1_score(truth[rows], predictions[rows], average="macro") for rows in draws]
    assert (found.low, found.high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.006)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_a_difference_is_paired(metric):
    """Two models that mostly err together differ far less surely by chance than two figures put side by side."""
    rng = np.random.default_rng(2)
    truth = rng.choice(["a", "b"], 1000)
    other = {"a": "b", "b": "a"}
    first = [t if i >= 300 else other[t] for i, t in enumerate(truth)]
    second = [t if i >= 320 else other[t] for i, t in enumerate(truth)]
    found = paired_difference(first, second, truth.tolist(), metric)
    assert found.value == pytest.approx(0.02, abs=0.003)
    assert 0.008 < found.low < 0.02 < found.high < 0.032
    assert wilson(700, 1000).high - wilson(700, 1000).low > 2 * (found.high - found.low)
    reverse = paired_difference(second, first, truth.tolist(), metric)
    assert (reverse.value, reverse.low) == pytest.approx((-found.value, -found.high), abs=0.004)


def test_a_model_differs_from_itself_by_nothing():
    found = paired_difference(["a", "b"], ["a", "b"], ["a", "a"])
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_paired_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(3)
    held = 0
    for seed in range(200):
        truth = np.zeros(600, dtype=int)
        both = rng.random(600)
        first, second = (both < 0.78).astype(int), ((both < 0.70) | (both > 0.95)).astype(int)  # difference: 0.03
        found = paired_difference(
            (1 - first).astype(str).tolist(), (1 - second).astype(str).tolist(), truth.astype(str).tolist(),
            seed=seed, resamples=500,
        )  # fmt: skip
        held += found.low <= 0.03 <= found.high
    assert held >= 180, "a 95 % interval held the true difference in under 90 % of 200 trials"


def test_intervals_are_the_same_every_time():
    truth, answers, other = ["a", "b", "a", "b"] * 20, ["a", "b", "b", "b"] * 20, ["a", "a", "a", "b"] * 20
    assert paired_difference(answers, other, truth) == paired_difference(answers, other, truth)
    assert paired_difference(answers, other, truth) != paired_difference(answers, other, truth, seed=1)


def test_an_unknown_metric_lists_what_there_is():
    with pytest.raises(ValueError, match="accuracy, macro_f1"):
        paired_difference(["a"], ["a"], ["a"], "acuracy")


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
