"""How good a classifier is on its test split, beside a linear baseline: figures, intervals, and every row's results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from training.calibration import expected_calibration_error, per_row_losses, reliability
from training.evaluation import TEXT_CHARS, Asked, Kind, Picture, Say, shown, write
from training.intervals import compare, estimate, wilson
from training.metrics import Metric

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

    from training.baseline import Baseline

COMPARED = ("accuracy", "macro_f1")
"""What is told of the baseline, which gives answers and no probabilities."""
MISTAKES, COLUMNS, SIDE = 24, 8, 96
"""Of pictures, shown on a page: how many, in how many columns, how large in pixels."""
MAX_CLASSES_KEPT = 200
"""Up to so many classes each row's probabilities are kept: 10,000 rows of 200 classes are 8 MB."""


def _f1(columns: "Mapping[str, np.ndarray]", drawn: "np.ndarray") -> "np.ndarray":
    """drawn: (B, N), how often each row was drawn. Returns (B,)."""
    import numpy as np

    there, said = columns["is_second"], columns["said_second"]
    total = drawn @ (there + said)
    return 2 * (drawn @ (there * said)) / np.where(total > 0, total, 1)


class Classification(Kind):
    metrics: ClassVar[dict[str, Metric]] = {
        "accuracy": Metric(title="accuracy", columns=("label", "prediction"), shared=("label",), compared=True),
        "macro_f1": Metric(
            title="macro-F1", columns=("label", "prediction"), shared=("label",), mean=False, compared=True
        ),
        "log_loss": Metric(title="log loss", columns=("log_loss",), higher_is_better=False, share=False),
        "brier": Metric(title="Brier score", columns=("brier",), higher_is_better=False, share=False),
        "f1": Metric(title="F1", columns=("is_second", "said_second"), shared=("is_second",), mean=False, weighted=_f1),
        "absolute_error": Metric(title="mean error", columns=("absolute_error",), higher_is_better=False, share=False),
    }
    needs_label = True
    baseline = "a simple model"
    advice = (
        "more epochs, more labelled rows, other settings, or, for text, an encoder pretrained on much more of it "
        "(--set base=PATH)"
    )

    def hub_task(self, reads: str) -> str:
        return {"table": "tabular-classification", "image": "image-classification"}.get(reads, "text-classification")

    def evaluate(self, asked: Asked, folder: Path, say: Say) -> dict[str, Any]:
        from training.baseline import fit_baseline
        from training.image_baseline import fit_image_baseline
        from training.table_baseline import fit_table_baseline

        say(0, "answering the test split")
        labels, table = answer(asked.predictor, asked)
        random_start = None
        if asked.random_start is not None:
            say(0.2, "answering with the model from random weights")
            random_start = answer(asked.random_start, asked)[1]["prediction"].to_pylist()
        fit = {"table": fit_table_baseline, "image": fit_image_baseline}.get(asked.reads, fit_baseline)
        baseline = fit(
            asked.splits["train"],
            asked.splits["validation"],
            asked.judged,
            list(asked.inputs),
            str(asked.label),
            lambda done, total, note: say(0.4 + 0.4 * done / total, f"baseline: {note}"),
        )
        say(0.8, "intervals")
        return evaluate_classification(
            table,
            labels,
            folder,
            baseline=baseline,
            model=asked.model,
            dataset=asked.dataset,
            split=asked.split,
            test_reads=asked.test_reads,
            random_start=random_start,
            ordinal=getattr(asked.predictor, "ordinal", False),
            pictures=_mistakes(asked, table) if asked.images else (),
        )


KIND = Classification()


def answer(predictor: Any, asked: Asked) -> "tuple[list[str], pyarrow.Table]":
    """A model's answers: its labels, and a table row_id, label, prediction, confidence, text in the split's order; and
    `probabilities`, one of each label, where it gives them."""
    import pyarrow as pa

    rows = asked.rows(asked.judged)
    answers = predictor(rows)
    seen = [name for name in asked.inputs if name not in asked.images]
    table = pa.table(
        {
            "row_id": asked.judged["row_id"],
            "label": pa.array([str(value) for value in asked.judged[str(asked.label)].to_pylist()]),
            "prediction": pa.array([one["label"] for one in answers]),
            "confidence": pa.array([one["confidence"] for one in answers], pa.float64()),
            "text": pa.array(
                [shown({name: row[name] for name in seen}, asked.texts_only) for row in rows], pa.string()
            ),
        }
    )
    if answers and all(set(predictor.labels) <= one.get("scores", {}).keys() for one in answers):
        shares = [[one["scores"][label] for label in predictor.labels] for one in answers]
        table = table.append_column("probabilities", pa.array(shares, pa.list_(pa.float32())))
    return predictor.labels, table


