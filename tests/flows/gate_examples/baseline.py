"""A model as good as the linear one, and one much worse."""

from typing import Any

WRONG = [
    ({"severity": "wran"}, "baseline.severity: found 'wran'"),
    ({"metric": "log_loss"}, "no such metric of a baseline; there is: accuracy, macro_f1"),
]


def example(world: Any, good: bool) -> Any:
    return {"margin": 0.02}, world.candidate(right=0.8, baseline=0.8 if good else 0.9), None
