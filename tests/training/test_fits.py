"""What every recipe that is fitted in one go must do, found by its name as in test_recipes.py."""

import math
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra import artifacts
from infra.digests import digest_file
from infra.errors import SlipwayError
from infra.settings import child_environment
from infra.store import FolderStore
from tests.training.examples import EXAMPLES, open_recipe
from training import fit, fitter
from training.examples import example_sources
from training.experiment import validate_experiment
from training.recipe import recipe_names, recipe_summary, settings_class
from training.run_log import Overtaken, RunLog, read_state

FITTED = [name for name in recipe_names() if not settings_class(name).trains]
pytestmark = pytest.mark.parametrize("name", FITTED)


def silent(step: int, num_steps: int, metrics: Any = None, note: str = "") -> None:
    return


def fitted(name: str, folder: Path, seed: int = 0, **settings: Any) -> tuple[Any, fit.ModelFiles, Path]:
    recipe = open_recipe(name, folder / "prepared", **settings)
    (folder / "model").mkdir()
    return recipe, recipe.fit(folder / "model", seed, silent), folder / "model"


def load(files: fit.ModelFiles, folder: Path) -> Any:
    module, _, function = files.loader.partition(":")
    return getattr(import_module(module), function)(folder)


def alike(one: Any, other: Any) -> bool:
    """Equal but for rounding: a matrix product of one row may add up in another order than one of fifty."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return math.isclose(one, other, abs_tol=1e-6) if isinstance(one, float) else one == other


def files_of(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): digest_file(path) for path in folder.rglob("*") if path.is_file()}


def test_settings_are_documented_and_have_a_tiny_preset(name: str) -> None:
    kind = settings_class(name)
    kind(**kind.presets["tiny"])
    assert recipe_summary(name).endswith("."), "the lab sheet begins with one sentence"
    assert all(field.description for field in kind.model_fields.values())


def test_refitted_it_has_the_same_bytes_on_any_number_of_threads(name: str, tmp_path: Path) -> None:
    _, _, here = fitted(name, tmp_path)
    (tmp_path / "again").mkdir()
    open_recipe(name, tmp_path / "prepared").fit(tmp_path / "again", 0, silent)
    script = (
        "import sys; from pathlib import Path; from training.examples import open_recipe;"
        f"r = open_recipe({name!r}, Path(sys.argv[1])); r.fit(Path(sys.argv[2]), 0, lambda *a, **k: None)"
    )
    (tmp_path / "elsewhere").mkdir()
    environment = child_environment(OMP_NUM_THREADS="1", PYTHONHASHSEED="7")
    subprocess.run(
        [sys.executable, "-c", script, tmp_path / "anew", tmp_path / "elsewhere"], check=True, env=environment
    )
    assert files_of(here) == files_of(tmp_path / "again") == files_of(tmp_path / "elsewhere")
    assert files_of(tmp_path / "prepared") == files_of(tmp_path / "anew")


def test_reloaded_it_gives_the_same_answers_alone_or_among_others(name: str, tmp_path: Path) -> None:
    recipe, files, folder = fitted(name, tmp_path)
    rows = EXAMPLES[recipe.settings.reads](50, 4).select(list(files.input_columns)).to_pylist()
    first, second = load(files, folder), load(files, folder)
    answers = first(rows)
    assert second(rows) == answers
    assert alike(answers, [first([row])[0] for row in rows])
    assert len(first([dict(row) for row in files.input_example])) == len(files.input_example)
    assert all(column in answers[0] for column, _ in files.outputs)


def test_it_learns_something(name: str, tmp_path: Path) -> None:
    kind = settings_class(name)
    if kind.evaluates != "classification":
        pytest.skip(f"{name} has no labels to be right about")
    _, files, folder = fitted(name, tmp_path)
    rows = EXAMPLES[kind.reads](300, 5)
    answers = load(files, folder)(rows.select(list(files.input_columns)).to_pylist())
    truth = rows["label"].to_pylist()
    share = max(truth.count(label) for label in set(truth)) / len(truth)
    right = np.mean([one["label"] == label for one, label in zip(answers, truth, strict=True)])
    assert right > share + 0.15
    for one in answers:
        assert sum(one["scores"].values()) == pytest.approx(1) and one["confidence"] == max(one["scores"].values())


def test_samples_name_the_rows_they_are_made_of(name: str, tmp_path: Path) -> None:
    recipe = open_recipe(name, tmp_path)
    given = EXAMPLES[settings_class(name).reads](200, 1)["row_id"].to_pylist()  # what `open_recipe` prepares from
    ids = recipe.row_ids("train", np.arange(recipe.num_samples("train")))
    assert len(ids) == recipe.num_samples("train") and set(ids) <= set(given)
    assert recipe.row_ids("train", np.array([5, 0])) == [ids[5], ids[0]]


def test_the_files_hold_no_pickle(name: str, tmp_path: Path) -> None:
    _, _, folder = fitted(name, tmp_path)
    allowed = {".safetensors", ".json", ".txt", ".arrow", ".parquet"}
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= allowed


def begun(name: str, folder: Path) -> tuple[FolderStore, dict[str, Any]]:
    """A store with prepared examples, and what the driver would give to a fit of them."""
    store = FolderStore(folder / "store")
    open_recipe(name, folder / "prepared")
    prepared = artifacts.commit_folder(store, "prepared", folder / "prepared")
    kind = settings_class(name)
    sources = {role: str(path) for role, path in example_sources(name).items()}
    body = {"name": "example", "recipe": name, "dataset": "example", "from": sources, "settings": kind.presets["tiny"]}
    experiment = validate_experiment(body, "example").model_dump(mode="json", by_alias=True)
    RunLog(store, "example-1").append("run", experiment=experiment)
    config = {"store": store.uri, "run": "example-1", "over": 0, "driver": "a", "country": ""}
    config |= {"sources": {role: {"folder": path} for role, path in sources.items()}}
    return store, {**config, "experiment": experiment, "prepared": prepared.digest}


def test_the_log_tells_of_the_fit_as_of_a_training(name: str, tmp_path: Path) -> None:
    store, config = begun(name, tmp_path)
    fitter.fit(config)
    state = read_state(RunLog(store, "example-1"))
    assert (state.status, state.attempt) == ("finished", 1)
    assert artifacts.is_whole(store, "models", state.ending["model"])
    assert state.ending["steps"] == state.step >= 1
    told = artifacts.load(store, "models", state.ending["model"]).facts["files"]["figures"]
    assert state.ending["figures"] == told
    assert [name for name in state.curves() if name.startswith("validation_")]
    beat = RunLog(store, "example-1").heartbeat(1)
    assert beat is not None and beat["step"] == beat["num_steps"] == state.step, "`runs` reads it"
    # An attempt that died leaves "running" behind; the next one begins anew and comes to the same model.
    fitter.fit({**config, "over": 1, "driver": "b"})
    again = read_state(RunLog(store, "example-1"))
    assert again.attempt == 2 and again.ending["model"] == state.ending["model"]
    with pytest.raises(Overtaken):
        fitter.fit({**config, "over": 1, "driver": "c"})


def test_what_goes_wrong_is_in_the_log(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, config = begun(name, tmp_path)

    def broken(self: Any, folder: Path, seed: int, report: Any) -> Any:
        raise SlipwayError("the trees are ill")

    monkeypatch.setattr(import_module(f"training.recipes.{name}").Recipe, "fit", broken)
    with pytest.raises(SlipwayError, match="are ill"):
        fitter.fit(config)
    state = read_state(RunLog(store, "example-1"))
    assert state.status == "failed" and state.ending["message"] == "the trees are ill"


def test_asked_to_stop_it_stops_at_its_next_word(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, config = begun(name, tmp_path)
    store.put("runs/example-1/attempts/1/stop", b"{}")
    real = import_module(f"training.recipes.{name}").Recipe.fit

    def patient(self: Any, folder: Path, seed: int, report: Any) -> Any:
        while not report.__self__.stop_asked:  # until the heartbeat has looked
            time.sleep(0.01)
        return real(self, folder, seed, report)

    monkeypatch.setattr(import_module(f"training.recipes.{name}").Recipe, "fit", patient)
    fitter.fit(config)
    state = read_state(RunLog(store, "example-1"))
    assert state.status == "stopped" and "begins it anew" in state.ending["reason"]
