"""How good a classifier is on its test split, beside a linear baseline: figures, intervals, and every row's results."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.calibration import expected_calibration_error, per_row_losses, reliability
from training.intervals import compare, estimate, wilson
from training.metrics import METRICS

if TYPE_CHECKING:
    import pyarrow

    from training.baseline import Baseline

FORMAT = 1
COMPARED = ("accuracy", "macro_f1")
"""What is told of the baseline, which gives answers and no probabilities."""
TEXT_CHARS = 300
MAX_CLASSES_KEPT = 200
"""Up to so many classes each row's probabilities are kept: 10,000 rows of 200 classes are 8 MB."""


def compared_metric(metric: str) -> str:
    """The metric itself. Raises ValueError listing what there is, for a setting that names another."""
    if metric not in COMPARED:
        raise ValueError(f"no such metric of a baseline; there is: {', '.join(COMPARED)}")
    return metric


def describe_predictions(labels: Sequence[str], truth: Sequence[str], predictions: Sequence[str]) -> dict[str, Any]:
    """accuracy, macro_f1, per_class and confusion (rows: truth, columns: prediction, in the order of `labels`)."""
    import numpy as np

    position = {label: index for index, label in enumerate(labels)}
    actual = np.array([position[label] for label in truth])
    answered = np.array([position[label] for label in predictions])
    confusion = np.bincount(actual * len(labels) + answered, minlength=len(labels) ** 2).reshape(len(labels), -1)
    hits, support, claimed = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    per_class = [
        {
            "label": label,
            "precision": float(hits[i] / claimed[i]) if claimed[i] else 0.0,
            "recall": float(hits[i] / support[i]) if support[i] else 0.0,
            "f1": float(2 * hits[i] / (support[i] + claimed[i])) if support[i] + claimed[i] else 0.0,
            "support": int(support[i]),
        }
        for i, label in enumerate(labels)
    ]
    return {
        **{metric: estimate(metric, {"label": truth, "prediction": predictions}).to_json() for metric in COMPARED},
        "per_class": per_class,
        "confusion": confusion.tolist(),
    }


def evaluate_classification(
    table: "pyarrow.Table",
    labels: Sequence[str],
    folder: Path,
    *,
    baseline: "Baseline",
    model: str,
    dataset: str,
    split: str = "test",
    test_reads: int = 1,
    random_start: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Write `metrics.json` and `predictions.parquet` into `folder`; returns what metrics.json holds.

    table: one row a test example, columns row_id, label, prediction, confidence (0 to 1), text (str), any order; and
    where the model gives them `probabilities`, one of each of `labels`. labels: every class of the model, as text.
    baseline: its predictions, in the order of the table. model, dataset: digest of the model artifact and
    `name@digest`, so that this file can be evidence for no other. test_reads: how often this model has been evaluated
    on the split, this time included. random_start: predictions of the same network fine-tuned from random weights,
    where that ablation was run.
    Raises ValueError when there is no row or a row has no label.
    """
    import numpy as np
    import pyarrow
    from pyarrow import parquet

    truth, predictions = table["label"].to_pylist(), table["prediction"].to_pylist()
    if not truth or None in truth:
        raise ValueError(f"{split} split of {dataset}: {len(truth)} rows, {truth.count(None)} without a label")
    truth, predictions = list(map(str, truth)), list(map(str, predictions))
    known = [*labels, *sorted({*truth, *predictions, *baseline.predictions} - set(labels))]
    described = describe_predictions(known, truth, predictions)
    confidence = table["confidence"].to_numpy().astype(float)
    right = np.array([label == answer for label, answer in zip(truth, predictions, strict=True)])
    losses: dict[str, Any] = {}
    if "probabilities" in table.column_names:
        shares = np.array(table["probabilities"].to_pylist(), dtype=float).reshape(len(truth), len(labels))
        position = {label: index for index, label in enumerate(labels)}
        per_row = per_row_losses(shares, np.array([position.get(label, -1) for label in truth]))
        losses = dict(zip(("log_loss", "brier"), per_row, strict=True))
    majority = sum(label == baseline.majority for label in truth)
    metrics: dict[str, Any] = {
        "format": FORMAT,
        "task": "classification",
        "subject": {"model": model, "dataset": dataset},
        "split": split,
        "test_reads": test_reads,
        "rows": len(truth),
        "labels": known,
        "model": {**described, **{name: estimate(name, {name: losses[name]}).to_json() for name in losses}},
        "calibration": {
            "ece": expected_calibration_error(confidence, right).to_json(),
            "reliability": reliability(confidence, right),
        },
        "baseline": {
            "name": baseline.name,
            "settings": baseline.settings,
            "tried": baseline.tried,
            **describe_predictions(known, truth, baseline.predictions),
        },
        "majority": {"label": baseline.majority, "accuracy": wilson(majority, len(truth)).to_json()},
        "difference": _both_differences(predictions, baseline.predictions, truth),
    }
    if random_start is not None:
        ablation = _both_differences(predictions, random_start, truth)
        metrics["ablation"] = {**ablation, "sentence": _ablation_sentence(ablation["accuracy"])}
    folder.mkdir(parents=True, exist_ok=True)
    columns = {
        "row_id": table["row_id"],
        "label": pyarrow.array(truth, pyarrow.string()),
        "prediction": pyarrow.array(predictions, pyarrow.string()),
        "confidence": table["confidence"],
        "baseline_prediction": pyarrow.array(baseline.predictions, pyarrow.string()),
        **losses,
        "text": pyarrow.array([(text or "")[:TEXT_CHARS] for text in table["text"].to_pylist()], pyarrow.string()),
    }
    if losses and len(labels) <= MAX_CLASSES_KEPT:
        columns["probabilities"] = table["probabilities"]
    parquet.write_table(pyarrow.table(columns), folder / "predictions.parquet", compression="zstd")
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1, ensure_ascii=False), encoding="utf-8")
    return metrics


def _both_differences(predictions: Sequence[str], other: Sequence[str], truth: Sequence[str]) -> dict[str, Any]:
    mine, theirs = ({"label": truth, "prediction": answers} for answers in (predictions, other))
    return {metric: compare(metric, mine, theirs).to_json() for metric in COMPARED}


def _ablation_sentence(accuracy: dict[str, float]) -> str:
    points = METRICS["accuracy"].difference
    seen = f"{points(accuracy['value'])} of accuracy against the same network fine-tuned from random weights"
    interval = f"95 % interval {points(accuracy['low'], accuracy['high'])}"
    if accuracy["low"] > 0:
        return f"Pretraining helped: {seen} ({interval})."
    if accuracy["high"] < 0:
        return f"Pretraining hurt: {seen} ({interval})."
    return f"Whether pretraining helps cannot be told from this test split: {seen} ({interval})."
