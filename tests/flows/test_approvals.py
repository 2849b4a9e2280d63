"""Promotion by approval: whose signature counts, for what, how long; and what no longer holds once a byte changed."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from flows import references
from flows.promotion import decisions as promotion
from flows.promotion import log as promotion_log
from flows.promotion.approvals import Unapproved, Void
from flows.promotion.binding import bind, package_files
from flows.promotion.log import entry_key, load_log
from flows.promotion.signatures import check_model, verified_files
from flows.promotion.verify import verify
from infra import artifacts
from infra.errors import Refused, WrongInput
from infra.settings import child_environment
from tests.flows.reviewers import Case, Court


def test_enough_reviewers_promote_and_the_entry_names_their_approvals(court):
    case, policy = court.case(), court.policy(2)
    with pytest.raises(Unapproved, match="has 1 of 2 approvals"):
        court.promote(case, court.sign(case, "bob"), policy=policy)
    assert court.kinds() == ["approval"]
    done = court.promote(case, court.sign(case, "cy"), policy=policy)
    assert (done.entry.sequence, done.entry.approvals, done.entry.policy["approvals"]) == (3, [1, 2], 2)
    assert done.entry.run_author_key == court.public["ada"]
    assert verify(court.store, "animals", court.world.settings) == []


def test_two_approvals_of_one_reviewer_are_one(court):
    case = court.case()
    with pytest.raises(Unapproved, match=r"has 1 of 2 approvals \(bob\)"):
        court.promote(case, court.sign(case, "bob"), court.sign(case, "bob"), policy=court.policy(2))


def test_the_same_statement_is_stored_once(court):
    case, policy = court.case(), court.policy(2)
    signed = court.sign(case, "bob")
    for _ in range(2):
        with pytest.raises(Unapproved):
            court.promote(case, signed, policy=policy)
    assert court.kinds() == ["approval"]


def days_ago(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="microseconds")


def altered_reason(court: Court, case: Case) -> dict[str, Any]:
    signed = court.sign(case, "bob")
    return {**signed, "statement": {**signed["statement"], "reason": "something else"}}


VOID: dict[str, tuple[Callable[[Court, Case], dict[str, Any]], str]] = {
    "of another version": (lambda court, _: court.sign(court.case(), "bob"), "another version"),
    "of another model": (lambda c, case: c.resign(c.sign(case, "bob"), "bob", name="plants"), "another name"),
    "of another scorecard": (lambda c, case: c.resign(c.sign(case, "bob"), "bob", scorecard="0" * 64), "r scorecard"),
    "of other data": (lambda c, case: c.resign(c.sign(case, "bob"), "bob", manifest="0" * 64), "another manifest"),
    "of another experiment": (lambda c, case: c.resign(c.sign(case, "bob"), "bob", experiment="0"), "r experiment"),
    "of a rollback": (lambda court, case: court.sign(case, "bob", "rollback"), "approves a rollback"),
    "expired": (lambda c, case: c.resign(c.sign(case, "bob"), "bob", time=days_ago(15)), "expired on"),
    "of tomorrow": (lambda c, case: c.resign(c.sign(case, "bob"), "bob", time=days_ago(-1)), "in the future"),
    "by an unlisted key": (lambda court, case: court.sign(case, "eve"), "its key is not of the policy"),
    "by the author": (lambda court, case: court.sign(case, "ada"), "is by the run's own author"),
    "altered": (altered_reason, "the signature is not of what it says"),
    "signed by another": (lambda c, case: c.resign(c.sign(case, "bob"), "eve"), "the signature is not of what it says"),
}


@pytest.mark.parametrize("what", VOID)
def test_an_approval_that_does_not_count_is_refused_in_its_own_sentence_and_not_stored(court, what):
    case, (make, sentence) = court.case(), VOID[what]
    with pytest.raises(Void, match=sentence) as refusal:
        court.promote(case, make(court, case), policy=court.policy(1, ("ada", "bob", "cy")))
    assert refusal.value.exit_code == 3 and "\n" not in str(refusal.value)
    assert court.kinds() == []
    assert len({sentence for _, sentence in VOID.values()}) == len(VOID) - 1, "the last two differ in nothing to see"


def test_an_approval_for_an_overtaken_champion_is_refused(court):
    policy = court.policy()
    late = court.case()
    signed = court.sign(late, "bob")  # compared with no champion
    court.crown(policy)
    with pytest.raises(Refused, match="champion changed: gate again"):
        court.promote(late, signed, policy=policy)
    again = court.score(late.version)
    with pytest.raises(Void, match="another scorecard"):
        court.promote(again, signed)
    # Even with every digest right, the champion it names is no longer there.
    old = court.resign(court.sign(again, "bob"), "bob", compared_with=None)
    with pytest.raises(Void, match="champion changed: gate again"):
        court.promote(again, old)
    assert court.promote(again, court.sign(again, "bob")).created


def test_a_stored_approval_that_expired_meanwhile_counts_no_more(court, monkeypatch):
    case, policy = court.case(), court.policy(2)
    with pytest.raises(Unapproved):
        court.promote(case, court.sign(case, "bob"), policy=policy)

    def at(days: float) -> None:
        clock = SimpleNamespace(now=lambda zone: datetime.now(zone) + timedelta(days=days))
        monkeypatch.setattr(promotion, "datetime", clock)

    late = court.resign(court.sign(case, "cy"), "cy", time=days_ago(-13.99))
    at(13.999)
    assert court.promote(case, late).created
    court.store.delete(entry_key("animals", 3))  # a moment later it would have been too late
    at(14.001)
    with pytest.raises(Unapproved, match="by 'bob': expired on"):
        court.promote(case)


def test_a_rejection_makes_earlier_approvals_void(court):
    case, policy = court.case(), court.policy(2)
    with pytest.raises(Unapproved):
        court.promote(case, court.sign(case, "bob"), policy=policy)
    promotion.reject(court.store, case.version, case.card, author="cy", reason="reads badly")
    with pytest.raises(Unapproved, match=r"has 1 of 2 approvals \(cy\)"):
        court.promote(case, court.sign(case, "cy"))
    assert court.promote(case, court.sign(case, "bob")).created
    assert verify(court.store, "animals") == []


def test_without_reviewers_a_rejected_scorecard_promotes_nothing(court):
    case = court.case()
    promotion.reject(court.store, case.version, case.card, author="bob", reason="reads badly")
    with pytest.raises(Refused, match=r"was rejected on this scorecard by bob \(log entry 1: reads badly\)"):
        court.promote(case)


def flip(court: Court, key: str, at: int = -20) -> None:
    data = bytearray(court.store.get(key))
    data[at] ^= 1
    court.store.put(key, bytes(data))


def dataset_file(court: Court, case: Case, name: str) -> str:
    from data_contracts import registry

    data = registry.resolve(court.store, case.version.dataset)
    return data.key("manifest.json" if name == "manifest" else data.manifest["files"][name]["name"])


def flipped_count(court: Court, case: Case) -> None:
    """A digit of the manifest that no digest in it covers."""
    key = dataset_file(court, case, "manifest")
    text = court.store.get(key)
    at = text.index(b'"rows_in": ') + len(b'"rows_in": ')
    flip(court, key, at)


TAMPERED: dict[str, tuple[Callable[[Court, Case], None], str]] = {
    "model file": (lambda court, case: flip(court, f"models/{case.version.model}/weights"), "models/.* altered"),
    "model manifest": (
        lambda court, case: flip(court, f"models/{case.version.model}/manifest.json"),
        "models/.* altered",
    ),
    "signature": (lambda court, case: flip(court, next(iter(court.store.list("signatures/"))), 500), "author signed"),
    "scorecard": (
        lambda court, case: flip(court, f"scorecards/{case.card}/scorecard.json"),
        "scorecard.json was altered",
    ),
    "page": (lambda court, case: flip(court, f"scorecards/{case.card}/scorecard.html"), "scorecard.html was altered"),
    "contract": (lambda court, case: flip(court, dataset_file(court, case, "contract")), "contract|data .* altered"),
    "manifest": (flipped_count, "another manifest"),
    "log": (lambda court, case: flip(court, entry_key("animals", 1)), "promotion log is not whole.*altered"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_one_byte_flipped_between_approval_and_promotion_is_a_no(court, what):
    case, (tamper, sentence) = court.case(), TAMPERED[what]
    with pytest.raises(Unapproved):
        court.promote(case, court.sign(case, "bob"), policy=court.policy(2))
    signed = court.sign(case, "cy")
    tamper(court, case)
    with pytest.raises(Refused, match=sentence) as refusal:
        court.promote(case, signed)
    assert "\n" not in str(refusal.value)
    assert promotion_log.keys(court.store, "animals") == [entry_key("animals", 1)]


@pytest.mark.parametrize("file", ["data/train", "quarantine"])
def test_rows_altered_under_a_champion_are_found(court, file):
    case = court.crown(court.policy())
    key = dataset_file(court, case, file)
    court.store.put(key, court.store.get(key) + b"x")
    (found,) = {problem.partition(": ")[2] for problem in verify(court.store, "animals", court.world.settings)}
    assert file in found and "altered" in found


@pytest.mark.parametrize("what", TAMPERED)
def test_one_byte_flipped_afterwards_is_found(court, what):
    case = court.crown(court.policy())
    assert verify(court.store, "animals", court.world.settings) == []
    TAMPERED[what][0](court, case)
    found = verify(court.store, "animals", court.world.settings)
    assert found and any("altered" in problem or "author signed" in problem for problem in found)


def test_every_byte_of_the_newest_entry_counts(court):
    court.crown(court.policy())
    key = promotion_log.keys(court.store, "animals")[-1]
    whole = court.store.get(key)
    for at in range(len(whole)):
        court.store.put(key, whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises((Refused, WrongInput)):  # WrongInput: the digit of the format, made a newer one
            promotion_log.read_entry(court.store, key)
    court.store.put(key, whole)
    load_log(court.store, "animals")


def test_the_packaged_files_are_hashed_again(court):
    case = court.case()
    files = package_files(court.world.settings, case.version)
    folder = court.world.folder / "package-1"
    (folder / "code.py").write_text("answer = 43\n")
    assert package_files(court.world.settings, case.version) != files
    (folder / "data" / "package" / "weights").write_text("others")
    with pytest.raises(Refused, match=r"package .* was altered"):
        package_files(court.world.settings, case.version)


def test_an_altered_package_is_found_afterwards(court):
    case = court.case()
    files = package_files(court.world.settings, case.version)
    promotion.promote(court.store, case.version, case.card, author="mel", package_files=files)
    assert verify(court.store, "animals", court.world.settings) == []
    (court.world.folder / "package-1" / "code.py").write_text("answer = 43\n")
    (found,) = verify(court.store, "animals", court.world.settings)
    assert "a file of its package" in found


def test_files_that_the_author_did_not_sign_are_not_loaded(court):
    """Somebody who may write to the store puts other weights in place, and all digests with them."""
    version = court.version()
    assert verified_files(court.store, version) == {}
    mine = court.world.folder / "mine"
    mine.write_text("weights of eve")
    forged = artifacts.commit(court.store, "models", {"weights": mine}, {"files": {}})
    for name in ("weights", "manifest.json"):
        body = court.store.get(f"models/{forged.digest}/{name}")
        court.store.put(f"models/{version.model}/{name}", body.replace(forged.digest.encode(), version.model.encode()))
    with pytest.raises(Refused, match="altered"):
        verified_files(court.store, version)
    (bundle,) = court.store.list(f"signatures/{version.model}/")
    moved = bundle.replace(version.model, forged.digest)
    court.store.put(moved, court.store.get(bundle))
    with pytest.raises(Refused, match="not those its author signed"):
        check_model(court.store, forged.digest, court.public["ada"], "model animals/1")


# Rollback ------------------------------------------------------------------------------------------------------------


def rolled(court: Court, to: str, *names: str) -> promotion.Outcome:
    _, target = promotion.rollback_target(court.store, "animals", to)
    version = references.resolve(court.store, target.ref)
    signed = [court.sign(Case(version, target.scorecard), name, "rollback") for name in names]
    return promotion.rollback(court.store, "animals", to, author="x", reason="slow", statements=signed)


def test_one_reviewer_rolls_back_whatever_number_a_promotion_needs(court):
    policy = court.policy(2)
    court.crown(policy)
    court.crown(policy)
    with pytest.raises(Unapproved, match="0 of 1 approvals for its rollback"):
        rolled(court, "previous")
    with pytest.raises(Void, match="its key is not of the policy"):
        rolled(court, "1", "eve")
    done = rolled(court, "previous", "bob")
    assert (done.entry.kind, done.entry.version) == ("rollback", 1)
    assert promotion_log.champion(court.store, "animals") == done.entry
    assert not rolled(court, "1").created
    assert verify(court.store, "animals") == []


def test_an_approval_of_a_rollback_is_good_for_one(court):
    policy = court.policy(1)
    court.crown(policy)
    court.crown(policy)
    rolled(court, "1", "bob")
    rolled(court, "2", "cy")
    with pytest.raises(Unapproved, match="0 of 1"):
        rolled(court, "1")


def test_rolling_back_needs_an_earlier_champion(court):
    with pytest.raises(Refused, match="nothing to roll back"):
        promotion.rollback(court.store, "animals", "previous", author="x", reason="x")
    court.promote(court.case())
    court.case()
    with pytest.raises(Refused, match="only champion"):
        promotion.rollback(court.store, "animals", "previous", author="x", reason="x")
    with pytest.raises(Refused, match=r"version 2 was never champion \(there were: 1\)"):
        promotion.rollback(court.store, "animals", "2", author="x", reason="x")
    with pytest.raises(WrongInput, match="'previous'"):
        promotion.rollback(court.store, "animals", "before", author="x", reason="x")


def test_what_changed_since_it_was_champion_is_not_put_back(court):
    first = court.crown({})
    court.crown({})
    flip(court, f"models/{first.version.model}/weights")
    with pytest.raises(Refused, match="missing or altered"):
        promotion.rollback(court.store, "animals", "1", author="x", reason="x")


# Format and cost -----------------------------------------------------------------------------------------------------


def test_a_log_of_the_first_format_is_read_and_continued(court):
    case = court.case(key=False)
    bound, _ = bind(court.store, case.version, case.card)
    first = {
        "format": 1, "sequence": 1, "previous": "", "time": "2026-01-01T00:00:00.000000+00:00", "kind": "promotion",
        "name": "animals", "version": 1, "run": bound.run, "model": bound.model, "package": bound.package,
        "dataset": bound.dataset, "contract": bound.contract, "scorecard": case.card, "compared_with": None,
        "policy": "automatic", "author": "mel", "reason": "", "nonce": "0" * 32,
    }  # fmt: skip
    court.store.put(entry_key("animals", 1), json.dumps(first, indent=1, sort_keys=True).encode())
    entry = promotion_log.champion(court.store, "animals")
    assert entry and (entry.version, entry.policy) == (1, {"policy": "automatic"})
    court.crown({})
    assert promotion.rollback(court.store, "animals", "1", author="x", reason="x").entry.sequence == 3
    assert verify(court.store, "animals") == []


def test_cryptography_is_imported_where_approvals_are_used_and_nowhere_else(court):
    court.promote(court.case(key=False))
    case = court.case(key=False)
    code = (
        "import sys\nfrom pathlib import Path\nfrom infra.store import FolderStore\n"
        "from flows import references\nfrom flows.config import load_config\n"
        "from flows.promotion import decisions as promotion, log as promotion_log\n"
        f"store = FolderStore(Path({str(court.world.folder / 'store')!r}))\n"
        f"version = references.resolve(store, {case.version.ref!r})\n"
        f"promotion.promote(store, version, {case.card!r}, author='x')\n"
        "assert promotion_log.champion(store, 'animals').version == 2\n"
        "print([name for name in ('cryptography', 'model_signing', 'mlflow', 'prefect') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=child_environment())
    assert done.stdout.strip() == "[]", done.stderr
