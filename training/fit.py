"""The protocol of recipes that learn without gradients, in one go: trees, linear models, tokenizers, compression.

Such a recipe says `trains = False` in its `Settings`. It is prepared, keyed, logged, packaged, evaluated and promoted
as any other; only the train step differs: one process, no Ray, no torch unless the recipe imports it, and `fit` in
place of the loop. Of an experiment's section `training` it has the seed alone, and no `scaling`.

Nothing is unpickled from a file: a model is arrays (safetensors) and JSON, which any version reads and no loader runs
as code.
"""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from training import model
from training.model import ModelFiles as ModelFiles
from training.model import Predictor as Predictor


class Report(Protocol):
    """What a fit says on its way; it may end the fit, by raising, where a person asked for that."""

    def __call__(self, step: int, num_steps: int, metrics: Mapping[str, float] | None = None, note: str = "") -> None:
        """`step` of `num_steps`, from 1, is done: a tree, a merge, a strength tried. metrics: of that step, for the
        run's curves, those of the validation split as `validation_<name>`; steps with metrics only rise."""


class Recipe(model.Recipe):
    """`prepare`, `open`, `num_samples` and `row_ids` as for any recipe, and then `fit` once."""

    @abstractmethod
    def fit(self, folder: Path, seed: int, report: Report) -> ModelFiles:
        """Learn from what was opened, never from the test split, and write the model into `folder`.

        The same settings, prepared files and seed give the same bytes, whatever the number of threads. Raises
        WrongInput where the data or the settings leave nothing to fit.
        """
