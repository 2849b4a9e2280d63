"""Calibration: figures equal their definition, bins are of equal mass, a temperature mends what was stretched."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.calibration import calibration_curve

from training.calibration import bin_of, expected_calibration_error, per_row_losses, reliability
from training.temperature import fit_temperature


@pytest.fixture
def sure():
    """Confidence and rightness of a model that is 0.1 too sure."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.4, 1.0, 6000)
    return confidence, rng.random(6000) < confidence - 0.1


def test_bins_hold_equally_many_rows(sure):
    counts = np.bincount(bin_of(sure[0]))
    assert len(counts) == 15 and counts.min() >= 399 and counts.max() <= 401
    assert len(np.bincount(bin_of(sure[0][:100]))) == 5, "fewer bins for fewer rows"
    assert set(bin_of(np.full(1000, 0.9))) == {0}, "equal confidences share a bin"


def test_the_reliability_table_equals_scikit_learns_curve(sure):
    confidence, right = sure
    accuracy, mean = calibration_curve(right, confidence, n_bins=15, strategy="quantile")
    table = reliability(confidence, right)
    assert [row["accuracy"] for row in table] == pytest.approx(accuracy.tolist(), abs=0.003)
    assert [row["confidence"] for row in table] == pytest.approx(mean.tolist(), abs=0.003)
    assert sum(row["rows"] for row in table) == 6000
    assert all(row["low"] < row["accuracy"] < row["high"] for row in table)


def test_ece_is_the_planted_gap(sure):
    confidence, right = sure
    found = expected_calibration_error(confidence, right)
    assert found.value == pytest.approx(0.1, abs=0.015)
    assert found.low < found.value < found.high < 0.13
    table = reliability(confidence, right)
    by_hand = sum(row["rows"] * abs(row["confidence"] - row["accuracy"]) for row in table) / 6000
    assert found.value == pytest.approx(by_hand)
    honest = np.random.default_rng(1).random(6000) < confidence
    assert expected_calibration_error(confidence, honest).value < 0.03


def test_losses_of_rows_equal_their_definition():
    shares = softmax(np.random.default_rng(0).normal(size=(50, 4)), axis=1)
    truth = np.arange(50) % 4
    losses, brier = per_row_losses(shares, truth)
    assert losses == pytest.approx(-np.log(shares[np.arange(50), truth]))
    assert brier == pytest.approx(((shares - np.eye(4)[truth]) ** 2).sum(1))
    unknown = per_row_losses(shares[:1], np.array([-1]))
    assert unknown[1][0] == pytest.approx((shares[0] ** 2).sum() + 1)


@pytest.mark.parametrize("planted", [0.5, 1.0, 3.0])
def test_the_temperature_that_stretched_the_logits_is_found(planted):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 5)) * 2
    truth = (logits + rng.gumbel(size=logits.shape)).argmax(1)  # drawn from softmax(logits)
    found = fit_temperature(planted * logits, truth)
    assert found == pytest.approx(planted, rel=0.05)
    before, after = (
        -log_softmax(planted * logits / t, axis=1)[np.arange(len(truth)), truth].mean() for t in (1, found)
    )
    assert after <= before + 1e-9


def test_no_row_leaves_the_logits_as_they_are():
    assert fit_temperature(np.empty((0, 3)), np.empty(0, dtype=int)) == 1.0
