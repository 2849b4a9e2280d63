"""Small data of each kind a recipe reads, with something in it to learn: for proofs and tests."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from training.recipe import load_recipe, settings_class


@dataclass(frozen=True)
class ExampleContract:
    name: str = "example"
    inputs: tuple[str, ...] = ("text",)
    label: str | None = "label"


def texts(num_rows: int, seed: int) -> pa.Table:
    """Texts of 3 to 30 words; each of the three labels favours its own words."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, num_rows)
    rows = [" ".join(f"w{number}" for number in rng.integers(label * 15, label * 15 + 40, rng.integers(3, 30)))
            for label in labels]  # fmt: skip
    ids = [hashlib.sha256(row.encode()).hexdigest() for row in rows]
    return pa.table({"row_id": ids, "text": rows, "label": [f"label {label}" for label in labels]})


EXAMPLES = {"text": texts}


def open_recipe(name: str, folder: Path, num_train: int = 200, **settings: Any) -> Any:
    """The recipe of that name in its tiny preset, opened on prepared example data."""
    kind = settings_class(name)
    checked = kind(**{**kind.presets["tiny"], **settings})
    recipe = load_recipe(name).Recipe(checked, {})
    make = EXAMPLES[kind.reads]
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        splits = {"train": make(num_train, 1), "validation": make(60, 2), "test": make(60, 3)}
        recipe.prepare(splits, ExampleContract(), folder, lambda note: None)
    recipe.open(folder)
    return recipe
