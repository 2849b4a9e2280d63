"""The gates of quality hold their thresholds: on either side of each, and whatever it is measured by."""

from typing import Any

import pytest


def test_threshold_is_reached_by_equality(world):
    candidate = world.candidate(right=0.9)
    accuracy = world.judge("threshold", {"minimum": 0.1}, candidate).observed
    assert world.judge("threshold", {"minimum": accuracy}, candidate).passed
    assert not world.judge("threshold", {"minimum": accuracy + 1e-9}, candidate).passed


def test_threshold_decides_by_the_interval_when_told_to(world):
    candidate = world.candidate(right=0.9)
    low, _ = world.judge("threshold", {"minimum": 0.1}, candidate).interval
    assert world.judge("threshold", {"minimum": low, "decide_by": "interval"}, candidate).passed
    assert not world.judge("threshold", {"minimum": low + 1e-9, "decide_by": "interval"}, candidate).passed
    assert world.judge("threshold", {"minimum": low + 1e-9}, candidate).passed


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_champion_margin_is_held_against_the_lower_end_of_the_interval(world, metric):
    first = world.promote(world.candidate(right=0.9))
    candidate = world.candidate(right=0.88)
    low, _ = world.judge("champion", {"metric": metric, "margin": 0.5}, candidate, first).interval
    assert low < -0.02
    for margin, fine in ((-low + 1e-6, True), (-low - 1e-6, False)):
        assert world.judge("champion", {"metric": metric, "margin": margin}, candidate, first).passed == fine
    difference = world.evidence.evaluation(candidate).metrics["model"][metric]["value"]
    difference -= world.evidence.evaluation(first).metrics["model"][metric]["value"]
    assert world.judge("champion", {"metric": metric}, candidate, first).observed == pytest.approx(difference)
    wide, _ = world.judge("champion", {"metric": metric, "alpha": 0.2}, candidate, first).interval
    assert wide > low, "a larger alpha asks for less"


def test_champion_of_another_dataset_version_is_compared_on_common_rows(world):
    first = world.promote(world.candidate(right=0.9))
    grown = world.candidate(right=0.9, dataset="grown")
    verdict = world.judge("champion", {"margin": 0.1}, grown, first)
    old, new = (set(world_rows(world, name)) for name in ("old", "grown"))
    assert len(old & new) < len(new)
    assert verdict.passed and f"the {len(old & new):,} test rows both have answered" in verdict.sentence
    assert not world.judge("champion", {"margin": 0.1, "minimum_rows": len(old & new) + 1}, grown, first).passed
    assert world.judge("champion", {"margin": 0.1, "minimum_rows": len(old & new)}, grown, first).passed


def test_champion_without_common_rows_is_a_no_that_says_the_way_out(world):
    first = world.promote(world.candidate())
    verdict = world.judge("champion", {}, world.candidate(dataset="other"), first)
    assert not verdict.passed
    assert "0 test rows in common" in verdict.sentence and "gates.champion.minimum_rows" in verdict.sentence


def world_rows(world: Any, name: str) -> list[str]:
    from data_contracts.registry import read_split

    return read_split(world.store, world.dataset(name), "test")["row_id"].to_pylist()


def test_baseline_margin_is_held_against_the_difference(world):
    candidate = world.candidate(right=0.8, baseline=0.83)
    shortfall = -world.judge("baseline", {}, candidate).observed
    assert world.judge("baseline", {"margin": shortfall}, candidate).passed
    assert not world.judge("baseline", {"margin": shortfall - 1e-9}, candidate).passed
    assert not world.judge("baseline", {"margin": shortfall, "decide_by": "interval"}, candidate).passed


def test_beats_baseline_warns_unless_told_to_block_and_says_what_would_change_it(world):
    candidate = world.candidate(right=0.8, baseline=0.8)
    verdict = world.judge("beats_baseline", {}, candidate)
    assert (verdict.passed, verdict.severity) == (False, "warn")
    assert "A simple model does as well" in verdict.sentence and "--set base=PATH" in verdict.sentence
    worse = world.judge("beats_baseline", {}, world.candidate(right=0.5, baseline=0.8))
    assert "A simple model does better" in worse.sentence
    assert world.judge("beats_baseline", {"severity": "block"}, candidate).severity == "block"
