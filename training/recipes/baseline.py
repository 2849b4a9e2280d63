"""Text classification by a linear model of TF-IDF: logistic regression, linear SVM or naive Bayes.

Paper: Wang & Manning, "Baselines and bigrams: simple, good sentiment and topic classification", ACL 2012.
How ours differs: TF-IDF of words and word pairs in place of counts (sublinear: Manning, Raghavan & Schuetze 2008,
§6.4.1); the strength of the regularisation is the best on the validation split, and one temperature fitted there makes
probabilities of the SVM's margins as of the others' scores (in place of Platt's two numbers a class).
Command: slipway train emotion-baseline
Hardware and time: seconds to a minute on one CPU core; the experiment's header says what was measured.
Expected: what every text model is compared with, and on little data hard to beat.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file, save_file

from infra.errors import WrongInput
from training import fit
from training.baseline import choose_strength, joined, logistic_regression, tfidf
from training.model import label_answers
from training.recipe import FewLabels
from training.temperature import fit_temperature
from training.text import read_json, write_json

SPLITS = ("train", "validation")
TRIED: dict[str, tuple[str, tuple[float, ...]]] = {
    "logistic_regression": ("C", (1, 10, 30)),
    "linear_svm": ("C", (0.1, 0.3, 1, 3)),
    "naive_bayes": ("alpha", (0.01, 0.1, 0.3, 1)),
}
"""What the strength is called, and those tried: inverse regularisation, or counts added to each word's own."""


class Settings(FewLabels):
    trains: ClassVar[bool] = False
    evaluates: ClassVar[str] = "classification"
    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn", "numpy", "scipy")
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"strengths": (1, 10)}}

    classifier: Literal["logistic_regression", "linear_svm", "naive_bayes"] = "logistic_regression"
    """The linear model: each is linear in the TF-IDF of words and of neighbouring words."""
    longest: int = Field(2, ge=1, le=5)
    """Words in a row that make one feature, at most."""
    strengths: tuple[float, ...] | None = None
    """Tried on the validation split: C of the first two, alpha of naive Bayes; None: those that are usual."""
    class_weight: Literal["none", "balanced"] = "none"
    """`balanced`: every class counts alike, however rare; confidence is then calibrated on the classes as they are."""
    calibrate: Literal["none", "temperature"] = "temperature"
    """`temperature`: one number, fitted to the validation split, so that it is as sure as it is right
    (training.temperature)."""


