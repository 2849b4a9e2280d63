"""The statistical gates err as seldom as they say, and one that does not is found out."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import accuracy_score, f1_score

from flows.cli import cli
from flows.judging import calibrate, planted
from flows.judging.calibrate import ALPHA, TESTS, Trials
from flows.references import resolve
from infra.errors import Refused, WrongInput


@pytest.fixture(scope="module")
def population():
    return planted.generated()


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
@pytest.mark.parametrize("difference", [0.0, -0.02, 0.03, -0.22])
def test_a_planted_pair_differs_by_exactly_what_was_asked_for(population, metric, difference):
    cells = planted.pair(population, metric, difference)
    assert planted.true_difference(cells, metric) == pytest.approx(difference, abs=1e-9)
    assert cells.shares.sum() == pytest.approx(1) and cells.shares.min() > 0
    score = accuracy_score if metric == "accuracy" else lambda *args, **more: f1_score(*args, average="macro", **more)
    label, candidate, champion = cells.kinds.T
    by_hand = score(label, candidate, sample_weight=cells.shares) - score(label, champion, sample_weight=cells.shares)
    assert by_hand == pytest.approx(difference, abs=1e-9)
    # The champion is the stored model, whatever was done to the other.
    right = (population.truth == population.answers).mean()
    assert cells.shares @ (label == champion) == pytest.approx(right)


def test_losses_of_a_pair_differ_by_exactly_what_was_asked_for(population):
    for difference in (0.0, -0.02):
        gains = planted.loss_gains(population, difference)
        assert gains.mean() == pytest.approx(difference, abs=1e-12) and gains.std() > 0.01


def test_a_difference_that_cannot_be_is_an_error(population):
    with pytest.raises(ValueError, match="no change of generated predictions"):
        planted.pair(population, "accuracy", 0.5)


def test_accuracy_gates_err_as_seldom_as_they_say_and_have_the_power_theory_gives_them(population):
    trials = Trials(population, 300)
    for test in (calibrate.better, calibrate.not_worse, calibrate.threshold):
        row = test(trials, "champion", "accuracy")
        assert row.holds, row
        assert row.power.rate == pytest.approx(row.theory_power, abs=0.12)
        if row.same and row.theory_same:
            assert row.same.rate == pytest.approx(row.theory_same, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("gate", TESTS)
def test_no_statistical_gate_errs_more_often_than_alpha(population, gate):
    rows = calibrate.calibrate(population, [gate], 500)
    assert [row for row in rows if not row.holds] == []


def test_every_test_runs_and_says_the_same_twice(population):
    first, second = (calibrate.calibrate(population, list(TESTS), 20) for _ in range(2))
    assert [row.to_json() for row in first] == [row.to_json() for row in second]
    assert {row.gate for row in first} == set(TESTS)
    json.dumps([row.to_json() for row in first], allow_nan=False)


def test_a_gate_that_errs_too_often_is_found_out(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(calibrate, "is_better", lambda found, alpha: found.value > 0)  # no interval: half of A/A passes
    done = CliRunner().invoke(cli, ["gates", "calibrate", "--gate", "beats_baseline", "--trials", "60", "--json"])
    assert isinstance(done.exception, Refused) and "beats_baseline (better, accuracy)" in str(done.exception)
    document = json.loads(done.stdout)
    assert document["predictions"].startswith("generated predictions")
    assert [one["holds"] for one in document["tests"]] == [False, False]
    assert document["tests"][0]["boundary"]["low"] > ALPHA


def test_a_gate_that_is_no_test_or_unknown_is_one_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for gate, message in (("chapion", "did you mean 'champion'"), ("drift", "decides nothing by chance")):
        done = CliRunner().invoke(cli, ["gates", "calibrate", "--gate", gate])
        assert isinstance(done.exception, WrongInput) and message in str(done.exception)


def test_stored_predictions_are_the_population(world):
    candidate = world.candidate(right=0.9, baseline=0.8)
    version = resolve(world.store, candidate.ref)
    assert planted.newest(world.settings, None).source.startswith("generated"), "it was never evaluated"
    with pytest.raises(WrongInput, match="has no evaluation; run slipway evaluate animals/1 first"):
        planted.newest(world.settings, "animals")
    record = {"ingredients": {"model": version.model}, "output": {"evaluation": candidate.evaluation}, "ended": 1.0}
    world.store.put("steps/evaluate/animals/x.json", json.dumps(record).encode())
    for reference in (None, "animals/1"):
        found = planted.newest(world.settings, reference)
        assert "animals/1" in found.source and found.classes == 3
        table = world.evidence.evaluation(candidate).predictions().to_pydict()
        right = np.mean([label == answer for label, answer in zip(table["label"], table["prediction"], strict=True)])
        assert (found.truth == found.answers).mean() == right
        assert found.discordant == pytest.approx(0.1, abs=0.01)
