"""The package gate asks the package itself, and compares row by row."""

from collections.abc import Callable
from typing import Any

from tests.flows.gate_examples import package


def test_a_package_that_does_not_load_is_a_no_with_its_last_words(world):
    candidate = world.candidate(package=package.save_package(world, "torn"))
    verdict = world.judge("package", {}, candidate)
    assert not verdict.passed and "weights are torn" in verdict.sentence


def test_package_answers_are_compared_row_by_row(world, monkeypatch):
    from infra import tracking

    candidate = world.candidate(right=1.0)
    asked: list[Any] = []

    def answers(confidence: float, count: int | None = None) -> Callable[..., Any]:
        def ask(settings: Any, address: str, rows: list[dict[str, str]]) -> list[dict[str, Any]]:
            asked.append(rows)
            given = [{"label": row["text"].split()[0], "confidence": confidence} for row in rows]
            return given[:count]

        return ask

    monkeypatch.setattr(tracking, "ask_package", answers(0.9005))
    verdict = world.judge("package", {"rows": 5}, candidate)
    assert verdict.passed and verdict.observed == 5
    assert all(set(row) == {"text"} for row in asked[0]) and len(asked[0]) == 5
    monkeypatch.setattr(tracking, "ask_package", answers(0.9015))
    assert not world.judge("package", {"rows": 5}, candidate).passed
    assert world.judge("package", {"rows": 5, "tolerance": 0.002}, candidate).passed
    monkeypatch.setattr(tracking, "ask_package", answers(0.9, count=4))
    verdict = world.judge("package", {"rows": 5}, candidate)
    assert not verdict.passed and "gave 4 answers to 5 rows" in verdict.sentence
