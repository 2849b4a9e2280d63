"""The package is tried once, in a process that lends it nothing; what it did is a file that gates cite."""

import json
from typing import Any

import pytest

from flows.judging.evidence import Evidence
from flows.judging.gate import parse_gates, run_gates
from infra import package_trial
from tests.flows.gate_examples.package import save_package

FITNESS = {"package": {}, "answers": {}, "latency": {"p95_ms": 1000.0}, "size": {"maximum_mb": 10.0}}


def judge_all(world: Any, candidate: Any, gates: dict[str, Any]) -> dict[str, Any]:
    found = run_gates(parse_gates(gates, "x"), candidate, None, Evidence(world.store, world.settings))
    return {verdict.gate: verdict for verdict in found}


@pytest.fixture
def answering(monkeypatch):
    """Let the package answer what `find(rows)` returns, without a process; counts how often it was asked."""
    asked: list[Any] = []

    def install(**found: Any) -> list[Any]:
        def ask(settings: Any, address: str, rows: list[Any], requests: int) -> dict[str, Any]:
            asked.append(rows)
            given = [{"label": row["text"].split()[0], "confidence": found.get("confidence", 0.9)} for row in rows]
            return {
                "format": 1,
                "failure": None,
                "load_s": 0.1,
                "requirements": ["mlflow"],
                "package_bytes": 1000,
                "machine": {"cores": 2},
                "answers": given[: found.get("count")],
                "request_ms": found.get("request_ms", [5.0] * 100),
            }

        monkeypatch.setattr(package_trial, "try_package", ask)
        return asked

    return install


def test_a_package_that_does_not_load_is_a_no_of_every_gate_that_looks_at_it(world):
    candidate = world.candidate(package=save_package(world, "torn"))
    verdicts = judge_all(world, candidate, FITNESS)
    assert not any(verdict.passed for verdict in verdicts.values() if verdict.gate != "size")
    assert "weights are torn" in verdicts["package"].sentence and verdicts["package"].observed == 0
    trial = json.loads(world.store.get(verdicts["package"].evidence))
    assert trial["failure"]["stage"] == "load" and trial["subject"]["model"] == candidate.model


def test_a_package_that_ends_its_process_is_a_no(world):
    candidate = world.candidate(package=save_package(world, "record", imports="os; os.kill(os.getpid(), 9)"))
    verdict = world.judge("package", {}, candidate)
    assert not verdict.passed and "ended by signal 9" in verdict.sentence and verdict.evidence


def test_what_a_package_does_not_declare_is_not_lent_to_it(world):
    for module, name in (("datasketch", "datasketch"), ("flows.judging.gate", "flows")):
        verdict = world.judge("package", {}, world.candidate(package=save_package(world, "record", imports=module)))
        assert not verdict.passed and f"No module named '{name}'" in verdict.sentence


def test_the_package_is_asked_once_for_all_gates(world, answering):
    asked = answering()
    verdicts = judge_all(world, world.candidate(right=1.0), FITNESS)
    assert all(verdict.passed for verdict in verdicts.values()), verdicts
    assert len(asked) == 1 and all(set(row) == {"text"} for row in asked[0])
    assert len({verdict.evidence for verdict in verdicts.values()}) == 1


def test_answers_are_compared_row_by_row_within_the_tolerance(world, answering):
    candidate = world.candidate(right=1.0)
    answering(confidence=0.9005)
    verdict = world.judge("answers", {}, candidate)
    assert verdict.passed and verdict.observed == verdict.threshold == 64
    answering(confidence=0.9015)
    assert not world.judge("answers", {}, candidate).passed
    assert world.judge("answers", {"tolerance": 0.002}, candidate).passed
    answering(count=63)
    verdict = world.judge("answers", {}, candidate)
    assert not verdict.passed and "gave 63 answers to 64 rows" in verdict.sentence
    answering(confidence=None)
    assert not world.judge("answers", {}, candidate).passed


def test_latency_holds_each_percentile_against_its_budget(world, answering):
    candidate = world.candidate(right=1.0)
    answering(request_ms=[10.0] * 90 + [100.0] * 10)
    assert world.judge("latency", {"p50_ms": 10.0}, candidate).passed
    assert not world.judge("latency", {"p50_ms": 9.9}, candidate).passed
    assert world.judge("latency", {"p95_ms": 100.0}, candidate).passed
    verdict = world.judge("latency", {"p50_ms": 50.0, "p95_ms": 99.0}, candidate)
    assert not verdict.passed and verdict.measure.startswith("p95") and verdict.observed == 100
    answering(request_ms=[10.0] * 19)
    verdict = world.judge("latency", {"p50_ms": 50.0}, candidate)
    assert not verdict.passed and "answered 19 requests" in verdict.sentence


def test_size_is_held_in_megabytes(world, answering):
    answering()
    candidate = world.candidate(right=1.0)
    assert world.judge("size", {"maximum_mb": 0.001}, candidate).passed
    assert not world.judge("size", {"maximum_mb": 0.0009}, candidate).passed
