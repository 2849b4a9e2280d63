"""The gates on data: what they look for is planted, and their limits are held from both sides."""

import json
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from data_contracts import sequence
from flows.judging.evidence import Evidence, Subject
from flows.judging.gate import Verdict, parse_gates, run_gates
from infra.digests import digest_bytes
from tests.flows.conftest import CONTRACT
from tests.flows.gate_examples import contamination as leaking
from tests.flows.gate_examples import contract as holed
from tests.flows.gate_examples import freshness as dated

SECRET = CONTRACT.replace("{name: text, logicalType: string,", "{name: text, logicalType: string, classification: PII,")


def judge_at(world: Any, gate: str, settings: dict[str, Any], candidate: Subject, now: datetime) -> Verdict:
    evidence = Evidence(world.store, world.settings, clock=lambda: now)
    (verdict,) = run_gates(parse_gates({gate: settings}, "x"), candidate, None, evidence)
    return verdict


def rewrite(world: Any, candidate: Subject, name: str, change: Any) -> None:
    """Change a JSON file of the candidate's data and its digest in the manifest: as if it had been registered so."""
    version = world.dataset_of(candidate)
    entry = version.manifest["files"][name]
    body = json.loads(world.store.get(version.key(entry["name"])))
    change(body)
    data = json.dumps(body).encode()
    world.store.put(version.key(entry["name"]), data)
    manifest = version.manifest | {
        "files": version.manifest["files"] | {name: entry | {"sha256": digest_bytes(data), "bytes": len(data)}}
    }
    world.store.put(version.key("manifest.json"), json.dumps(manifest).encode())


def test_contract_counts_rows_in_quarantine_against_its_own_limit(world):
    _, candidate, _ = holed.example(world, True)
    verdict = world.judge("contract", {}, candidate)
    assert verdict.passed and verdict.observed == pytest.approx(2 / 602) and verdict.threshold == 0.1
    (row,) = verdict.details
    assert row == {"rule": "text:required", "severity": "error", "rows": 2, "what became of them": "quarantined"}


def test_contract_is_a_no_when_a_rule_broke_and_its_rows_were_kept(world):
    _, candidate, _ = holed.example(world, True)

    def break_more(report: dict[str, Any]) -> None:
        next(one for one in report["results"] if not one["success"])["result"]["unexpected_count"] = 3

    rewrite(world, candidate, "validation", break_more)
    verdict = world.judge("contract", {}, candidate)
    assert not verdict.passed and "breaks text:required" in verdict.sentence and verdict.evidence


def test_contract_is_a_no_once_retention_is_over(world):
    kept = CONTRACT + "slaProperties:\n  - {property: retention, value: 30, unit: d}\n"
    rows = [f"{label} {n},{label}" for n in range(100) for label in ("ant", "bee", "cat")]
    world.add_dataset("kept", "text,label\n" + "\n".join(rows) + "\n", kept)
    candidate = world.candidate(dataset="kept")
    now = datetime.now(UTC)
    assert judge_at(world, "contract", {}, candidate, now + timedelta(days=29)).passed
    verdict = judge_at(world, "contract", {}, candidate, now + timedelta(days=31))
    assert not verdict.passed and "retention" in verdict.sentence


def test_freshness_holds_the_newest_value_against_the_promise_to_the_day(world):
    _, candidate, _ = dated.example(world, True)
    newest = datetime.combine(datetime.now(UTC).date() - timedelta(days=3), datetime.min.time(), UTC)
    assert judge_at(world, "freshness", {}, candidate, newest + timedelta(days=30)).passed
    verdict = judge_at(world, "freshness", {}, candidate, newest + timedelta(days=30, minutes=1))
    assert not verdict.passed and "the newest 'seen'" in verdict.sentence
    assert not judge_at(world, "freshness", {"maximum_age_days": 2.0}, candidate, datetime.now(UTC)).passed
    verdict = judge_at(world, "freshness", {}, candidate, newest - timedelta(days=2))
    assert not verdict.passed and "from the future" in verdict.sentence


