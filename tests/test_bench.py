"""The equality checks of the benchmarks, on little data; their figures are for `make bench`."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[1] / "bench"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCH)  # a benchmark imports what stands beside it
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_padding_each_step_has_the_loss_of_hf_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("accelerate", reason="HF Trainer needs it")
    bench = load("no_padding", monkeypatch)
    arms, difference = bench.measure(96, None, rounds=1, arms=["trainer", "slipway"])
    assert len(arms["slipway"].answer["losses"]) == 3
    assert difference <= 1e-4
    assert arms["trainer"].answer["computed"] > arms["slipway"].answer["computed"] == arms["slipway"].answer["real"]


def test_the_index_finds_what_comparing_with_every_text_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = load("search", monkeypatch)
    _, facts = bench.measure({"generated": bench.mixtures(2000)}, rounds=1)
    assert facts["generated"]["texts"] == 1900 and facts["generated"]["queries"] == 100
    assert facts["generated"]["recall_at_10"] >= 0.99
    assert facts["generated"]["largest_score_difference"] <= 1e-5


def test_the_cache_draws_the_codes_that_reading_everything_again_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = load("draw", monkeypatch)
    weighed, equal, facts = bench.measure(2, rounds=1, grid=4)
    codes = weighed["cached"].answer["codes"]
    assert equal and codes[0] != codes[1], "drawn once as asked and once guided"
    assert facts["image_tokens"] == 16 and facts["largest_difference_of_a_probability"] < 1e-5
