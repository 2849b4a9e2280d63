"""A package that answers as its model was evaluated, and one that always says the same."""

from typing import Any

from tests.flows.gate_examples.package import save_package

WRONG = [({"tolerance": -1.0}, "answers.tolerance: found -1.0")]


def example(world: Any, good: bool) -> Any:
    address = save_package(world, "record" if good else "ant")
    return {}, world.candidate(right=0.9, package=address), None