def test_freshness_of_files_counts_from_when_they_changed_not_from_when_they_were_registered(world):
    promise = CONTRACT + "slaProperties:\n  - {property: latency, value: 4, unit: d}\n"
    rows = [f"{label} {n},{label}" for n in range(100) for label in ("ant", "bee", "cat")]
    changed = datetime(2026, 1, 10, 12, tzinfo=UTC)
    folder = world.folder / "data-files"
    folder.mkdir()
    (folder / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (folder / "animals.odcs.yaml").write_text(promise)
    os.utime(folder / "rows.csv", (changed.timestamp(), changed.timestamp()))
    from data_contracts.contract import load_contract
    from data_contracts.registry import register, tag_prefix

    version, _ = register(world.store, load_contract(str(folder / "animals.odcs.yaml")), cache=world.folder / "cache")
    world.references["files"] = f"{version.name}@{version.digest}"
    by_hand = {"digest": version.digest, "who": "mel", "fingerprint": {"revision": "0"}}  # no news of the data
    sequence.append(world.store, tag_prefix("animals", "latest"), 1, lambda newest: by_hand)
    candidate = world.candidate(dataset="files")
    assert judge_at(world, "freshness", {}, candidate, changed + timedelta(days=4)).passed
    verdict = judge_at(world, "freshness", {}, candidate, changed + timedelta(days=4, hours=1))
    assert not verdict.passed and "its source last changed on 2026-01-10 12:00 UTC" in verdict.sentence
    assert verdict.evidence.startswith("datasets/animals/refs/latest/")


def test_freshness_without_a_promise_is_a_no_that_says_what_to_write(world):
    verdict = world.judge("freshness", {}, world.candidate())
    assert not verdict.passed and "property: latency, value: 7, unit: d" in verdict.sentence
    assert world.judge("freshness", {"maximum_age_days": 1000.0}, world.candidate()).passed


@pytest.mark.parametrize(
    ("promise", "message"),
    [
        ("{property: latency, value: 4, unit: fortnight}", "slaProperties.latency: unit 'fortnight' is unknown"),
        (
            "{property: freshness, value: soon, unit: d}",
            "slaProperties.freshness: value 'soon' is not a number above 0",
        ),
        ("{property: latency, value: 4, unit: d, element: rows.text}", "element 'rows.text' is no date or timestamp"),
    ],
)
def test_a_promise_that_cannot_be_read_is_a_no_in_one_sentence(world, promise, message):
    rows = [f"{label} {n},{label}" for n in range(100) for label in ("ant", "bee", "cat")]
    world.add_dataset("vague", "text,label\n" + "\n".join(rows) + "\n", f"{CONTRACT}slaProperties:\n  - {promise}\n")
    verdict = world.judge("freshness", {}, world.candidate(dataset="vague"))
    assert not verdict.passed and message in verdict.sentence


def test_contamination_counts_test_rows_and_lists_copies_before_near_duplicates(world):
    _, candidate, _ = leaking.example(world, False)
    verdict = world.judge("contamination", {}, candidate)
    assert verdict.observed == 18 / 120
    assert "12 exact copies, 6 near-duplicates" in verdict.sentence
    assert [row["alike"] for row in verdict.details] == ["exact copy"] * 10
    assert world.judge("contamination", {"maximum_share": 18 / 120}, candidate).passed
    assert not world.judge("contamination", {"maximum_share": 17 / 120}, candidate).passed
    strict = world.judge("contamination", {"similarity": 1.0}, candidate)
    assert "12 exact copies, 0 near-duplicates" in strict.sentence


def test_label_issues_finds_the_planted_rows_the_surest_first(world):
    candidate = world.candidate(right=0.8)
    verdict = world.judge("label_issues", {"maximum_share": 0.05}, candidate)
    predictions = world.evidence.evaluation(candidate).predictions().to_pylist()
    wrong = {row["row_id"][:12] for row in predictions if row["label"] != row["prediction"]}
    assert not verdict.passed and verdict.details
    assert {row["test row"] for row in verdict.details} <= wrong
    assert verdict.observed == pytest.approx(0.2, abs=0.03)


def test_gates_show_personal_inputs_as_hashes_only(world):
    pinned = SECRET.replace("{test: 0.2, validation: 0.1}", "{column: part}").replace(
        "      - {name: label,", "      - {name: part, logicalType: string}\n      - {name: label,"
    )
    test = [f"secret {label} lives in house {n},test,{label}" for n in range(50) for label in ("ant", "bee", "cat")]
    rows = [*test, *(row.replace(",test,", ",train,") for row in test), "a,validation,ant"]
    world.add_dataset("secret", "text,part,label\n" + "\n".join(rows) + "\n", pinned)
    candidate = world.candidate(dataset="secret", right=0.7)
    for gate in ("contamination", "label_issues"):
        verdict = world.judge(gate, {}, candidate)
        assert verdict.details and all(row["input"].startswith("#") for row in verdict.details)
        assert "secret" not in json.dumps(verdict.details) and "house" not in verdict.sentence
