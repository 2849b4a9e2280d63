"""What a plan says has changed: from A to B, and never what has not."""

import pytest

from flows.code_key import changes
from flows.explanation import explain

NOON = 1_763_726_400_000_000_000
FILES = [["/data/a.csv", 21_034, NOON], ["/data/b.csv", 70, NOON]]


def test_files_that_did_not_move_are_not_named_beside_what_did() -> None:
    before = {"moved": {"files": FILES}}
    assert explain(before, {"moved": {"files": FILES}, "corrections": 1}) == ["corrections: new, 1"]


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ([["/data/a.csv", 21_080, NOON + 5], FILES[1]], "a.csv changed from 21,034 to 21,080 bytes"),
        ([["/data/a.csv", 21_034, NOON + 60 * 10**9], FILES[1]],
         "a.csv changed from 2025-11-21 12:00:00 to 2025-11-21 12:01:00 UTC, 21,034 bytes both"),
        ([*FILES, ["/data/c.csv", 1, NOON]], "c.csv is new"),
        (FILES[1:], "a.csv is gone"),
        (FILES[::-1], "the order of its files changed"),
        ([], "a.csv is gone, b.csv is gone"),
        ([["s3://bucket/a.csv", 1.5]], "s3://bucket/a.csv"),
        ([[f"/data/{n}.csv", 1, NOON] for n in range(6)], "2.csv is new, and 5 more"),
    ],
)  # fmt: skip
def test_files_that_moved_are_named_with_what_became_of_them(after: list, said: str) -> None:
    (line,) = explain({"moved": {"files": FILES}}, {"moved": {"files": after}})
    assert line.startswith("moved.files: ") and said.rpartition("/")[2] in line


def test_what_equals_its_record_has_not_changed_whatever_holds_it() -> None:
    assert explain({"shape": [1, 2], "by": {"1": 2}}, {"shape": (1, 2), "by": {1: 2}}) == []


def test_rows_are_counted() -> None:
    before, after = ({"dataset": {"counts": {"train": n}, "rows": f"{n:064x}"}} for n in (402, 403))
    assert explain(before, after)[0] == "dataset.counts.train: from 402 to 403"


def test_a_body_that_changed_is_told_from_one_that_came_or_went() -> None:
    before, after = {"training.loop": {"f": "1", "g": "1"}}, {"training.loop": {"f": "2", "h": "1"}}
    assert changes(before, after) == ["training/loop.py: f, g (gone), h (new)"]
