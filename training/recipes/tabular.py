"""Classification of table rows: boosted trees over numbers, categories and dates, missing values included.

Paper: Friedman, "Greedy function approximation: a gradient boosting machine", Annals of Statistics 29(5), 2001; on
binned values as in LightGBM (Ke et al., NeurIPS 2017), by scikit-learn's HistGradientBoostingClassifier.
How ours differs: the number of trees is the best on the validation split, and their confidence is calibrated on it by
one temperature; trees are saved as arrays and walked here, so a model answers without scikit-learn.
Command: slipway train bike
Hardware and time: seconds on one CPU core; the experiment's header says what was measured.
Expected: on tables of this kind, more than a tuned logistic regression, which every evaluation puts beside it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from safetensors.numpy import load_file, save_file

from infra.errors import WrongInput, choices
from training import fit, tables
from training.model import label_answers
from training.recipe import RecipeSettings, prepared_by
from training.temperature import fit_temperature
from training.trees import Trees

SPLITS = ("train", "validation")
MOST_CLASSES = 200
WORTH_THREADS = 5_000_000
"""Values, rows x features, from which a fit takes every core: one core grows 100 trees on fewer in seconds."""


class Settings(RecipeSettings):
    trains: ClassVar[bool] = False
    reads: ClassVar[str] = "table"
    evaluates: ClassVar[str] = "classification"
    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn", "numpy", "scipy")
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"num_trees": 40, "min_samples_leaf": 5}}

    categories: tuple[str, ...] = prepared_by(())
    """Input columns of numbers that are names of something, and have no order: codes, ids of shops."""
    weight: str | None = prepared_by(None)
    """The column that says how much a training row counts; no input. None: all alike."""
    class_weight: Literal["none", "balanced"] = "none"
    """`balanced`: every class counts alike, however rare; confidence is then calibrated on the classes as they are."""
    num_trees: int = Field(500, ge=1, le=100_000)
    """At most, for each class (one for two); where there is a validation split, as many as are best on it."""
    patience: int = Field(20, ge=1)
    """Trees without a better validation loss before no more are grown."""
    learning_rate: float = Field(0.1, gt=0, le=1)
    """The share of its answer that each tree adds."""
    max_leaves: int = Field(31, ge=2, le=65536)
    """Of a tree."""
    max_depth: int | None = Field(None, ge=1, le=64)
    """Of a tree; None: no limit but its leaves."""
    min_samples_leaf: int = Field(20, ge=1)
    """Training rows that a leaf holds at least."""
    l2: float = Field(0.0, ge=0)
    """Weight of the squared answers of leaves in what is minimised."""
    feature_share: float = Field(1.0, gt=0, le=1)
    """Of the features, drawn anew for each split."""
    calibrate: Literal["none", "temperature"] = "temperature"
    """`temperature`: one number, fitted to the validation split, so that it is as sure as it is right
    (training.temperature)."""


class Recipe(fit.Recipe):
    settings: Settings

    def prepare(self, splits: Mapping[str, Any], contract: Any, folder: Path, say: Callable[[str], None]) -> None:
        if contract.label is None:
            raise WrongInput(f"contract {contract.name}: names no slipway.label; tabular needs the label column")
        asked = [("categories", name, contract.inputs) for name in self.settings.categories]
        asked += [("weight", name, splits["train"].column_names) for name in [self.settings.weight] if name]
        for field, name, known in asked:
            if name not in known:
                raise WrongInput(f"settings.{field}: dataset {contract.name} has no '{name}'; {choices(name, known)}")
        kept = {name: splits[name].filter(splits[name][contract.label].is_valid()) for name in SPLITS}
        labels = sorted({str(value) for value in kept["train"][contract.label].unique().to_pylist()})
        if not 2 <= len(labels) <= MOST_CLASSES:
            raise WrongInput(
                f"dataset {contract.name}: column '{contract.label}' has {len(labels):,} values to tell apart, 2 to "
                f"{MOST_CLASSES} can be; of a number make a label by slipway.condition (data_contracts/contract.py)"
            )
        names = [name for name in contract.inputs if name != self.settings.weight]
        inputs, left_out = tables.read_inputs(kept["train"], names, self.settings.categories)
        if left_out:
            say(f"left out as free text: {', '.join(left_out)}")
        for name in SPLITS:
            table = kept[name]
            number = {label: position for position, label in enumerate(labels)}
            known = [number.get(str(value), -1) for value in table[contract.label].to_pylist()]
            columns = {"row_id": table["row_id"], "label": pa.array(known, pa.int32())}
            if self.settings.weight:
                columns["weight"] = self._weights(table[self.settings.weight], contract)
            features = tables.matrix(table, inputs)
            columns |= {str(place): pa.array(features[:, place]) for place in range(features.shape[1])}
            _write(pa.table(columns), folder / f"{name}.arrow")
        report = {
            "labels": labels,
            "inputs": [asdict(one) for one in inputs],
            "left_out": left_out,
            "nulls": list(contract.nulls),
            "may_be_missing": [one.name for one in inputs if _may_be_missing(contract.column(one.name))],
            "example": _example(kept["train"], inputs),
        }
        (folder / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")

    def _weights(self, values: Any, contract: Any) -> Any:
        try:
            weights = values.cast(pa.float64()).to_numpy()
        except pa.ArrowException:
            weights = np.full(len(values), np.nan)
        if not (np.isfinite(weights) & (weights >= 0)).all():
            raise WrongInput(
                f"settings.weight: dataset {contract.name}: column '{self.settings.weight}' is not a number of 0 or "
                "more in every row"
            )
        return pa.array(weights)

    def open(self, folder: Path) -> None:
        self.report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        self.inputs = [_input(one) for one in self.report["inputs"]]
        self.tables = {name: _read(folder / f"{name}.arrow") for name in SPLITS}

    def num_samples(self, split: str) -> int:
        return self.tables[split].num_rows if split in self.tables else 0

    def row_ids(self, split: str, index: np.ndarray) -> list[str]:
        return self.tables[split]["row_id"].take(pa.array(index)).to_pylist()

    def fit(self, folder: Path, seed: int, report: fit.Report) -> fit.ModelFiles:
        report(1, 1, note="growing trees")
        validation = self._rows("validation")
        held_out, truth, _ = validation
        categorical = tables.is_categorical(self.inputs)
        trees, losses = grow(self.settings, categorical, seed, self._rows("train"), validation)
        logits = trees.logits(held_out)
        temperature = fit_temperature(logits, truth) if self.settings.calibrate == "temperature" else 1.0
        for step, metrics in enumerate(losses, 1):
            if step == len(losses) and len(truth):
                metrics = {**metrics, "validation_accuracy": float((logits.argmax(1) == truth).mean())}
            report(step, len(losses), metrics)
        save_file(vars(trees), folder / "trees.safetensors")
        facts = {name: self.report[name] for name in ("labels", "inputs", "nulls")}
        facts |= {"recipe": "tabular", "settings": self.settings.model_dump(mode="json"), "temperature": temperature}
        (folder / "recipe.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
        missing = self.report["may_be_missing"]
        return fit.ModelFiles(
            loader="training.recipes.tabular:load_predictor",
            input_columns=tuple(one.name for one in self.inputs),
            input_types=tuple(_mlflow_type(one, one.name in missing) for one in self.inputs),
            input_example=(self.report["example"],),
            libraries=("safetensors", "scipy"),
        )

    def _rows(self, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N, features) values, (N,) classes and (N,) weights, of the rows whose label was seen in training."""
        table = self.tables[split]
        table = table.filter(pc.greater_equal(table["label"], 0))
        places = [name for name in table.column_names if name.isdigit()]
        features = np.stack([table[name].to_numpy() for name in places], axis=1)
        answers = table["label"].to_numpy()
        weights = table["weight"].to_numpy() if "weight" in table.column_names else np.ones(len(answers))
        if self.settings.class_weight == "balanced":
            counts = np.bincount(self.tables["train"]["label"].to_numpy(), minlength=len(self.report["labels"]))
            weights = weights * (counts.sum() / (len(counts) * counts))[answers]
        if split == "train" and not weights.sum() > 0:
            raise WrongInput(f"settings.weight: column '{self.settings.weight}' is 0 in every row to train on")
        return features, answers, weights


Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


