"""Intervals: equal to the textbook's, paired where they say so, honest over many draws."""

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import f1_score

from training.intervals import compare, estimate, is_better, mcnemar, p_worse, resampled_mean, wilson


def answers(truth, predictions):
    return {"label": truth, "prediction": predictions}


@pytest.mark.parametrize(("successes", "rows"), [(0, 10), (10, 10), (1500, 1900), (1, 3)])
def test_wilson_equals_scipys(successes, rows):
    expected = binomtest(successes, rows).proportion_ci(0.95, method="wilson")
    found = wilson(successes, rows)
    assert found.value == successes / rows
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_an_interval_of_no_rows_is_an_error():
    with pytest.raises(ValueError, match="no interval"):
        wilson(0, 0)
    with pytest.raises(ValueError, match="cannot be paired"):
        compare("accuracy", answers([], []), answers([], []))


def test_results_of_other_rows_are_not_paired():
    with pytest.raises(ValueError, match="other labels"):
        compare("accuracy", answers(["a", "b"], ["a", "a"]), answers(["b", "a"], ["a", "a"]))
    with pytest.raises(ValueError, match="cannot be paired"):
        compare("log_loss", {"log_loss": [0.1]}, {"log_loss": [0.1, 0.2]})


def test_macro_f1_and_its_interval_equal_those_of_resampled_rows():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 400)
    predictions = np.where(rng.random(400) < 0.7, truth, rng.integers(0, 3, 400))
    found = estimate("macro_f1", answers(truth.astype(str), predictions.astype(str)))
    assert found.value == pytest.approx(f1_score(truth, predictions, average="macro"))
    draws = [rng.integers(0, 400, 400) for _ in range(1000)]
    plain = [f1_score(truth[rows], predictions[rows], average="macro") for rows in draws]
    assert (found.low, found.high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.008)


@pytest.mark.parametrize("few", [True, False], ids=["cells", "rows"])
def test_the_interval_of_a_mean_equals_scipys(few):
    rng = np.random.default_rng(0)
    values = rng.choice([-1.0, 0.0, 1.0, 6.0], 300, p=[0.1, 0.6, 0.27, 0.03]) if few else rng.exponential(1, 300)
    expected = bootstrap((values,), np.mean, method="BCa", n_resamples=9999, rng=rng).confidence_interval
    found = resampled_mean(values, rng, 9999).interval(0.025)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_a_difference_is_paired(metric):
    """Two models that mostly err together differ far less surely by chance than two figures put side by side."""
    rng = np.random.default_rng(2)
    truth = rng.choice(["a", "b"], 1000)
    other = {"a": "b", "b": "a"}
    first = answers(truth, [t if i >= 300 else other[t] for i, t in enumerate(truth)])
    second = answers(truth, [t if i >= 320 else other[t] for i, t in enumerate(truth)])
    found = compare(metric, first, second)
    assert found.value == pytest.approx(0.02, abs=0.003)
    assert 0.008 < found.low < 0.02 < found.high < 0.034
    assert wilson(700, 1000).high - wilson(700, 1000).low > 2 * (found.high - found.low)
    reverse = compare(metric, second, first)
    assert (reverse.value, reverse.low) == pytest.approx((-found.value, -found.high), abs=0.004)


def test_a_difference_is_positive_where_the_first_is_better_whichever_way_the_metric_runs():
    less, more = {"log_loss": [0.1, 0.2, 0.3] * 9}, {"log_loss": [0.5, 0.7, 0.9] * 9}
    found = compare("log_loss", less, more)
    assert found.value == pytest.approx(0.5) and found.low > 0 and is_better(found, 0.025)
    assert compare("log_loss", more, less).high < 0


