"""Which runs, steps and model versions trained on a row: exact, from manifests and the arithmetic of the sampler.

No ledger is kept: which sample a row became stands in what was prepared, and where that sample was drawn is the
inverse of the order of samples (`training.sampler`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_contracts.quarantine import corrected_rows
from data_contracts.registry import Version, read_file
from flows import models
from infra import artifacts
from infra.errors import WrongInput
from infra.store import NotFound, Store
from training.experiment import Experiment, validate_experiment
from training.randomness import stream_seed
from training.recipe import load_recipe
from training.run_log import RunLog, read_state, run_names
from training.sampler import SampleOrder

PLACES = ("data/train", "data/validation", "data/test", "quarantine", "filtered")


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """A run that trained on the row."""

    run: str
    dataset: str
    """`name@digest` of the version it trained on."""
    steps: tuple[int, ...]
    """The optimiser steps, counted from 1, whose batch held it, among those done."""
    steps_done: int
    models: tuple[str, ...]
    """The model versions that came of the run."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    row_id: str
    place: str
    """The split it is in, `quarantine` or `filtered`."""
    corrected_from: str | None
    """The row id that it had in quarantine, of a row that a person corrected."""
    sightings: tuple[Sighting, ...]
    unknown: tuple[str, ...]
    """Runs on this dataset of which it cannot be told any more, each with the reason."""


def who_saw(store: Store, version: Version, row: str) -> Answer:
    """Every run on any version of the dataset is asked: versions share rows. `row` is a row id or its beginning;
    of a corrected row also the id that it had in quarantine.

    Raises WrongInput when the version has no such row, or several.
    """
    place, row_id, corrected_from = locate(store, version, row)
    sightings, unknown = [], []
    for name in run_names(store):
        state = read_state(RunLog(store, name))
        dataset = state.first.get("dataset") or {}
        if dataset.get("name") != version.name:
            continue
        try:
            steps = _steps(store, state.first, row_id, state.step)
        except (NotFound, WrongInput) as error:
            unknown.append(f"{name}: {error}")
            continue
        if steps:
            made = [one.ref for one in models.versions(store, state.first["experiment"]["name"]) if one.run == name]
            sightings.append(
                Sighting(
                    run=name,
                    dataset=f"{dataset['name']}@{dataset['digest']}",
                    steps=tuple(steps),
                    steps_done=state.step,
                    models=tuple(made),
                )
            )
    return Answer(
        row_id=row_id,
        place=place,
        corrected_from=corrected_from,
        sightings=tuple(sightings),
        unknown=tuple(unknown),
    )


def locate(store: Store, version: Version, row: str) -> tuple[str, str, str | None]:
    """(place, row id, row id before its correction) of the one row that has an id which begins with `row`.

    Raises WrongInput.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import parquet

    before = corrected_rows(store, version)
    mended = pa.array([new for new, old in before.items() if old.startswith(row)], pa.string())
    found: list[tuple[str, str]] = []
    for place in PLACES:
        if place not in version.manifest["files"]:
            continue
        ids = parquet.read_table(read_file(store, version, place), columns=["row_id"])["row_id"]
        asked = pc.or_(pc.starts_with(ids, row), pc.is_in(ids, value_set=mended))
        matching = ids.filter(asked).unique().to_pylist()
        found += [(place.removeprefix("data/"), row_id) for row_id in matching]
    if not found:
        raise WrongInput(
            f"dataset {version.ref}: has no row whose id begins with '{row}'; ids are in its Parquet files"
        )
    if len(found) > 1:
        raise WrongInput(f"dataset {version.ref}: {len(found)} rows have ids that begin with '{row}'; give more of it")
    ((place, row_id),) = found
    return place, row_id, before.get(row_id)


def _steps(store: Store, first: dict[str, Any], row_id: str, steps_done: int) -> list[int]:
    experiment = validate_experiment(first["experiment"], "experiment")
    prepared = artifacts.load(store, "prepared", first["prepared"])
    index, num_samples = _samples(experiment, artifacts.fetch(store, prepared), row_id)
    if not experiment.recipe_settings.trains:
        return list(range(1, steps_done + 1)) if index else []
    order = SampleOrder(stream_seed(experiment.training.seed, "samples"), num_samples)
    batch_size = experiment.training.batch_size
    epochs = -(-steps_done * batch_size // num_samples) if num_samples else 0
    positions = [order.positions(one, epochs) for one in index]
    steps = np.unique(np.concatenate([np.zeros(0, np.int64), *positions]) // batch_size) + 1
    return [int(step) for step in steps if step <= steps_done]


def _samples(experiment: Experiment, folder: Path, row_id: str) -> tuple[list[int], int]:
    """The training samples made of a row, and how many samples there are."""
    recipe = load_recipe(experiment.recipe).Recipe(experiment.recipe_settings, {})
    recipe.open(folder)
    num_samples = recipe.num_samples("train")
    ids = np.asarray(recipe.row_ids("train", np.arange(num_samples)))
    return [int(one) for one in np.flatnonzero(ids == row_id)], num_samples