def grow(
    settings: Settings, categorical: np.ndarray, seed: int, train: Rows, validation: Rows
) -> tuple[Trees, list[dict[str, float]]]:
    """The trees that are best on the validation split, and the losses, in nats, after each of them."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    judged = len(validation[1]) > 0
    model = HistGradientBoostingClassifier(
        learning_rate=settings.learning_rate,
        max_iter=settings.num_trees,
        max_leaf_nodes=settings.max_leaves,
        max_depth=settings.max_depth,
        min_samples_leaf=settings.min_samples_leaf,
        l2_regularization=settings.l2,
        max_features=settings.feature_share,
        categorical_features=categorical if categorical.any() else None,
        early_stopping=judged,
        n_iter_no_change=settings.patience,
        random_state=seed,
    )
    features, answers, weights = train
    held_out = dict(zip(("X_val", "y_val", "sample_weight_val"), validation, strict=True)) if judged else {}
    # OpenMP's threads wait for each other without sleep: on busy cores two took 20 times as long as one.
    with threadpool_limits(1 if features.size < WORTH_THREADS else None, "openmp"):
        model.fit(features, answers, weights, **held_out)
    if not judged:
        trees = Trees.of(model, model.n_iter_)
        loss = _log_loss(trees.logits(features), answers, weights)
        return trees, [{}] * (model.n_iter_ - 1) + [{"loss": loss}]
    # Entry 0 is of no tree at all.
    best = max(int(np.argmax(model.validation_score_)), 1)
    scores = zip(model.train_score_[1 : best + 1], model.validation_score_[1 : best + 1], strict=True)
    return Trees.of(model, best), [{"loss": -float(a), "validation_loss": -float(b)} for a, b in scores]


class TablePredictor(fit.Predictor):
    """Answers rows of texts or plain values; what is missing may be left out."""

    def __init__(self, folder: Path):
        facts = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
        self.labels, self.nulls, self.temperature = facts["labels"], facts["nulls"], facts["temperature"]
        self.inputs = [_input(one) for one in facts["inputs"]]
        self.trees = Trees(**load_file(folder / "trees.safetensors"))

    def probabilities(self, rows: list[dict[str, Any]]) -> np.ndarray:
        """(N, labels) float64, each row summing to 1."""
        from scipy.special import softmax

        features = tables.matrix(tables.cast_rows(rows, self.inputs, self.nulls), self.inputs)
        return softmax(self.trees.logits(features) / self.temperature, axis=1)

    def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return label_answers(self.labels, self.probabilities(rows))


def load_predictor(folder: Path) -> TablePredictor:
    return TablePredictor(folder)


def _input(body: dict[str, Any]) -> tables.Input:
    return tables.Input(**{**body, "categories": body["categories"] and tuple(body["categories"])})


def _may_be_missing(column: Any) -> bool:
    return not column.required or column.severity == "warning"


def _mlflow_type(one: tables.Input, may_be_missing: bool) -> str:
    """NOTE MLflow has no number that may be missing but a double, and takes no whole number for a double."""
    if one.type in ("string", "date", "timestamp"):
        return "string"
    return "any" if may_be_missing else {"integer": "long", "number": "double", "boolean": "boolean"}[one.type]


def _example(table: Any, inputs: Sequence[tables.Input]) -> dict[str, Any]:
    """A row of medians and of each column's most frequent category: nobody's own row."""
    found: dict[str, Any] = {}
    for one in inputs:
        values = table[one.name].drop_null()
        if one.type == "string":
            found[one.name] = next(iter(one.categories or ()), "")
        elif one.type == "boolean":
            found[one.name] = bool(len(values) and pc.mean(values.cast(pa.int8())).as_py() > 0.5)
        elif one.type in ("date", "timestamp"):
            found[one.name] = "2020-01-01" if one.type == "date" else "2020-01-01T12:00:00"
        else:
            middle = float(np.median(values.to_numpy())) if len(values) else 0.0
            found[one.name] = round(middle) if one.type == "integer" else middle
    return found


def _log_loss(logits: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> float:
    from scipy.special import log_softmax

    return float(-np.average(log_softmax(logits, axis=1)[np.arange(len(answers)), answers], weights=weights))


def _write(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table.combine_chunks())


def _read(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
