"""What an evaluation is: the protocol of its kinds, one file each in training/evaluations/, found by name.

A kind says what it means for a model to be good on rows it never saw: classification, language modelling, graded
similarity. A recipe names its kind (`evaluates = "classification"`). To add one, write `training/evaluations/<kind>.py`
with `KIND`, an instance of a subclass of `Kind`, whose `evaluate` writes two files (by `write`): `predictions.parquet`,
a row for everything judged, with `row_id`, the columns of the kind's metrics, and `baseline_<column>` beside those that
a baseline answers too; and `metrics.json`, with

    task, subject, split, test_reads     the kind's name and what is in `Asked`; subject: {model, dataset}
    rows         how many rows predictions.parquet has
    model        metric -> {value, low, high}
    baseline     name, settings, tried, and metric -> {value, low, high} for the metrics marked `compared`
    majority     what knowing next to nothing reaches: label (what it is called), and metrics like the baseline's
    difference   metric -> {value, low, high}, model against baseline, positive where the model is better

Gates, intervals, scorecard and model card then work with it. PNG files beside the two are shown by the scorecard and go
to the run in MLflow; `write` takes them with a title each, which metrics.json keeps under `pictures`. A page may show
more of it in `flows/judging/figures_<kind>.html`. No heavy import at a file's top: gates' settings are checked with
these metrics.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from infra.errors import choices
from training.metrics import Metric, kind_names

if TYPE_CHECKING:
    import pyarrow

FORMAT = 1
TEXT_CHARS = 300
"""Of a row's text, kept beside its results."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One model, and the data on which it is judged."""

    predictor: Any
    """The loaded model (training.model.Predictor)."""
    splits: "Mapping[str, pyarrow.Table]"
    """train, validation and test: row_id, the contract's inputs (an image with the columns that tell its shape), and
    its label where it names one."""
    inputs: tuple[str, ...]
    label: str | None
    texts_only: bool
    """Whether every input column is text."""
    reads: str
    """What the recipe reads: "text", "table", "image"."""
    split: str
    """The one that is judged."""
    model: str
    """Digest of the model artifact: with `dataset`, so that what is written can be evidence for no other."""
    dataset: str
    """`name@digest`"""
    test_reads: int = 1
    """How often this model has been evaluated on the split, this time included."""
    random_start: Any = None
    """Predictor of the same network trained from random weights, where that ablation was run."""
    images: tuple[str, ...] = ()
    """Those of the input columns that are pictures."""

    @property
    def judged(self) -> "pyarrow.Table":
        return self.splits[self.split]

    def rows(self, table: "pyarrow.Table") -> list[dict[str, Any]]:
        """The inputs of each row of a split, as a predictor is asked them: pictures as arrays."""
        from training.images import table_arrays

        columns = {
            name: table_arrays(table, name) if name in self.images else table[name].to_pylist() for name in self.inputs
        }
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@dataclass(frozen=True)
class Picture:
    """What an evaluation shows people."""

    name: str
    """Of its file, without `.png`."""
    title: str
    """What is seen, above the picture."""
    png: bytes


Say = Callable[[float, str], None]
"""(share done, note)"""


class Kind(ABC):
    metrics: ClassVar[dict[str, Metric]]
    """Those of the kind; the first is told first."""
    splits: ClassVar[tuple[str, ...]] = ("test",)
    """What is judged: the first of these that has rows."""
    needs_label: ClassVar[bool] = False
    rows: ClassVar[str] = "rows"
    """What a row of predictions.parquet is called."""
    baseline: ClassVar[str] = "a simple model"
    """What kind of model its baseline is, as a sentence begins."""
    advice: ClassVar[str] = ""
    """What would change it that a model is no better than that: the end of a sentence."""

    @property
    def compared(self) -> tuple[str, ...]:
        """The metrics that the baseline has too."""
        return tuple(name for name, metric in self.metrics.items() if metric.compared)

    @abstractmethod
    def hub_task(self, reads: str) -> str:
        """The Hugging Face hub's name of what such a model does. reads: what its recipe reads."""

    @abstractmethod
    def evaluate(self, asked: Asked, folder: Path, say: Say) -> dict[str, Any]:
        """Write `metrics.json` and `predictions.parquet` into `folder`; returns what metrics.json holds.

        Raises WrongInput for a model that cannot be judged so, ValueError where there is nothing to judge.
        """

    def judged_split(self, rows: Mapping[str, int]) -> str:
        """Of the splits with so many rows each, the one to judge."""
        return next((split for split in self.splits if rows.get(split)), self.splits[0])


def load_kind(name: str) -> Kind:
    """The kind of that name. Raises ValueError listing what there is."""
    if name not in kind_names():
        raise ValueError(f"evaluation '{name}' is unknown; {choices(name, kind_names())}")
    return import_module(f"training.evaluations.{name}").KIND


def write(
    folder: Path, body: Mapping[str, Any], columns: Mapping[str, Any], pictures: Sequence[Picture] = ()
) -> dict[str, Any]:
    """Write the two files, and the pictures beside them. Returns what metrics.json holds."""
    import pyarrow
    from pyarrow import parquet

    metrics = {"format": FORMAT, **body}
    folder.mkdir(parents=True, exist_ok=True)
    if pictures:
        metrics["pictures"] = [{"file": f"{picture.name}.png", "title": picture.title} for picture in pictures]
    for picture in pictures:
        (folder / f"{picture.name}.png").write_bytes(picture.png)
    parquet.write_table(pyarrow.table(dict(columns)), folder / "predictions.parquet", compression="zstd")
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1, ensure_ascii=False), encoding="utf-8")
    return metrics


def shown(row: Mapping[str, Any], texts_only: bool) -> str:
    """A row's inputs on a page: a text alone, other columns by name."""
    return "\n".join(str(value) if texts_only else f"{name}: {value}" for name, value in row.items())
