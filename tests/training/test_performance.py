"""Accuracy estimated without labels is near the real one, its interval holds it, and it is blind to what it says."""

import numpy as np
import pytest

from training.performance import Calibration, estimated_accuracy, fit_calibration


def answers(rng: np.random.Generator, rows: int, hard: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """(confidence, right): an overconfident model; `hard` is the share of rows on which it is less sure."""
    chance = np.where(rng.random(rows) < hard, rng.uniform(0.5, 0.8, rows), rng.uniform(0.85, 0.99, rows))
    said = 1 / (1 + np.exp(-1.8 * np.log(chance / (1 - chance))))
    return said, rng.random(rows) < chance


def test_an_overconfident_model_is_estimated_within_its_interval():
    """95 % intervals of windows with more hard rows or fewer: they hold the real accuracy nearly as often as they say,
    and plain confidence is far off."""
    rng = np.random.default_rng(0)
    held, off = [], []
    for _ in range(40):
        calibration = fit_calibration(*answers(rng, 800))
        for hard in (0.1, 0.5, 0.9):
            said, right = answers(rng, 500, hard)
            found = estimated_accuracy(calibration, said)
            held.append(found.low <= right.mean() <= found.high)
            off.append(abs(said.mean() - right.mean()))
    assert np.mean(held) >= 0.9
    assert np.mean(off) > 0.05


def test_harder_inputs_are_seen_and_other_answers_are_not():
    rng = np.random.default_rng(1)
    calibration = fit_calibration(*answers(rng, 2000))
    easy, hard = (estimated_accuracy(calibration, answers(rng, 1000, share)[0]) for share in (0.2, 0.9))
    assert hard.high < easy.low
    said, right = answers(rng, 1000, 0.2)
    turned = right & (rng.random(1000) < 0.6)  # the world answers otherwise: the first assumption is broken
    assert turned.mean() < estimated_accuracy(calibration, said).low


def test_a_model_that_was_never_wrong_is_not_taken_for_certain():
    calibration = fit_calibration(np.full(100, 0.9), np.ones(100, bool))
    found = estimated_accuracy(calibration, np.full(50, 0.9))
    assert 0.99 < found.value < 1 and found.low < 1


def test_what_cannot_be_estimated_is_refused():
    with pytest.raises(ValueError, match="99 labelled rows are too few"):
        fit_calibration(np.full(99, 0.9), np.ones(99, bool))
    with pytest.raises(ValueError, match="no row"):
        estimated_accuracy(Calibration(1.0, 0.0, np.zeros((2, 2))), np.empty(0))
