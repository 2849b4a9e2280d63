"""Small data of each kind a recipe reads, with something in it to learn: for proofs and tests."""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_contracts.contract import Column
from training.recipe import load_recipe, settings_class


@dataclass(frozen=True)
class ExampleContract:
    name: str = "example"
    inputs: tuple[str, ...] = ("text",)
    label: str | None = "label"
    nulls: tuple[str, ...] = ("",)

    def column(self, name: str) -> Column:
        return Column(name=name, type="string", arrow="string", required=name in ("text", "count"))


def texts(num_rows: int, seed: int) -> pa.Table:
    """Texts of 3 to 30 words; each of the three labels favours its own words."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, num_rows)
    rows = [" ".join(f"w{number}" for number in rng.integers(label * 15, label * 15 + 40, rng.integers(3, 30)))
            for label in labels]  # fmt: skip
    ids = [hashlib.sha256(row.encode()).hexdigest() for row in rows]
    return pa.table({"row_id": ids, "text": rows, "label": [f"label {label}" for label in labels]})


def tables(num_rows: int, seed: int) -> pa.Table:
    """Numbers, categories, a date and a truth value, some missing; they tell which of three labels, but for noise."""
    rng = np.random.default_rng(seed)
    count, size = rng.integers(0, 100, num_rows), rng.normal(0, 1, num_rows)
    colour = rng.choice(["red", "green", "blue"], num_rows)
    score = count / 60 + np.where(colour == "red", 1, 0) + np.abs(size) / 2 + rng.normal(0, 0.1, num_rows)
    missing = rng.random(num_rows) < 0.1
    columns = {
        "count": count,
        "size": pa.array(np.where(missing, np.nan, size), from_pandas=True),
        "colour": pa.array(colour.tolist()),
        "day": pa.array([date(2024, 1, 1) + timedelta(days=int(number)) for number in rng.integers(0, 365, num_rows)]),
        "open": rng.random(num_rows) < 0.5,
    }
    ids = [hashlib.sha256(f"{seed} {row}".encode()).hexdigest() for row in range(num_rows)]
    return pa.table({"row_id": ids, **columns, "label": [f"label {min(int(value), 2)}" for value in score]})


def pairs(num_rows: int, seed: int) -> pa.Table:
    """Two texts of 20 words and how many fifths of them are the same."""
    rng = np.random.default_rng(seed)
    first, second, scores = [], [], []
    for _ in range(num_rows):
        words, same = rng.permutation(60), int(rng.integers(0, 6))
        first.append(" ".join(f"w{number}" for number in words[:20]))
        second.append(" ".join(f"w{number}" for number in rng.permutation(words[20 - 4 * same : 40 - 4 * same])))
        scores.append(float(same))
    ids = [hashlib.sha256(f"{seed} {row}".encode()).hexdigest() for row in range(num_rows)]
    return pa.table({"row_id": ids, "first": first, "second": second, "score": scores})


EXAMPLES = {"text": texts, "table": tables, "pairs": pairs}
CONTRACTS = {
    "text": ExampleContract(),
    "pairs": ExampleContract(inputs=("first", "second"), label="score"),
    "table": ExampleContract(inputs=("count", "size", "colour", "day", "open")),
}


def example_sources(name: str) -> dict[str, Path]:
    """Role -> folder with a model, of the roles that the recipe's examples need."""
    return {role: Path(_example_model(other).name) for role, other in settings_class(name).example_sources.items()}


@cache
def _example_model(name: str) -> "tempfile.TemporaryDirectory[str]":
    """The tiny model of a recipe that gradients train, the same bytes in each process; it goes with the process."""
    import torch

    from training import loop
    from training.sections import Training

    class Unheard(loop.Observer):
        pass

    folder = tempfile.TemporaryDirectory(prefix="slipway-")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="slipway-") as prepared:
        recipe = open_recipe(name, Path(prepared), dropout=0.0)
        config = Training(steps=60, batch_size=32, learning_rate=5e-3, validate_every=1e9)
        task, _ = loop.train(recipe, config, loop.World(), Unheard())
        recipe.save(task, Path(folder.name))
    torch.set_num_threads(threads)
    return folder


def open_recipe(
    name: str, folder: Path, num_train: int = 200, sources: Mapping[str, Path] | None = None, **settings: Any
) -> Any:
    """The recipe of that name in its tiny preset, opened on prepared example data. sources: `example_sources` made
    elsewhere: transformers saves a model on the first of several workers alone."""
    kind = settings_class(name)
    checked = kind(**{**kind.presets["tiny"], **settings})
    recipe = load_recipe(name).Recipe(checked, example_sources(name) if sources is None else sources)
    make = EXAMPLES[kind.reads]
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        splits = {"train": make(num_train, 1), "validation": make(60, 2), "test": make(60, 3)}
        recipe.prepare(splits, CONTRACTS[kind.reads], folder, lambda note: None)
    recipe.open(folder)
    return recipe
