"""Going on with a given run: what differs is named, changed code needs a person's word."""

import copy
from pathlib import Path
from typing import Any

import pytest

from flows.resume import Going, check_resume
from infra.errors import Refused, WrongInput
from infra.store import FolderStore, Store
from training.run_log import RunLog, read_state

RUN = "reviews-0123456789ab-1"
BEGUN: dict[str, Any] = {
    "prepared": "a" * 64,
    "training": {"learning_rate": 0.001, "seed": 0},
    "code": {"training.loop": {"train": "1111", "validate": "2222"}},
    "libraries": {"torch": "2.13.0"},
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = FolderStore(tmp_path)
    RunLog(store, RUN).append("run", experiment={"name": "reviews"}, key="k1", ingredients=BEGUN)
    return store


def changed(section: str, **values: Any) -> dict[str, Any]:
    ingredients = copy.deepcopy(BEGUN)
    ingredients[section] |= values
    return ingredients


NEW_CODE = changed("code", **{"training.loop": {"train": "9999", "validate": "2222"}})


def test_what_a_run_was_begun_with_may_go_on(store: Store) -> None:
    check_resume(store, Going(run=RUN), "reviews", "k1", BEGUN)


def test_settings_that_differ_are_named_and_cannot_be_accepted(store: Store) -> None:
    for accepted in ("", "it is only faster"):
        with pytest.raises(WrongInput, match="--set") as said:
            check_resume(
                store, Going(run=RUN, accepted=accepted), "reviews", "k2", changed("training", learning_rate=0.01)
            )
        assert "training.learning_rate: from 0.001 to 0.01" in str(said.value)
        assert "loop" not in str(said.value)


def test_changed_code_is_named_and_goes_on_by_a_persons_word_that_is_recorded(store: Store) -> None:
    with pytest.raises(Refused, match=r"training/loop.py: train[;)]"):
        check_resume(store, Going(run=RUN), "reviews", "k2", NEW_CODE)
    going = Going(run=RUN, accepted="a message was reworded")
    for _ in range(2):  # the second time nothing is left to accept
        check_resume(store, going, "reviews", "k2", NEW_CODE)
    (entry,) = read_state(RunLog(store, RUN)).accepted
    assert (entry["why"], entry["what"]) == ("a message was reworded", ["training/loop.py: train"])
    with pytest.raises(Refused, match="train"):  # what was accepted is what it is held against now
        check_resume(store, Going(run=RUN), "reviews", "k1", BEGUN)


def test_settings_beside_changed_code_are_not_let_through_with_it(store: Store) -> None:
    both = {**NEW_CODE, "training": {"learning_rate": 0.001, "seed": 1}}
    with pytest.raises(WrongInput, match=r"training\.seed: from 0 to 1"):
        check_resume(store, Going(run=RUN, accepted="why not"), "reviews", "k3", both)


def test_another_experiments_an_unknown_and_a_finished_run_are_refused(store: Store) -> None:
    with pytest.raises(WrongInput, match="of experiment 'reviews', not of 'letters'"):
        check_resume(store, Going(run=RUN), "letters", "k1", BEGUN)
    with pytest.raises(WrongInput, match=f"did you mean '{RUN}'"):
        check_resume(store, Going(run=RUN[:-3]), "reviews", "k1", BEGUN)
    log = RunLog(store, RUN)
    log.append("attempt", 1, from_step=0)
    log.append("finished", 1, model="m", steps=1)
    with pytest.raises(WrongInput, match="is finished; --fresh"):
        check_resume(store, Going(run=RUN), "reviews", "k1", BEGUN)
