"""How good a classifier is on its test split, with 95 % intervals, and how it differs from another on the same rows.

Two methods, each where it is right:

- accuracy alone: the Wilson score interval. E. B. Wilson, "Probable inference, the law of succession, and statistical
  inference", JASA 22(158), 1927; recommended by Brown, Cai & DasGupta, "Interval estimation for a binomial
  proportion", Statistical Science 16(2), 2001, §3.1.
- macro-F1 and every difference of two models: the percentile bootstrap over test rows. Efron & Tibshirani, "An
  Introduction to the Bootstrap", 1993, §13.3. A difference resamples rows, keeping both models' answers to a row
  together (paired), as Koehn, "Statistical significance tests for machine translation evaluation", EMNLP 2004, does.

Resampling rows is resampling cells: rows with equal (label, prediction, other prediction) are exchangeable, so a
resample is one multinomial draw over the cells that occur, a few hundred however many rows there are.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

    from training.baseline import Baseline

FORMAT = 1
METRICS = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
"""Metric -> how a page writes it."""
CONFIDENCE = 0.95
RESAMPLES = 2000
TEXT_CHARS = 300
_BLOCK = 4_000_000  # resampled numbers held at once, to bound memory at 77 or 1,000 classes


@dataclass(frozen=True)
class Estimate:
    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


def known_metric(metric: str) -> str:
    """The metric itself. Raises ValueError listing what there is, for a setting that names another."""
    if metric not in METRICS:
        raise ValueError(f"no such metric; there is: {', '.join(METRICS)}")
    return metric


def points(value: float, high: float | None = None) -> str:
    """A difference of shares in percentage points: `+1.2 points`, or with two ends `-0.4 to +2.8`."""
    return f"{100 * value:+.1f} points" if high is None else f"{100 * value:+.1f} to {100 * high:+.1f}"


def wilson(successes: int, rows: int, confidence: float = CONFIDENCE) -> Estimate:
    """A proportion and its Wilson score interval. No rows: raises ValueError."""
    from statistics import NormalDist

    if rows <= 0:
        raise ValueError(f"a proportion of {rows} rows has no interval")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / rows
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * (share * (1 - share) / rows + z * z / (4 * rows * rows)) ** 0.5
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half))


def macro_f1(
    truth: "np.ndarray", predictions: "np.ndarray", classes: int, confidence: float = CONFIDENCE, seed: int = 0
) -> Estimate:
    """Unweighted mean of the F1 of every class that occurs in truth or predictions, with its bootstrap interval.

    truth, predictions: (N,) class indices below `classes`. Equal to scikit-learn's `f1_score(average="macro")`.
    """
    cells, counts = _cells(truth, predictions)
    value = _macro_f1(counts[None], cells[:, 0], cells[:, 1], classes)[0]
    draws = [_macro_f1(block, cells[:, 0], cells[:, 1], classes) for block in _resamples(counts, classes, seed)]
    return _percentiles(float(value), draws, confidence)


def paired_difference(
    predictions: Sequence[str],
    other: Sequence[str],
    labels: Sequence[str],
    metric: str = "accuracy",
    confidence: float = CONFIDENCE,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """`metric` of `predictions` minus that of `other` on the same rows, with its paired bootstrap interval.

    All three are of equal length, one item a test row; `labels` is the truth. metric: a key of METRICS.
    Raises ValueError when the lengths differ or there is no row.
    """
    if not len(predictions) == len(other) == len(labels) > 0:
        raise ValueError(f"{len(predictions)}, {len(other)} answers to {len(labels)} rows: these cannot be paired")
    truth, first, second, names = _indices(labels, predictions, other)
    cells, counts = _cells(truth, first, second)
    classes = len(names)

    known_metric(metric)

    def difference(block: "np.ndarray") -> "np.ndarray":
        if metric == "accuracy":
            gain = (cells[:, 0] == cells[:, 1]).astype(float) - (cells[:, 0] == cells[:, 2])
            return block @ gain / block.sum(1)
        return _macro_f1(block, cells[:, 0], cells[:, 1], classes) - _macro_f1(block, cells[:, 0], cells[:, 2], classes)

    value = float(difference(counts[None])[0])
    return _percentiles(value, [difference(b) for b in _resamples(counts, classes, seed, resamples)], confidence)


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
        "accuracy": wilson(int(hits.sum()), len(actual)).to_json(),
        "macro_f1": macro_f1(actual, answered, len(labels)).to_json(),
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
    random_start: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Write `metrics.json` and `predictions.parquet` into `folder`; returns what metrics.json holds.

    table: one row a test example, columns row_id, label, prediction, confidence (0 to 1), text (str), any order.
    labels: every class of the model, as text. baseline: its predictions, in the order of the table. model, dataset:
    digest of the model artifact and `name@digest`, so that this file can be evidence for no other. random_start:
    predictions of the same network fine-tuned from random weights, where that ablation was run.
    Raises ValueError when there is no row or a row has no label.
    """
    import pyarrow
    from pyarrow import parquet

    truth, predictions = table["label"].to_pylist(), table["prediction"].to_pylist()
    if not truth or None in truth:
        raise ValueError(f"{split} split of {dataset}: {len(truth)} rows, {truth.count(None)} without a label")
    truth, predictions = list(map(str, truth)), list(map(str, predictions))
    known = [*labels, *sorted({*truth, *predictions, *baseline.predictions} - set(labels))]
    described = describe_predictions(known, truth, predictions)
    majority = sum(label == baseline.majority for label in truth)
    metrics: dict[str, Any] = {
        "format": FORMAT,
        "task": "classification",
        "subject": {"model": model, "dataset": dataset},
        "split": split,
        "rows": len(truth),
        "labels": known,
        "model": described,
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
        "text": pyarrow.array([(text or "")[:TEXT_CHARS] for text in table["text"].to_pylist()], pyarrow.string()),
    }
    parquet.write_table(pyarrow.table(columns), folder / "predictions.parquet", compression="zstd")
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1, ensure_ascii=False), encoding="utf-8")
    return metrics


