"""What every recipe gives, however it learns: prepared data, the rows it learns from, a saved model that answers.

How it learns is for the two protocols built on this: `training.task` (by gradients, in the loop) and `training.fit` (in
one go). No torch here, so that a model without torch is served without it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from training.recipe import RecipeSettings


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """How a saved model is loaded and asked, wherever it is."""

    loader: str
    """`module:function`, called with the folder; returns a `Predictor`."""
    input_columns: tuple[str, ...]
    input_types: tuple[str, ...] = ()
    """MLflow's type of each input column, `any` for one that may hold nothing; empty: all are `string`."""
    input_example: tuple[dict[str, Any], ...]
    outputs: tuple[tuple[str, str], ...] = (("label", "string"), ("confidence", "double"))
    """Column and MLflow type of each answer."""
    libraries: tuple[str, ...] = ("torch", "transformers", "tokenizers", "safetensors")
    """What answering needs beside `infra.tracking.REQUIREMENTS`."""
    params: Mapping[str, float | int] = field(default_factory=dict)
    """What a request may set and what it is otherwise: keyword arguments of the predictor's call."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What is known of the model once it is saved, its unit in the name: bytes, shares, texts a second. Told with the
    end of its run and beside the run's metrics."""


class Predictor(ABC):
    """A saved model that answers, on CPU or GPU, without dropout or gradient."""

    truncated: int = 0
    """Texts that were longer than the model takes, and cut, since it was loaded."""

    @abstractmethod
    def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One answer a row, in order; keys at least those of `ModelFiles.outputs`."""


def label_answers(labels: Sequence[str], probabilities: np.ndarray) -> list[dict[str, Any]]:
    """What a classifier's predictor answers: label, its probability, and every label's, the likeliest first.

    probabilities: (N, labels).
    """
    answers = []
    for shares in probabilities:
        scores = {labels[position]: float(shares[position]) for position in np.argsort(-shares, kind="stable")}
        best = next(iter(scores))
        answers.append({"label": best, "confidence": scores[best], "scores": scores})
    return answers


class Recipe(ABC):
    """One kind of model: how its data is prepared, and what it learns from."""

    def __init__(self, settings: RecipeSettings, sources: Mapping[str, Path]):
        """`sources`: the local folder of what each role of `from:` gave."""
        self.settings, self.sources = settings, sources

    @abstractmethod
    def prepare(self, splits: Mapping[str, Any], contract: Any, folder: Path, say: Callable[[str], None]) -> None:
        """Write what training reads into `folder`. splits: name -> pyarrow.Table with the contract's columns and
        `row_id`. Raises WrongInput when the contract lacks what the recipe needs."""

    @abstractmethod
    def open(self, folder: Path) -> None:
        """Open what `prepare` wrote, memory-mapped; before anything below."""

    @abstractmethod
    def num_samples(self, split: str) -> int: ...

    def row_ids(self, split: str, index: np.ndarray) -> list[str]:
        """The id of the dataset's row that each of these samples (N,) is made of, from what `prepare` wrote."""
        raise NotImplementedError(f"{type(self).__module__}: add row_ids, so that a run can say which rows it saw")
