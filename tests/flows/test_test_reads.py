"""The test split is read once for a candidate; a second look is in the run's log and on the scorecard."""

import json

from flows import references
from flows.evaluate import count_read
from training.run_log import RunLog, read_state, read_tail


def test_each_look_at_the_test_split_is_an_entry_that_no_reader_of_the_run_stumbles_over(world):
    version = references.resolve(world.store, world.candidate().ref)
    log = RunLog(world.store, version.run)
    log.append("run", experiment={}, key="k", author="mel")
    log.append("attempt", attempt=1, from_step=0)
    log.append("finished", attempt=1, model=version.model, steps=1)
    assert [count_read(world.store, version, "ada") for _ in range(3)] == [1, 2, 3]
    first = list(log.entries())[3]
    assert (first["kind"], first["model"], first["dataset"], first["split"], first["who"]) == (
        "test_read", version.model, version.dataset, "test", "ada",
    )  # fmt: skip
    for state in (read_state(log), read_tail(log)):
        assert (state.status, state.ending["model"]) == ("finished", version.model)


def test_a_retrained_run_begins_anew_with_its_own_model(world):
    one = references.resolve(world.store, world.candidate().ref)
    other = references.resolve(world.store, world.candidate().ref)
    assert count_read(world.store, one, "ada") == 1
    assert count_read(world.store, other, "ada") == 1


def test_a_second_look_stands_on_the_scorecards_first_lines(world):
    for reads in (1, 2):
        digest = world.scorecard(world.candidate(test_reads=reads))
        card = json.loads(world.store.get(f"scorecards/{digest}/scorecard.json"))
        page = world.store.get(f"scorecards/{digest}/scorecard.html").decode()
        said = "evaluated on its test split 2 times"
        assert card["metrics"]["test_reads"] == reads
        assert (said in " ".join(card["notes"])) == (said in page.split('id="gates"')[0]) == (reads == 2)
