"""A small package, and one with two megabytes of ballast, where one is allowed."""

from typing import Any

from tests.flows.gate_examples.package import save_package

WRONG = [({}, "size.maximum_mb: is missing"), ({"maximum_mb": 0.0}, "size.maximum_mb: found 0.0")]


def example(world: Any, good: bool) -> Any:
    address = save_package(world, "record", ballast_bytes=0 if good else 2_000_000)
    return {"maximum_mb": 1.0}, world.candidate(right=0.9, package=address), None
