"""A version whose bad rows are in quarantine, and one that was withdrawn after the model was trained on it."""

from typing import Any

from tests.flows.conftest import CONTRACT

WRONG = [({"limit": 0.1}, "contract.limit: unknown key")]


def example(world: Any, good: bool) -> Any:
    from data_contracts.withdrawal import withdraw

    lines = [f"{label} {number} is here,{label}" for number in range(200) for label in ("ant", "bee", "cat")]
    world.add_dataset("holed", "text,label\n" + "\n".join([*lines, ",ant", ",bee"]) + "\n", CONTRACT)
    candidate = world.candidate(dataset="holed")
    if not good:
        withdraw(world.store, world.dataset("holed"), "mel", "consent was taken back")
    return {}, candidate, None


def proof(world: Any, subject: Any) -> list[str]:
    version = world.dataset_of(subject)
    return [version.key(version.manifest["files"][name]["name"]) for name in ("validation", "quarantine")]
