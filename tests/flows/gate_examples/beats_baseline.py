"""A model much better than the linear one, and one as good."""

from typing import Any


def example(world: Any, good: bool) -> Any:
    return {"severity": "block"}, world.candidate(right=0.9, baseline=0.8 if good else 0.9), None
