"""The promotion as a step of a plan, and by the commands: it waits for reviewers and puts nothing back."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from flows import references
from flows.cli import main
from flows.promote import compared_with, promote_step
from flows.promotion import decisions as promotion
from flows.promotion import log as promotion_log
from flows.promotion.log import load_log
from flows.promotion.review import candidates
from flows.promotion.verify import verify
from flows.steps import Step, record
from infra import tracking
from infra.progress import Progress
from infra.settings import Settings
from tests.flows.conftest import World
from tests.flows.reviewers import Case, Court
from training.experiment import Experiment, validate_experiment


@pytest.fixture
def court(court: Court, monkeypatch: pytest.MonkeyPatch) -> Court:
    monkeypatch.setattr(tracking, "set_alias", lambda *arguments: None)
    return court


def experiment(policy: dict[str, Any]) -> Experiment:
    body = {"name": "animals", "recipe": "text_classifier", "dataset": "animals", "training": {"steps": 1}}
    return validate_experiment({**body, "promotion": policy}, "experiment animals")


def outputs(case: Case) -> dict[str, Any]:
    return {
        "train animals": {"version": case.version.version},
        "gate animals": {"scorecard": case.card, "passed": True},
    }


def run(court: Court, policy: dict[str, Any], case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """The step's ingredients after it has run, and its output."""
    step = promote_step(court.world.settings, experiment(policy), ())
    output = step.run(outputs(case), Progress("promote"), "")
    assert step.damage(output) is None
    return step.ingredients(outputs(case)), output


def test_a_step_whose_approvals_are_missing_waits_and_is_stale_when_they_come(court):
    case, policy = court.case(), court.policy()
    before, output = run(court, policy, case)
    assert (output["entry"], output["promoted"]) == (None, False) and "0 of 1 approvals" in output["waits"]
    bound, _ = promotion.bind(court.store, case.version, case.card, packaged(court, case))
    signed = court.resign(court.sign(case, "bob"), "bob", package_files=bound.package_files)
    promotion.store_approval(court.store, "promotion", bound, signed, author="bob",
                             policy=promotion.parse_policy(policy, "x"))  # fmt: skip
    after, output = run(court, policy, case)
    assert before != after
    assert output == {"entry": 2, "promoted": True}
    assert verify(court.store, "animals", court.world.settings) == []


def packaged(court: Court, case: Case) -> str:
    from flows.promotion.binding import package_files

    return package_files(court.world.settings, case.version)


def test_a_champion_promoted_again_on_other_evidence_is_not_gated_for_ever(world: World) -> None:
    candidate = world.candidate()
    version = references.resolve(world.store, candidate.ref)
    asked = compared_with(world.settings, version)
    for number in (1, 2, 3):  # its evaluation was lost, and made again
        world.promote(candidate)
        assert len(load_log(world.store, "animals").entries) == number
        assert compared_with(world.settings, version) == asked


def test_what_was_rolled_back_is_not_put_back_by_a_schedule(court):
    first = court.case(key=False)
    assert run(court, {}, first)[1] == {"entry": 1, "promoted": True}
    second = court.case(key=False)
    assert run(court, {}, second)[1] == {"entry": 2, "promoted": True}
    promotion.rollback(court.store, "animals", "previous", author="mel", reason="slow")
    assert run(court, {}, second)[1] == {"entry": 2, "promoted": True}
    assert [entry.version for entry in promotion_log.read_log(court.store, "animals")] == [1, 2, 1]


def test_a_candidate_that_the_gates_refused_is_recorded_as_rejected(court):
    case = court.case(key=False)
    step = promote_step(court.world.settings, experiment({}), ())
    asked = {**outputs(case), "gate animals": {"scorecard": case.card, "passed": False}}
    assert step.run(asked, Progress("promote"), "") == {"entry": 1, "promoted": False}
    assert promotion_log.read_log(court.store, "animals")[0].kind == "rejection"


# By the commands, without a training: the records that a plan would have left are written by hand ---------------------