def _mistakes(asked: Asked, table: "pyarrow.Table") -> list[Picture]:
    """The pictures that the model was surest of and wrong."""
    from training.images import read_image, table_arrays
    from training.picture_grid import png_grid

    answers = table.select(["label", "prediction", "confidence"]).to_pylist()
    wrong = [row for row, one in enumerate(answers) if one["label"] != one["prediction"]]
    wrong = sorted(wrong, key=lambda row: -answers[row]["confidence"])[:MISTAKES]
    if not wrong:
        return []
    found = [
        read_image(one, min(max(one.shape[:2]), SIDE), 3)
        for one in table_arrays(asked.judged.take(wrong), asked.images[0])
    ]
    said = [f"{answers[row]['label']}: {answers[row]['prediction']}" for row in wrong]
    rows = range(0, len(wrong), COLUMNS)
    grid = png_grid(
        [found[row : row + COLUMNS] for row in rows], [said[row : row + COLUMNS] for row in rows], side=SIDE
    )
    return [Picture("mistakes", "The mistakes it was surest of: what each is, and what it said", grid)]


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
    ordinal: bool = False,
    pictures: Sequence[Picture] = (),
) -> dict[str, Any]:
    """Write `metrics.json` and `predictions.parquet` into `folder`; returns what metrics.json holds.

    table: one row a test example, columns row_id, label, prediction, confidence (0 to 1), text (str), any order; and
    where the model gives them `probabilities`, one of each of `labels`. labels: every class of the model, as text.
    baseline: its predictions, in the order of the table. model, dataset: digest of the model artifact and
    `name@digest`, so that this file can be evidence for no other. test_reads: how often this model has been evaluated
    on the split, this time included. random_start: predictions of the same network fine-tuned from random weights,
    where that ablation was run. ordinal: the labels are numbers on a scale, of which `absolute_error` is told; of two
    labels there is `f1`, that of the second.
    Raises ValueError when there is no row or a row has no label.
    """
    import numpy as np
    import pyarrow

    truth, predictions = table["label"].to_pylist(), table["prediction"].to_pylist()
    if not truth or None in truth:
        raise ValueError(f"{split} split of {dataset}: {len(truth)} rows, {truth.count(None)} without a label")
    truth, predictions = list(map(str, truth)), list(map(str, predictions))
    told_others = {one for given in baseline.others.values() for one in given}
    known = [*labels, *sorted({*truth, *predictions, *baseline.predictions, *told_others} - set(labels))]
    described = describe_predictions(known, truth, predictions)
    confidence = table["confidence"].to_numpy().astype(float)
    right = np.array([label == answer for label, answer in zip(truth, predictions, strict=True)])
    losses: dict[str, Any] = {}
    told: dict[str, Any] = {}
    if len(known) == 2:
        told = {name: np.array([one == known[1] for one in column], dtype=float)
                for name, column in (("is_second", truth), ("said_second", predictions))}  # fmt: skip
        described["f1"] = estimate("f1", told).to_json()
    if ordinal:
        told["absolute_error"] = np.abs(np.array(truth, dtype=float) - np.array(predictions, dtype=float))
        described["absolute_error"] = estimate("absolute_error", told).to_json()
    if "probabilities" in table.column_names:
        shares = np.array(table["probabilities"].to_pylist(), dtype=float).reshape(len(truth), len(labels))
        position = {label: index for index, label in enumerate(labels)}
        per_row = per_row_losses(shares, np.array([position.get(label, -1) for label in truth]))
        losses = dict(zip(("log_loss", "brier"), per_row, strict=True))
    majority = sum(label == baseline.majority for label in truth)
    metrics: dict[str, Any] = {
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
        "others": {name: describe_predictions(known, truth, given) for name, given in baseline.others.items()},
        "majority": {"label": baseline.majority, "accuracy": wilson(majority, len(truth)).to_json()},
        "difference": _both_differences(predictions, baseline.predictions, truth),
    }
    if random_start is not None:
        ablation = _both_differences(predictions, random_start, truth)
        metrics["ablation"] = {**ablation, "sentence": _ablation_sentence(ablation["accuracy"])}
    columns = {
        "row_id": table["row_id"],
        "label": pyarrow.array(truth, pyarrow.string()),
        "prediction": pyarrow.array(predictions, pyarrow.string()),
        "confidence": table["confidence"],
        "baseline_prediction": pyarrow.array(baseline.predictions, pyarrow.string()),
        **losses,
        **told,
        "text": pyarrow.array([(text or "")[:TEXT_CHARS] for text in table["text"].to_pylist()], pyarrow.string()),
    }
    if losses and len(labels) <= MAX_CLASSES_KEPT:
        columns["probabilities"] = table["probabilities"]
    return write(folder, metrics, columns, pictures)


def _both_differences(predictions: Sequence[str], other: Sequence[str], truth: Sequence[str]) -> dict[str, Any]:
    mine, theirs = ({"label": truth, "prediction": answers} for answers in (predictions, other))
    return {metric: compare(metric, mine, theirs).to_json() for metric in COMPARED}


def _ablation_sentence(accuracy: dict[str, float]) -> str:
    points = KIND.metrics["accuracy"].difference
    seen = f"{points(accuracy['value'])} of accuracy against the same network fine-tuned from random weights"
    interval = f"95 % interval {points(accuracy['low'], accuracy['high'])}"
    if accuracy["low"] > 0:
        return f"Pretraining helped: {seen} ({interval})."
    if accuracy["high"] < 0:
        return f"Pretraining hurt: {seen} ({interval})."
    return f"Whether pretraining helps cannot be told from this test split: {seen} ({interval})."
