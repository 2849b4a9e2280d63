"""A model that says 0.9 and is right in nine of ten, and one that says so and is right in seven."""

from typing import Any

WRONG = [({"maximum": 0.0}, "calibration.maximum: found 0.0"), ({"maximum": 2.0}, "calibration.maximum: found 2.0")]


def example(world: Any, good: bool) -> Any:
    return {"maximum": 0.05}, world.candidate(right=0.9 if good else 0.7), None