def _both_differences(predictions: Sequence[str], other: Sequence[str], truth: Sequence[str]) -> dict[str, Any]:
    return {metric: paired_difference(predictions, other, truth, metric).to_json() for metric in METRICS}


def _ablation_sentence(accuracy: dict[str, float]) -> str:
    seen = f"{points(accuracy['value'])} of accuracy against the same network fine-tuned from random weights"
    interval = f"95 % interval {points(accuracy['low'], accuracy['high'])}"
    if accuracy["low"] > 0:
        return f"Pretraining helped: {seen} ({interval})."
    if accuracy["high"] < 0:
        return f"Pretraining hurt: {seen} ({interval})."
    return f"Whether pretraining helps cannot be told from this test split: {seen} ({interval})."


def _indices(*columns: Sequence[str]) -> tuple[Any, ...]:
    """Each column as class indices (N,), and the sorted class names."""
    import numpy as np

    together = np.concatenate([np.asarray(column, dtype=object) for column in columns])
    names, flat = np.unique(together, return_inverse=True)
    return (*np.split(flat, len(columns)), names)


def _cells(*columns: "np.ndarray") -> "tuple[np.ndarray, np.ndarray]":
    """The distinct rows of the columns, (M, len(columns)), and how often each occurs, (M,)."""
    import numpy as np

    cells, counts = np.unique(np.stack(columns, 1), axis=0, return_counts=True)
    return cells, counts


def _resamples(counts: "np.ndarray", classes: int, seed: int, resamples: int = RESAMPLES) -> "Any":
    """Blocks of bootstrap resamples of the cells, each (B, M); in blocks, to hold little at once."""
    import numpy as np

    rng = np.random.default_rng(seed)
    rows = int(counts.sum())
    size = max(1, _BLOCK // max(len(counts), classes))
    for start in range(0, resamples, size):
        yield rng.multinomial(rows, counts / rows, size=min(size, resamples - start))


def _macro_f1(block: "np.ndarray", truth: "np.ndarray", predictions: "np.ndarray", classes: int) -> "np.ndarray":
    """Macro-F1 of each resample, (B,). block: (B, M) counts of cells; truth, predictions: (M,) classes of the cells."""
    import numpy as np
    from scipy.sparse import csr_array

    cell = np.arange(len(truth))
    hit = truth == predictions
    shape = (len(truth), classes)
    hits = block @ csr_array((np.ones(hit.sum()), (cell[hit], truth[hit])), shape)  # (B, classes)
    total = block @ csr_array((np.ones(len(cell)), (cell, truth)), shape)
    total = total + block @ csr_array((np.ones(len(cell)), (cell, predictions)), shape)
    present = total > 0  # a class that a resample lost has no F1, as in scikit-learn on those rows
    return (2 * hits / np.where(present, total, 1)).sum(1) / present.sum(1)


def _percentiles(value: float, draws: "list[np.ndarray]", confidence: float) -> Estimate:
    import numpy as np

    low, high = np.quantile(np.concatenate(draws), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(low), float(high))