@pytest.mark.parametrize("rows", [10, 70, 2000])
def test_where_no_row_differs_the_doubt_is_that_of_no_event_among_so_many_rows(rows: int):
    lost = binomtest(0, rows, alternative="less").proportion_ci(0.975, method="exact").high
    for metric in ("accuracy", "macro_f1"):
        same = answers(["a", "b"] * (rows // 2), ["a", "b"] * (rows // 2 - 1) + ["b", "a"])
        found = compare(metric, same, same)
        assert found.value == 0
        assert (found.low, found.high) == pytest.approx((-lost, lost))
        assert not is_better(found, 0.025)


def test_mcnemars_mid_p_lies_between_the_exact_tests_neighbours():
    exact = binomtest(15, 20, alternative="greater").pvalue
    next_one = binomtest(16, 20, alternative="greater").pvalue
    assert mcnemar(15, 5) == pytest.approx((exact + next_one) / 2)
    assert mcnemar(0, 0) == 1.0 and mcnemar(3, 3) == pytest.approx(0.5)


def test_better_accuracy_needs_mcnemars_test_to_agree():
    truth = ["a"] * 1000
    first = answers(truth, ["a"] * 1000)
    second = answers(truth, ["b"] * 5 + ["a"] * 995)
    found = compare("accuracy", first, second)
    assert found.low > 0 and found.p_better == pytest.approx(0.5**6)
    assert is_better(found, 0.025) and not is_better(found, 0.015)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "log_loss"])
def test_a_95_percent_interval_misses_the_truth_on_either_side_as_often_as_it_says(metric):
    rng = np.random.default_rng(3)
    over = under = 0
    trials = 300
    for seed in range(trials):
        both = rng.random(600)
        first, second = both < 0.78, (both < 0.70) | (both > 0.95)  # 0.03 apart
        if metric == "log_loss":
            tail = np.where(rng.random(600) < 0.05, rng.exponential(1.0, 600), 0.0)  # few rows weigh most
            mine, theirs, truth = {"log_loss": 0.05 - 0.03 + rng.normal(0, 0.1, 600)}, {"log_loss": tail}, 0.03
            found = compare(metric, mine, theirs, seed=seed, resamples=1000)
        else:
            # Half of the rows of each class, and errors alike in both: macro-F1 differs as accuracy does.
            labels = np.where(np.arange(600) % 2, "a", "b")
            wrong = np.where(np.arange(600) % 2, "b", "a")
            mine, theirs = (answers(labels, np.where(hit, labels, wrong)) for hit in (first, second))
            found, truth = compare(metric, mine, theirs, seed=seed, resamples=1000), 0.03
        over += found.low > truth
        under += found.high < truth
    for misses in (over, under):
        assert binomtest(misses, trials, 0.025, "greater").pvalue > 0.01, f"{over}, {under} of {trials}"


def test_a_p_is_the_alpha_whose_interval_ends_there():
    found = resampled_mean(np.random.default_rng(0).exponential(1, 400), np.random.default_rng(1), 20_000)
    for alpha in (0.2, 0.025):
        assert found.p_below(found.interval(alpha).high) == pytest.approx(alpha, rel=0.05)
        assert found.p_below(found.interval(alpha).low) == pytest.approx(1 - alpha, rel=0.05)


def test_worse_by_more_than_the_margin_is_shown_or_not():
    truth = ["a"] * 1000
    good, bad = answers(truth, truth), answers(truth, ["b"] * 100 + ["a"] * 900)
    assert p_worse("accuracy", bad, good, 0.0, 0.001) < 0.001
    assert p_worse("accuracy", bad, good, 0.07, 0.001) < 0.01
    assert p_worse("accuracy", bad, good, 0.1, 0.001) > 0.3
    assert p_worse("accuracy", good, bad, 0.0, 0.001) > 0.99
    assert p_worse("accuracy", good, good, 0.0, 0.001) == 1.0


def test_intervals_are_the_same_every_time():
    truth, mine, other = ["a", "b", "a", "b"] * 20, ["a", "b", "b", "b"] * 20, ["a", "a", "a", "b"] * 20
    first, second = answers(truth, mine), answers(truth, other)
    assert compare("macro_f1", first, second) == compare("macro_f1", first, second)
    assert compare("macro_f1", first, second) != compare("macro_f1", first, second, seed=1)


def test_a_small_alpha_draws_more():
    rng = np.random.default_rng(0)
    loss = {"log_loss": rng.exponential(1, 200)}
    wide, wider = (estimate("log_loss", loss, alpha, resamples=1000) for alpha in (0.01, 0.001))
    assert wider.low < wide.low < wide.high < wider.high


def test_an_unknown_metric_lists_what_there_is():
    with pytest.raises(ValueError, match="accuracy, macro_f1, log_loss, brier"):
        compare("acuracy", answers(["a"], ["a"]), answers(["a"], ["a"]))
