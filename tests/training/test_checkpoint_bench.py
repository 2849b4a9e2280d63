"""The arms of bench/checkpoint.py give back the same state: what of a benchmark can be tested."""

import importlib.util
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).parents[2] / "bench" / "checkpoint.py"


def test_both_arms_give_the_state_back_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH.parent)
    spec = importlib.util.spec_from_file_location("bench_checkpoint", BENCH)
    assert spec and spec.loader
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    taken, equal = bench.measure(megabytes=10, rounds=1)
    assert equal and {name: len(times) for name, times in taken.items()} == {"torch_save": 1, "slipway": 1}
    arms = bench.Arms(bench.make(10, seed=0), Path("unused"))
    monkeypatch.setattr(arms, "read", lambda name, into: None)
    assert not bench._same(bench.make(10, seed=0), arms, "slipway", 10), "the check tells a state that was not read"
    assert torch.get_default_dtype() == torch.float32
