"""Answers that agree with the labels, and answers that surely and often do not."""

from typing import Any

WRONG = [({"maximum_share": -0.1}, "label_issues.maximum_share: found -0.1")]


def example(world: Any, good: bool) -> Any:
    return {"maximum_share": 0.1}, world.candidate(right=0.95 if good else 0.7), None
