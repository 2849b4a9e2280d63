"""What `runs` and `compare` tell of runs, by their logs."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flows import models
from flows.cli import cli
from flows.commands.experiments import _told
from infra import artifacts
from infra.settings import load_settings
from infra.store import Store
from training import run_log
from training.evaluation import write
from training.run_log import RunLog

OLD, NEW = "reviews-ffff-1", "reviews-0000-1"
"""In order of time, not of the alphabet."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Two runs: the first finished and became a model, the second stopped after its second attempt replayed steps."""
    monkeypatch.setenv("SLIPWAY_WORKSPACE", str(tmp_path))
    store = load_settings().object_store
    times = iter(range(1_000_000_000, 2_000_000_000, 86_400))
    with monkeypatch.context() as patched:
        patched.setattr(run_log.time, "time", lambda: next(times))
        _write(RunLog(store, OLD), RunLog(store, NEW))
    fields = {"model": "m", "package": "p", "package_digest": "d", "dataset": "r@d", "author": "ada", "created": "now"}
    models.add_version(store, name="reviews", run=OLD, experiment={}, **fields)
    return store


def _write(old: RunLog, new: RunLog) -> None:
    old.append("run", experiment={"training": {"learning_rate": 0.01}})
    old.append("attempt", 1, from_step=0)
    old.append("metrics", 1, points=[[9, {"loss": 0.5, "layer/0/norm": 1.0, "system/cpu": 0.5, "lr": 0.00012346}, 0]])
    old.append("finished", 1, steps=9, test={"accuracy": 0.75}, points=[[9, {"validation_accuracy": 0.8}, 0]])
    new.append("run", experiment={"training": {"learning_rate": 0.02}})
    new.append("attempt", 1, from_step=0)
    new.append("metrics", 1, points=[[2, {"validation_accuracy": 0.25}, 0], [4, {"validation_accuracy": 0.5}, 0]])
    new.append("attempt", 2, from_step=3)
    new.append("metrics", 1, points=[[5, {"validation_accuracy": 0.625}, 0]])
    new.append("stopped", 2, reason="asked", points=[[4, {"loss": 123.456}, 0]])


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def ask(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def test_runs_are_told_in_the_order_they_began_with_the_model_each_became(store: Store) -> None:
    first, second = ask("runs")
    assert (first["run"], first["model"], first["began"]) == (OLD, "reviews/1", "2001-09-09T01:46:40+00:00")
    assert (second["run"], second["model"]) == (NEW, None)
    _, shown, _ = run("runs").splitlines()
    assert "2001-09-09 01:46" in shown and "accuracy 0.8" in shown and shown.endswith("reviews/1")


def test_the_last_validation_is_of_what_counts(store: Store) -> None:
    """Not of an attempt that was overtaken, past the step the next one went on from."""
    assert [one["validation"] for one in ask("runs")] == [
        {"step": 9, "validation_accuracy": 0.8},
        {"step": 2, "validation_accuracy": 0.25},
    ]


def test_compare_takes_models_and_runs_and_tells_first_what_people_look_for(store: Store) -> None:
    told = ask("compare", "reviews/1", NEW)
    assert told["runs"] == [OLD, NEW]
    assert told["configuration"] == ["training.learning_rate: from 0.01 to 0.02"]
    names = [one["metric"] for one in told["metrics"]]
    assert names == ["validation_accuracy", "loss", "test_accuracy", "layer/0/norm", "lr", "system/cpu"]


def judge(store: Store, folder: Path, model: str, answers: list[str], ended: int) -> None:
    """An evaluation of four rows whose answers are these."""
    table = {"row_id": list("abcd")[: len(answers)], "label": list("xxyy")[: len(answers)], "prediction": answers}
    (folder / model).mkdir()
    write(folder / model, {"task": "classification"}, table)
    digest = artifacts.commit_folder(store, "evaluations", folder / model).digest
    step = {"ingredients": {"model": model}, "ended": ended, "output": {"evaluation": digest}}
    store.create(f"steps/evaluate/reviews/{model}", json.dumps(step).encode())


def test_compare_pairs_what_was_judged_row_by_row(store: Store, tmp_path: Path) -> None:
    for run_id, model in (("reviews-aaaa-1", "first"), ("reviews-bbbb-1", "second")):
        log = RunLog(store, run_id)
        log.append("run", experiment={"name": "reviews"})
        log.append("attempt", 1, from_step=0)
        log.append("finished", 1, steps=1, model=model, points=[])
    assert ask("compare", "reviews-aaaa-1", "reviews-bbbb-1")["judged"] == []
    assert "both must have been evaluated" in run("compare", "reviews-aaaa-1", "reviews-bbbb-1")
    judge(store, tmp_path, "first", ["y", "x", "y", "x"], 1)
    judge(store, tmp_path, "second", ["x", "x", "y"], 2)
    judged = {one["metric"]: one for one in ask("compare", "reviews-aaaa-1", "reviews-bbbb-1")["judged"]}
    assert judged["accuracy"]["rows"] == 3, "the row that only one has answered counts for none"
    assert judged["accuracy"]["better"] == pytest.approx(1 / 3)
    assert judged["accuracy"]["low"] <= 1 / 3 <= judged["accuracy"]["high"]
    shown = run("compare", "reviews-aaaa-1", "reviews-bbbb-1")
    assert "on the same 3 rows" in shown and "not told apart" in shown


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0.1, 0.2, "better"), (-0.2, -0.1, "worse"), (-0.1, 0.0, "not told")]
)
def test_an_interval_is_put_in_words(low: float, high: float, said: str) -> None:
    assert _told({"low": low, "high": high}).startswith(said)


def test_compares_table_has_four_digits_and_leaves_layers_and_system_out_unless_asked(store: Store) -> None:
    shown = run("compare", OLD, NEW)
    assert "0.0001235" in shown and "123.5" in shown and "123.46" not in shown
    assert "layer/" not in shown and "system/" not in shown and "(+2 " in shown
    everything = run("compare", OLD, NEW, "--all")
    assert "layer/0/norm" in everything and "system/cpu" in everything


def test_compare_names_the_nearest_of_what_is_unknown(store: Store) -> None:
    done = CliRunner().invoke(cli, ["compare", "reviws", NEW])
    assert "did you mean 'reviews'" in str(done.exception)
