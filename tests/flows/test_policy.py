"""The promotion policy: taken from the experiment, kept in the log, changed only as the policy before it allows."""

from dataclasses import replace
from typing import Any

import pytest

from flows.promotion import approvals
from flows.promotion import decisions as promotion
from flows.promotion.approvals import Unapproved, Void
from flows.promotion.binding import bind
from flows.promotion.log import Bound, load_log
from flows.promotion.policy import parse_policy
from flows.promotion.verify import verify
from infra.errors import Refused, WrongInput


def test_nobody_switches_their_reviewers_off(court):
    strict = court.policy(2)
    court.crown(strict)
    case = court.case()
    with pytest.raises(Unapproved, match="0 of 2"):
        court.promote(case, policy={"policy": "automatic"})
    with pytest.raises(Unapproved, match="0 of 2 approvals for its policy"):
        promotion.change_policy(court.store, "animals", parse_policy({}, "x"), author="ada", reason="in a hurry")
    assert load_log(court.store, "animals").policy == parse_policy(strict, "x")


def test_the_reviewers_of_the_policy_before_change_it(court):
    court.crown(court.policy(2))
    new = parse_policy(court.policy(1, ("eve",)), "x")
    log = load_log(court.store, "animals")

    def sign(name: str) -> dict[str, Any]:
        about = approvals.about_policy("animals", new)
        key = court.key(name)
        return approvals.sign("policy", about, log.policy_since, reviewer=name, key=key, reason="eve takes over")

    with pytest.raises(Void, match="its key is not of the policy"):
        promotion.change_policy(court.store, "animals", new, author="x", reason="x", statements=[sign("eve")])
    both = [sign("bob"), sign("cy")]
    done = promotion.change_policy(court.store, "animals", new, author="x", reason="eve takes over", statements=both)
    assert done.created and load_log(court.store, "animals").policy == new
    case = court.case()
    with pytest.raises(Void, match="its key is not of the policy"):
        court.promote(case, court.sign(case, "bob"))
    assert court.promote(case, court.sign(case, "eve")).created
    # The approvals of that change are of no use for the next one.
    back = parse_policy(court.policy(2), "x")
    with pytest.raises(Void):
        promotion.change_policy(court.store, "animals", back, author="x", reason="x", statements=[sign("cy")])
    assert verify(court.store, "animals") == []


def test_reviewers_named_in_the_experiment_are_in_force_at_once_where_the_policy_was_automatic(court):
    court.promote(court.case())
    case = court.case()
    assert promotion.policy_for(court.store, case.version, court.policy()) == parse_policy(court.policy(), "x")
    with pytest.raises(Unapproved, match="0 of 1"):
        court.promote(case, policy=court.policy())
    assert court.kinds() == ["promotion", "policy"]
    assert promotion.policy_for(court.store, case.version, {}) == parse_policy(court.policy(), "x")
    assert court.promote(case, court.sign(case, "bob")).entry.compared_with == 1
    assert verify(court.store, "animals") == []


def test_a_policy_slipped_into_another_entry_is_found(court):
    court.crown(court.policy())
    case = court.case()
    log = load_log(court.store, "animals")
    assert log.champion
    bound, _ = bind(court.store, case.version, case.card)
    forged = log.next("promotion", bound, compared_with=log.champion.sequence, policy={"policy": "automatic"},
                      author="ada", reason="")  # fmt: skip
    court.store.put(forged.key, forged.to_bytes())
    assert any("under another policy" in problem for problem in verify(court.store, "animals"))
    court.store.put(forged.key, replace(forged, policy=log.entries[-1].policy).to_bytes())
    assert any("0 of 1 approvals" in problem for problem in verify(court.store, "animals"))
    changed = log.next("policy", Bound(name="animals"), compared_with=1, policy={"policy": "automatic"}, author="ada",
                       reason="")  # fmt: skip
    court.store.put(forged.key, changed.to_bytes())
    assert any("approvals for its policy" in problem for problem in verify(court.store, "animals"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"approvals": 0}, "approvals: found 0"),
        ({"approvals": True}, "approvals: found True"),
        ({"approvals": 3}, "3 are asked of 2 reviewers"),
        ({"reviewers": {}}, "reviewers: found {}"),
        ({"reviewers": ["bob"]}, "reviewers: found"),
        ({"reviewers": {"bob": "nonsense"}}, r"reviewers.bob: is not a public key"),
        ({"expires_days": 0}, "expires_days: found 0"),
        ({"expires_days": "soon"}, "expires_days: found 'soon'"),
        ({"expire_days": 3}, "did you mean 'expires_days'"),
    ],
)
def test_a_wrong_policy_gets_one_line(court, change, message):
    with pytest.raises(WrongInput, match=message) as said:
        parse_policy(court.policy() | change, "experiment animals")
    assert "\n" not in str(said.value)


def test_one_key_is_one_reviewer(court):
    twice = {"bob": court.public["bob"], "robert": court.public["bob"]}
    with pytest.raises(WrongInput, match="has the key of bob"):
        parse_policy(court.policy() | {"reviewers": twice}, "experiment animals")


def test_a_policy_that_nobody_can_satisfy_is_refused(court):
    case = court.case()
    with pytest.raises(Refused, match="nobody can satisfy"):
        court.promote(case, policy=court.policy(1, ("ada",)))
    with pytest.raises(Refused, match="2 approvals, and of the reviewers"):
        court.promote(case, policy=court.policy(2, ("ada", "bob")))


def test_a_run_without_an_authors_key_is_refused_under_approvals_alone(court):
    case = court.case(key=False)
    with pytest.raises(Refused, match="names no author's key"):
        court.promote(case, policy=court.policy())
    assert court.promote(case).created


def test_an_author_with_a_second_key_is_still_the_author(court):
    case = court.case()
    second = court.policy(1) | {"reviewers": {"ada": court.public["eve"], "bob": court.public["bob"]}}
    with pytest.raises(Void, match="is by the run's own author"):
        court.promote(case, court.sign(case, "eve"), policy=second)
