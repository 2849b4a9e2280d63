"""Splits that share nothing, and pinned ones of which the test rows were trained on, some with a word more."""

from typing import Any

from tests.flows.conftest import CONTRACT

WRONG = [
    ({"similarity": 0.2}, "contamination.similarity: found 0.2"),
    ({"maximum_share": 1.5}, "contamination.maximum_share: found 1.5"),
]
PINNED = CONTRACT.replace(
    "{test: 0.2, validation: 0.1}", "{column: part}"
).replace("      - {name: label,", "      - {name: part, logicalType: string}\n      - {name: label,")  # fmt: skip
ANIMALS = ("ant", "bee", "cat")


def example(world: Any, good: bool) -> Any:
    add_pinned(world, good)
    return {}, world.candidate(dataset="pinned"), None


def add_pinned(world: Any, good: bool, contract: str = PINNED) -> None:
    """Register "pinned"."""

    def said(number: int, label: str) -> str:
        words = [
            f"{word}{number * 7919 % 9973 * place}" for place, word in enumerate(("leaf", "stone", "river"), start=3)
        ]
        return f"the {label} sits on {' and '.join(words)}"

    test = [(said(number, label), label) for number in range(40) for label in ANIMALS]
    train = [(said(number, label), label) for number in range(100, 400) for label in ANIMALS]
    if not good:
        train += [(text.upper(), label) for text, label in test[:12]]
        train += [(f"{text} now", label) for text, label in test[12:18]]
    parts = {"test": test, "train": train, "validation": [("another ant", "ant"), ("another bee", "bee")]}
    rows = [f"{text},{part},{label}" for part, rows in parts.items() for text, label in rows]
    world.add_dataset("pinned", "text,part,label\n" + "\n".join(rows) + "\n", contract)


def proof(world: Any, subject: Any) -> list[str]:
    version = world.dataset_of(subject)
    return [version.key(version.manifest["files"][f"data/{split}"]["name"]) for split in ("train", "test")]
