"""A package that answers at once, and one that thinks for a fifth of a second, under a budget of a tenth."""

from typing import Any

from tests.flows.gate_examples.package import save_package

WRONG = [
    ({}, "latency: found {}; set p95_ms or p50_ms"),
    ({"p95_ms": 0.0}, "latency.p95_ms: found 0.0"),
]


def example(world: Any, good: bool) -> Any:
    address = save_package(world, "record", seconds=0.0 if good else 0.2)
    return {"p95_ms": 100.0}, world.candidate(right=0.9, package=address), None
