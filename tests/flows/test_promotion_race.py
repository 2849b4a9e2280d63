"""Races for the champion, between processes."""

from flows.proofs.promotion import OVERTAKEN, race


def test_of_processes_that_promote_at_once_one_wins_and_the_others_are_told_to_gate_again(tmp_path):
    found = race(str(tmp_path / "store"), 8, lambda note: None)
    assert found["held"], found
    assert found["exit_codes"] == {"0": 1, "3": 7}, OVERTAKEN
    assert (found["champions_seen"], found["problems"]) == ([1, 2], [])
