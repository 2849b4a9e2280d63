"""The promotion log: one champion at a time, bound to its evidence, chained so that a change shows."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from flows import references
from flows.judging.evidence import find_champion
from flows.promotion import decisions as promotion
from flows.promotion import log as promotion_log
from flows.promotion.alias import mirror
from flows.promotion.policy import parse_policy
from flows.promotion.verify import verify
from infra import artifacts, tracking
from infra.errors import Refused, WrongInput
from infra.settings import child_environment


def champion(world: Any) -> promotion.Entry:
    entry = promotion.champion(world.store, "animals")
    assert entry is not None
    return entry


def head(world: Any) -> promotion.Entry:
    entry = promotion.head(world.store, "animals")
    assert entry is not None
    return entry


def test_first_promotion_starts_the_chain(world):
    candidate = world.candidate()
    assert promotion.champion(world.store, "animals") is None
    crowned = world.promote(candidate)
    entry = champion(world)
    assert (entry.sequence, entry.previous, entry.compared_with, entry.version) == (1, "", None, 1)
    assert (entry.model, entry.dataset) == (candidate.model, candidate.dataset)
    assert crowned.evaluation == candidate.evaluation
    assert verify(world.store, "animals") == []


def test_promoting_the_champion_again_on_the_same_scorecard_writes_nothing(world):
    candidate = world.candidate()
    card = world.scorecard(candidate)
    version = references.resolve(world.store, candidate.ref)
    first = promotion.promote(world.store, version, card, author="mel")
    again = promotion.promote(world.store, version, card, author="someone else")
    assert first.created and not again.created
    assert "already" in again.sentence
    assert len(promotion.read_log(world.store, "animals")) == 1


def test_a_scorecard_that_says_no_promotes_nothing(world):
    candidate = world.candidate()
    no = world.judge("threshold", {"minimum": 0.99}, candidate)
    with pytest.raises(Refused, match=r"says no \(threshold\)"):
        promotion.promote(
            world.store, references.resolve(world.store, candidate.ref), world.scorecard(candidate, [no]), author="mel"
        )
    with pytest.raises(Refused, match="no gate was run"):
        promotion.promote(
            world.store, references.resolve(world.store, candidate.ref), world.scorecard(candidate, []), author="mel"
        )
    assert promotion.head(world.store, "animals") is None


def test_a_warning_does_not_stop_a_promotion(world):
    candidate = world.candidate(right=0.8, baseline=0.8)
    warned = world.judge("beats_baseline", {}, candidate)
    assert not warned.passed
    fine = world.judge("threshold", {"minimum": 0.5}, candidate)
    card = world.scorecard(candidate, [fine, warned])
    assert promotion.promote(world.store, references.resolve(world.store, candidate.ref), card, author="mel").created


def test_a_scorecard_of_another_version_is_refused(world):
    first, second = world.candidate(), world.candidate()
    with pytest.raises(Refused, match="about another version"):
        promotion.promote(
            world.store, references.resolve(world.store, second.ref), world.scorecard(first), author="mel"
        )


@pytest.mark.parametrize("field", ["model", "package_digest", "dataset", "contract", "run"])
def test_a_scorecard_whose_digests_are_not_the_versions_is_refused(world, tmp_path, field):
    candidate = world.candidate()
    folder = tmp_path / "scorecard"
    world.scorecard(candidate)
    card = json.loads((folder / "scorecard.json").read_text())
    card["candidate"][field] = "0" * 64
    (folder / "scorecard.json").write_text(json.dumps(card))
    forged = artifacts.commit_folder(world.store, "scorecards", folder).digest
    with pytest.raises(Refused, match=f"another {field}"):
        promotion.promote(world.store, references.resolve(world.store, candidate.ref), forged, author="mel")


@pytest.mark.parametrize("kind", ["scorecards", "models"])
def test_altered_files_are_refused(world, kind):
    candidate = world.candidate()
    card = world.scorecard(candidate)
    key = f"scorecards/{card}/scorecard.html" if kind == "scorecards" else f"models/{candidate.model}/weights"
    world.store.put(key, world.store.get(key) + b" ")
    with pytest.raises(Refused, match="altered"):
        promotion.promote(world.store, references.resolve(world.store, candidate.ref), card, author="mel")


def test_a_missing_scorecard_is_refused(world):
    candidate = world.candidate()
    with pytest.raises(Refused, match="gate again"):
        promotion.promote(world.store, references.resolve(world.store, candidate.ref), "f" * 64, author="mel")


def test_an_overtaken_scorecard_is_refused(world):
    first, second = world.candidate(), world.candidate()
    overtaken = world.scorecard(second)  # compared with no champion
    world.promote(first)
    with pytest.raises(Refused, match="champion changed: gate again"):
        promotion.promote(world.store, references.resolve(world.store, second.ref), overtaken, author="mel")
    assert champion(world).version == 1
    world.promote(second)
    assert champion(world).version == 2


def test_a_rejection_is_recorded_and_leaves_the_champion(world):
    first, second = world.candidate(), world.candidate()
    world.promote(first)
    version, card = references.resolve(world.store, second.ref), world.scorecard(second)
    written = promotion.reject(world.store, version, card, author="mel", reason="reads like the old one")
    again = promotion.reject(world.store, version, card, author="mel", reason="reads like the old one")
    assert written.created and not again.created
    assert champion(world).version == 1
    assert head(world).kind == "rejection"
    assert verify(world.store, "animals") == []
    # What came between was no new champion, so a scorecard compared with entry 1 still holds.
    third = world.candidate()
    card = world.scorecard(third, champion=find_champion(world.store, "animals"))
    outcome = promotion.promote(world.store, references.resolve(world.store, third.ref), card, author="mel")
    assert (outcome.entry.sequence, outcome.entry.compared_with) == (3, 1)


def test_time_never_runs_backwards(world, monkeypatch):
    world.promote(world.candidate())
    first = head(world)
    world.store.put(first.key, replace(first, time="2999-01-01T00:00:00.000000+00:00").to_bytes())
    world.promote(world.candidate())
    assert head(world).time == "2999-01-01T00:00:00.000000+00:00"


def test_racing_rejections_all_get_a_number(world, monkeypatch):
    """A writer that lost its number to an entry that crowns nobody takes the next one."""
    first, second = world.candidate(), world.candidate()
    cards = [world.scorecard(first), world.scorecard(second)]
    versions = [references.resolve(world.store, subject.ref) for subject in (first, second)]
    create = type(world.store).create
    overtaken: list[str] = []

    def overtake(store, key, data):
        if not overtaken and key.startswith("promotions/"):
            overtaken.append(key)
            promotion.reject(store, versions[1], cards[1], author="quick", reason="first")
        return create(store, key, data)

    monkeypatch.setattr(type(world.store), "create", overtake)
    outcome = promotion.promote(world.store, versions[0], cards[0], author="slow")
    assert outcome.entry.sequence == 2
    assert [entry.author for entry in promotion.read_log(world.store, "animals")] == ["quick", "slow"]
    assert verify(world.store, "animals") == []


def test_of_two_that_write_the_same_at_the_same_moment_one_has_written_it(world, monkeypatch):
    candidate = world.candidate()
    version, card = references.resolve(world.store, candidate.ref), world.scorecard(candidate)
    moment = datetime.now(UTC)
    monkeypatch.setattr(promotion_log, "datetime", SimpleNamespace(now=lambda zone: moment))
    create = type(world.store).create
    outcomes: list[promotion.Outcome] = []
    started: list[str] = []

    def overtake(store, key, data):
        if not started and key.startswith("promotions/"):
            started.append(key)
            outcomes.append(promotion.promote(store, version, card, author="mel"))
        return create(store, key, data)

    monkeypatch.setattr(type(world.store), "create", overtake)
    outcomes.append(promotion.promote(world.store, version, card, author="mel"))
    assert [outcome.created for outcome in outcomes] == [True, False]
    assert len(promotion.read_log(world.store, "animals")) == 1


@pytest.fixture
def long_log(world):
    for _ in range(3):
        world.promote(world.candidate())
    assert verify(world.store, "animals") == []
    return world


@pytest.mark.parametrize("sequence", [1, 2])
def test_an_altered_entry_breaks_the_chain(long_log, sequence):
    key = promotion.entry_key("animals", sequence)
    long_log.store.put(key, long_log.store.get(key).replace(b'"author": "mel"', b'"author": "mal"'))
    problems = verify(long_log.store, "animals")
    assert any(promotion.entry_key("animals", sequence + 1) in problem for problem in problems)


def test_an_entry_exchanged_for_another_whole_one_breaks_the_chain(long_log):
    first = promotion_log.read_log(long_log.store, "animals")[0]
    long_log.store.put(first.key, replace(first, reason="another").to_bytes())
    (found,) = verify(long_log.store, "animals")
    assert promotion.entry_key("animals", 2) in found and "does not carry the hash of the entry before it" in found
    with pytest.raises(Refused, match="is not whole"):
        long_log.promote(long_log.candidate())


def test_a_removed_entry_is_found(long_log):
    long_log.store.delete(promotion.entry_key("animals", 2))
    assert verify(long_log.store, "animals")


def test_an_unreadable_entry_is_found(long_log):
    long_log.store.put(promotion.entry_key("animals", 3), b"{torn")
    assert any("cannot be read" in problem for problem in verify(long_log.store, "animals"))


def test_a_lost_scorecard_is_found(long_log):
    entry = head(long_log)
    long_log.store.delete(f"scorecards/{entry.scorecard}/scorecard.json")
    assert any("missing or altered" in problem for problem in verify(long_log.store, "animals"))


def test_alias_follows_the_log_once(world, monkeypatch):
    calls = []
    monkeypatch.setattr(tracking, "set_alias", lambda *arguments: calls.append(arguments[:4]))
    assert not mirror(world.store, world.settings, "animals"), "there is no champion to point at"
    world.promote(world.candidate())
    world.promote(world.candidate())
    assert mirror(world.store, world.settings, "animals")
    assert not mirror(world.store, world.settings, "animals")
    assert calls == [(world.settings, "animals", "2", "champion")]
    # Behind the note's back, the newest entry is exchanged: the chain alone could not tell.
    key = promotion.entry_key("animals", 2)
    world.store.put(key, world.store.get(key).replace(b'"reason": ""', b'"reason": "!"'))
    assert any("not the one the alias was set from" in problem for problem in verify(world.store, "animals"))


def test_alias_is_set_again_when_the_champion_changed_meanwhile(world, monkeypatch):
    calls = []

    def slow(settings, name, version, alias, description, tags):
        calls.append(version)
        if len(calls) == 1:
            world.promote(world.candidate())

    monkeypatch.setattr(tracking, "set_alias", slow)
    world.promote(world.candidate())
    mirror(world.store, world.settings, "animals")
    assert calls == ["1", "2"]


def test_history_is_newest_first_and_marks_the_champion(long_log):
    lines = list(promotion_log.history(long_log.store, "animals"))
    assert [(line["sequence"], line["champion"]) for line in lines] == [(3, True), (2, False), (1, False)]


def test_an_entry_of_a_newer_slipway_is_refused_in_one_line(world):
    world.promote(world.candidate())
    key = promotion.entry_key("animals", 1)
    body = json.loads(world.store.get(key)) | {"format": promotion_log.FORMAT + 1}
    world.store.put(key, json.dumps(body).encode())
    with pytest.raises(WrongInput, match="newer"):
        promotion.champion(world.store, "animals")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"policy": "automatc"}, "did you mean 'automatic'"),
        ({"policy": "approvals"}, "reviewers"),
        ({"polcy": "automatic"}, "did you mean 'policy'"),
        ({"policy": ["automatic"]}, "unknown"),
    ],
)
def test_a_wrong_policy_gets_one_line(section, message):
    with pytest.raises(WrongInput, match=message):
        parse_policy(section, "experiment animals")


def test_asking_who_is_champion_imports_nothing_heavy(world):
    world.promote(world.candidate())
    code = (
        "import sys\nfrom pathlib import Path\nfrom infra.store import FolderStore\n"
        "from flows.promotion import log as promotion_log\n"
        f"store = FolderStore(Path({str(world.folder / 'store')!r}))\n"
        "assert promotion_log.champion(store, 'animals') and list(promotion_log.history(store, 'animals'))\n"
        "heavy = 'torch ray mlflow prefect great_expectations pyarrow pandas numpy sklearn scipy matplotlib'.split()\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=child_environment())
    assert done.stdout.strip() == "[]", done.stderr
