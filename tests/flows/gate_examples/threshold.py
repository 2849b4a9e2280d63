"""A model that reaches the minimum, and one that does not."""

from typing import Any

WRONG = [
    ({"minimun": 0.5}, "threshold.minimun: unknown key; did you mean 'minimum'"),
    ({}, "accuracy is better when higher: give minimum"),
    (None, "accuracy is better when higher: give minimum"),
    ({"minimum": 0.5, "maximum": 0.9}, "give minimum, and no maximum"),
    ({"metric": "log_loss", "minimum": 0.5}, "log loss is better when lower: give maximum"),
    ({"minimum": 1.5}, "threshold.minimum: found 1.5"),
    ({"minimum": float("nan")}, "threshold.minimum: found nan"),
    ({"minimum": "high"}, "threshold.minimum: found 'high'"),
    ({"minimum": 0.5, "metric": "acuracy"}, "metric: found 'acuracy'; no such metric; there is"),
]


def example(world: Any, good: bool) -> Any:
    return {"metric": "accuracy", "minimum": 0.85}, world.candidate(right=0.9 if good else 0.8), None
