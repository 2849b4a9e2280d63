"""A model trained on nearly the champion's data, and one on data that changed."""

from typing import Any

WRONG = [(["label"], "drift: found")]
COMPARES = True


def example(world: Any, good: bool) -> Any:
    first = world.promote(world.candidate())
    return {}, world.candidate(dataset="grown" if good else "drifted"), first


def proof(world: Any, subject: Any) -> list[str]:
    version = world.dataset_of(subject)
    return [version.key(version.manifest["files"]["profile"]["name"])]
