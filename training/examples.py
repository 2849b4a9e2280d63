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
    images: tuple[str, ...] = ()

    def column(self, name: str) -> Column:
        if name in self.images:
            return Column(name=name, type="image", arrow="image", required=True)
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


SHAPES = ("bar", "square", "cross")


def images(num_rows: int, seed: int) -> pa.Table:
    """Grey pictures of 8 x 8 pixels, each a shape, dark or bright, at the left or right of noise; the shape is the
    label."""
    rng = np.random.default_rng(seed)
    drawn = np.zeros((len(SHAPES), 5, 4))
    drawn[0, :, 1], drawn[1, :4], drawn[1, 1:3, 1:3], drawn[2, :, 1], drawn[2, 2] = 1, 1, 0, 1, 1
    kinds, bright, right = (rng.integers(0, size, num_rows) for size in (len(SHAPES), 2, 2))
    pixels = rng.integers(0, 30, (num_rows, 8, 8))
    for row, kind in enumerate(kinds):
        top, left = rng.integers(0, 4), 4 * right[row]
        pixels[row, top : top + 5, left : left + 4] += (drawn[kind] * (90 + 130 * bright[row])).astype(int)
    bodies = [picture.astype(np.uint8).tobytes() for picture in pixels]
    light, place = np.array(["dark", "bright"])[bright], np.array(["left", "right"])[right]
    captions = [f"a {one} {SHAPES[kind]} at the {where}" for one, kind, where in zip(light, kinds, place, strict=True)]
    return pa.table(
        {
            "row_id": [hashlib.sha256(body).hexdigest() for body in bodies],
            "image": pa.array(bodies, pa.large_binary()),
            "image_width": pa.array([8] * num_rows, pa.int32()),
            "image_height": pa.array([8] * num_rows, pa.int32()),
            "image_mode": ["L"] * num_rows,
            "caption": captions,
            "label": [SHAPES[kind] for kind in kinds],
        }
    )


EXAMPLES = {"text": texts, "table": tables, "pairs": pairs, "image": images, "image-caption": images}
CONTRACTS = {
    "text": ExampleContract(),
    "pairs": ExampleContract(inputs=("first", "second"), label="score"),
    "table": ExampleContract(inputs=("count", "size", "colour", "day", "open")),
    "image": ExampleContract(inputs=("image",), images=("image",)),
    "image-caption": ExampleContract(inputs=("image", "caption"), images=("image",)),
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
    elsewhere: transformers saves a model on the first of several workers alone. dropout, of what is set: only where the
    recipe has it."""
    kind = settings_class(name)
    if "dropout" not in kind.model_fields:
        settings.pop("dropout", None)
    checked = kind(**{**kind.presets["tiny"], **settings})
    recipe = load_recipe(name).Recipe(checked, example_sources(name) if sources is None else sources)
    make = EXAMPLES[kind.reads]
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        splits = {"train": make(num_train, 1), "validation": make(60, 2), "test": make(60, 3)}
        recipe.prepare(splits, CONTRACTS[kind.reads], folder, lambda note: None)
    recipe.open(folder)
    return recipe