class Recipe(fit.Recipe):
    settings: Settings

    def prepare(self, splits: Mapping[str, Any], contract: Any, folder: Path, say: Callable[[str], None]) -> None:
        import pyarrow as pa

        if contract.label is None:
            raise WrongInput(f"contract {contract.name}: names no slipway.label; baseline needs the label column")
        kept = {name: splits[name].filter(splits[name][contract.label].is_valid()) for name in SPLITS}
        labels = sorted({str(value) for value in kept["train"][contract.label].unique().to_pylist()})
        if len(labels) < 2:
            raise WrongInput(f"dataset {contract.name}: column '{contract.label}' has {len(labels)} value; 2 needed")
        number = {label: position for position, label in enumerate(labels)}
        for name, table in kept.items():
            rows = table.select(list(contract.inputs)).to_pylist()
            known = [number.get(str(value), -1) for value in table[contract.label].to_pylist()]
            columns = {
                "row_id": table["row_id"].combine_chunks(),
                "text": pa.array(joined(rows, contract.inputs), pa.large_string()),
                "label": pa.array(known, pa.int32()),
            }
            with (
                pa.OSFile(str(folder / f"{name}.arrow"), "wb") as file,
                pa.ipc.new_file(file, (made := pa.table(columns)).schema) as writer,
            ):
                writer.write_table(made)
        write_json(folder / "report.json", {"labels": labels, "inputs": list(contract.inputs)})

    def open(self, folder: Path) -> None:
        import pyarrow as pa

        self.report = read_json(folder / "report.json")
        self.tables = {
            name: pa.ipc.open_file(pa.memory_map(str(folder / f"{name}.arrow"))).read_all() for name in SPLITS
        }

    def num_samples(self, split: str) -> int:
        return self.tables[split].num_rows if split in self.tables else 0

    def row_ids(self, split: str, index: np.ndarray) -> list[str]:
        return self.tables[split]["row_id"].take(index).to_pylist()

    def fit(self, folder: Path, seed: int, report: fit.Report) -> fit.ModelFiles:
        settings = self.settings
        name, usual = TRIED[settings.classifier]
        strengths = settings.strengths or usual
        report(1, len(strengths), note="TF-IDF of the training split")
        answers, truth = (self.tables[split]["label"].to_numpy() for split in SPLITS)
        texts, others = (self.tables[split]["text"].to_pylist() for split in SPLITS)
        vectorizer = tfidf(settings.longest)
        try:
            features = vectorizer.fit_transform(texts)
        except ValueError as error:
            raise WrongInput("dataset: no training text has a word in it; nothing to fit to") from error
        held_out = vectorizer.transform(others) if others else None
        weights = np.ones(len(answers))
        if settings.class_weight == "balanced":
            counts = np.bincount(answers)
            weights = (counts.sum() / (len(counts) * counts))[answers]

        model, strength, tried = choose_strength(
            lambda one: _classifier(settings.classifier, one, seed).fit(features, answers, weights),
            strengths,
            held_out,
            truth,
            lambda step, note: report(step, len(strengths), note=f"{settings.classifier}, {note}"),
            name,
        )
        linear = {**_linear(model), "idf": vectorizer.idf_}
        temperature = 1.0
        if settings.calibrate == "temperature" and held_out is not None:
            seen = truth >= 0  # a label unseen in training has no score to be right with
            temperature = fit_temperature(_logits(held_out, linear)[seen], truth[seen])
        for step, one in enumerate(tried, 1):
            report(step, len(tried), {"validation_accuracy": one["validation_accuracy"]} if others else {})
        save_file({key: np.ascontiguousarray(value, np.float32) for key, value in linear.items()},
                  folder / "linear.safetensors")  # fmt: skip
        write_json(folder / "vocabulary.json", {"terms": vectorizer.get_feature_names_out().tolist()})
        chosen = {name: strength, "tried": tried, "temperature": temperature}
        facts = {"recipe": "baseline", "settings": settings.model_dump(mode="json"), "chosen": chosen}
        inputs = tuple(self.report["inputs"])
        write_json(folder / "recipe.json", {**facts, "labels": self.report["labels"], "inputs": list(inputs)})
        return fit.ModelFiles(
            loader="training.recipes.baseline:load_predictor",
            input_columns=inputs,
            input_example=(dict.fromkeys(inputs, "fit a random forest to the training set"),),
            libraries=("safetensors", "scipy", "scikit-learn"),
        )


def _classifier(name: str, strength: float, seed: int) -> Any:
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.svm import LinearSVC

    if name == "linear_svm":
        return LinearSVC(C=strength, random_state=seed)
    return MultinomialNB(alpha=strength) if name == "naive_bayes" else logistic_regression(strength)


def _linear(model: Any) -> dict[str, np.ndarray]:
    """coef (labels, features) and intercept (labels,), from which each of the three decides. Of two labels the library
    keeps one row: the first one's score is then 0."""
    if hasattr(model, "feature_log_prob_"):
        return {"coef": model.feature_log_prob_, "intercept": model.class_log_prior_}
    coef, intercept = model.coef_, model.intercept_
    if len(coef) == 1:
        coef, intercept = np.concatenate([0 * coef, coef]), np.concatenate([0 * intercept, intercept])
    return {"coef": coef, "intercept": intercept}


def _logits(features: Any, linear: Mapping[str, np.ndarray]) -> np.ndarray:
    """features: (N, features), sparse. Returns (N, labels) float64, up to a constant a row."""
    return np.asarray(features @ linear["coef"].T.astype(np.float64)) + linear["intercept"]


class TextPredictor(fit.Predictor):
    """Label, its probability, and every label's, the likeliest first."""

    def __init__(self, folder: Path):
        facts = read_json(folder / "recipe.json")
        self.labels, self.inputs = facts["labels"], facts["inputs"]
        self.temperature = facts["chosen"]["temperature"]
        self.linear = load_file(folder / "linear.safetensors")
        terms = read_json(folder / "vocabulary.json")["terms"]
        self.vectorizer = tfidf(facts["settings"]["longest"], vocabulary=terms)
        self.vectorizer.idf_ = self.linear["idf"]

    def probabilities(self, rows: list[dict[str, Any]]) -> np.ndarray:
        """(N, labels) float64, each row summing to 1."""
        from scipy.special import softmax

        features = self.vectorizer.transform(joined(rows, self.inputs))
        return softmax(_logits(features, self.linear) / self.temperature, axis=1)

    def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return label_answers(self.labels, self.probabilities(rows))


def load_predictor(folder: Path) -> TextPredictor:
    return TextPredictor(folder)
