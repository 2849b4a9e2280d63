"""A run within its budget, and one over it."""

from typing import Any

from training.run_log import RunLog

WRONG: list[tuple[dict[str, float], str]] = [({}, "energy: found {}; set maximum_kwh or maximum_co2_kg")]
SEALED = False
"""A run's log carries no digest of its own: that it is lost is seen, that one digit of it changed is not."""


def example(world: Any, good: bool) -> Any:
    candidate = world.candidate()
    log = RunLog(world.store, candidate.run)
    log.append("run", experiment={}, key="", author="mel")
    log.append("finished", model=candidate.model, energy_kwh=0.2 if good else 2.0, co2_kg=0.05)
    return {"maximum_kwh": 0.5}, candidate, None


def proof(world: Any, subject: Any) -> list[str]:
    return list(world.store.list(f"runs/{subject.run}/log/"))
