"""A few labels of each class: which rows a recipe learns from, and a simple model beside it."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from training.examples import texts
from training.recipe import FewLabels, RecipeSettings

TRAIN = texts(200, 1)


def ids(draw: int, table: pa.Table = TRAIN, per_class: int = 5) -> set[str]:
    chosen = FewLabels(labels_per_class=per_class, draw=draw).learns_from(table, "label")
    return set(chosen["row_id"].to_pylist())


def test_each_label_gets_so_many_rows_and_all_of_a_rarer_one() -> None:
    rare = pa.concat_tables([TRAIN, pa.table({"row_id": ["x", "y", "z"], "text": ["one", "two", "three"],
                                              "label": ["rare", "rare", None]})])  # fmt: skip
    chosen = FewLabels(labels_per_class=5).learns_from(rare, "label")
    assert Counter(chosen["label"].to_pylist()) == {"label 0": 5, "label 1": 5, "label 2": 5, "rare": 2}


def test_a_draw_does_not_depend_on_the_order_of_the_rows_and_another_draw_is_another() -> None:
    shuffled = TRAIN.take(np.random.default_rng(0).permutation(TRAIN.num_rows))
    assert ids(0) == ids(0, shuffled)
    assert len(ids(0) & ids(1)) < 8, "two draws of 15 of 200 rows share one or two"


@pytest.mark.parametrize("settings", [RecipeSettings(), FewLabels()])
def test_every_row_is_learned_from_unless_asked(settings: RecipeSettings) -> None:
    assert settings.learns_from(TRAIN, "label") is TRAIN
