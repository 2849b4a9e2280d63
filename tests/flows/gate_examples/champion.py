"""A model about as good as the champion, and one much worse."""

from typing import Any

WRONG = [
    ({"margin": -0.01}, "champion.margin: found -0.01"),
    ({"alpha": 0.7}, "champion.alpha: found 0.7"),
    ({"alpha": 0.0}, "champion.alpha: found 0.0"),
    ({"require": "better", "margin": 0.01}, "a margin is for `require: not_worse`"),
]
COMPARES = True


def example(world: Any, good: bool) -> Any:
    first = world.promote(world.candidate(right=0.9))
    return {"margin": 0.05}, world.candidate(right=0.89 if good else 0.8), first