@pytest.fixture
def ask(court: Court, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    from dataclasses import asdict

    from flows import models

    body = experiment(court.policy()).model_dump(mode="json", by_alias=True)
    add = models.add_version

    def scored(author: str = "ada", key: bool = True) -> Case:
        monkeypatch.setattr(models, "add_version", lambda store, **fields: add(store, **{**fields, "experiment": body}))
        case = court.case(author, key)
        gate = Step(kind="gate", subject="animals", ingredients=lambda _: {}, run=lambda *_: {}, damage=lambda _: None)
        record(court.store, gate, {"version": case.version.version}, {"scorecard": case.card, "passed": True},
               time.time(), [])  # fmt: skip
        assert asdict(case.version)["experiment"] == body
        return case

    def run(*arguments: str, by: str = "ada", code: int = 0) -> Any:
        monkeypatch.setenv("SLIPWAY_STORE", court.store.uri)
        monkeypatch.setenv("SLIPWAY_WORKSPACE", court.world.settings.workspace)
        monkeypatch.setenv("SLIPWAY_AUTHOR", by)
        monkeypatch.setenv("SLIPWAY_KEYS", str(court.keys))
        monkeypatch.chdir(court.world.folder)
        Settings(workspace=court.world.settings.workspace).create_workspace()
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--json"])
        said = capsys.readouterr()
        assert ended.value.code == code, said.err
        return said.err if code else json.loads(said.out)

    run.scored = scored  # type: ignore[attr-defined]
    return run


def test_a_candidate_that_can_never_be_promoted_says_so_before_anyone_approves_it(ask):
    ask.scored(key=False)
    assert "names no author's key" in ask("review", "animals")[0]["hindrance"]
    assert "train with --fresh" in ask("approve", "animals", "--reason", "fine", by="bob", code=3)
    ask.scored()
    assert [one["hindrance"] for one in ask("review", "animals/2")] == [""]


def test_review_says_why_a_version_is_no_open_candidate(court, ask):
    first = ask.scored()
    ask("approve", "animals", "--reason", "fine", by="bob")
    ask("promote", "animals")
    ask.scored()
    ask("reject", "animals/2", "--reason", "reads badly")
    store, log = court.store, load_log(court.store, "animals")
    found, closed = candidates(Settings(workspace=court.world.settings.workspace, store=store.uri), "animals")
    assert found == [] and log.champion is not None and log.champion.version == first.version.version
    assert closed == {"animals/1": "is the champion", "animals/2": "was rejected: reads badly"}


def test_reviewers_commands_from_candidate_to_rollback(court, ask, tmp_path):
    ask.scored()
    (opened,) = ask("review", "animals")
    assert (opened["model"], opened["against"], opened["approved"]) == ("animals/1", "no champion", [])
    assert "has 0 of 1 approvals" in ask("promote", "animals", code=3)
    assert "its key is not of the policy" in ask("approve", "animals", "--reason", "x", "--key", "eve", code=3)
    assert "holds bob, cy; say which" in ask("approve", "animals", "--reason", "x", code=2)
    assert ask("approve", "animals", "--reason", "fine", by="bob")["reviewer"] == "bob"
    assert ask("review")[0]["approved"] == ["bob"]
    assert ask("promote", "animals")["entry"] == 2
    assert ask("review", "animals") == []

    ask.scored()
    statement = tmp_path / "statement.json"
    statement.write_text(json.dumps(ask("approve", "animals/2", "--reason", "fine", "--key", "cy", "--print")))
    assert len(ask("history", "animals")) == 2, "printed, not stored"
    assert "is no signed statement" in ask("promote", "animals", "--statement", __file__, code=2)
    assert ask("promote", "animals", "--statement", str(statement))["entry"] == 4

    assert ask("rollback", "animals", "--to", "previous", "--reason", "slow", by="bob")["model"] == "animals/1"
    assert ask("champion", "animals")["version"] == 1
    then = ask("history", "animals")[2]["time"]
    assert ask("champion", "animals", "--at", then)["version"] == 2
    assert "had no champion at" in ask("champion", "animals", "--at", "2001-01-01", code=3)
    assert "is no time" in ask("champion", "animals", "--at", "yesterday", code=2)
    assert ask("verify") == [{"model": "animals", "entries": 6, "problems": []}]

    assert "nothing to approve" not in ask("approve", "animals", "--policy", "--reason", "x", "--key", "eve", code=3)
    assert ask("policy", "animals")["in_force"]["reviewers"].keys() == {"bob", "cy"}
    assert "needs a reason" in ask("policy", "animals", "--change", code=2)

    third = ask.scored()
    assert ask("reject", "animals", "--reason", "reads badly")["created"]
    assert ask("review", "animals") == []
    court.store.put(f"models/{third.version.model}/weights", b"others")
    assert "models/" in ask("promote", "animals", code=3)
    court.store.put("promotions/animals/000000000001.json", b"{}")
    assert "is not whole" in ask("reject", "animals", "--reason", "x", code=3)
    assert "is not whole" in ask("verify", "animals", code=3)
    assert "altered" in ask("history", "animals", code=3)


def test_a_private_key_is_its_owners_alone_and_stays_out_of_the_workspace(court, ask):
    ask.scored()
    court.key("bob").chmod(0o644)
    said = ask("approve", "animals", "--reason", "fine", "--key", "bob", code=3)
    assert "others may read or write it (mode 644)" in said and said.count("\n") == 1
    assert promotion_log.keys(court.store, "animals") == []
    made = ask("keygen", "zoe")
    assert (
        Path(made["private"]).stat().st_mode & 0o777 == 0o600
        and made["public"] not in Path(made["private"]).read_text()
    )
    court.keys = court.world.settings.folder / "keys"
    assert "is in the workspace" in ask("keygen", "yan", code=2)
