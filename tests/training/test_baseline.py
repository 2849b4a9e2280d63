"""The linear baseline: tuned on validation only, the same every time, never the reason that an evaluation fails."""

import pyarrow as pa
import pytest

from training.baseline import C, fit_baseline

WORDS = {"ant": "small leg soil queen", "bee": "wing honey hive queen", "cat": "fur purr mouse leg"}


def rows(start: int, count: int, **more: list[str]) -> pa.Table:
    labels = [list(WORDS)[i % 3] for i in range(start, start + count)]
    texts = [f"{WORDS[label].split()[(i // 3) % 4]} {WORDS[label].split()[(i // 5) % 4]} {i}" for i, label in
             zip(range(start, start + count), labels, strict=True)]  # fmt: skip
    return pa.table({"text": texts, "label": labels, **more})


def test_it_learns_and_tries_every_c():
    test = rows(900, 120)
    calls = []
    found = fit_baseline(rows(0, 600), rows(600, 300), test, ["text"], "label", lambda *call: calls.append(call))
    right = sum(p == t for p, t in zip(found.predictions, test["label"].to_pylist(), strict=True))
    assert right / 120 > 0.8
    assert [trial["C"] for trial in found.tried] == list(C)
    best = max(trial["validation_accuracy"] for trial in found.tried)
    assert {"C": found.settings["C"], "validation_accuracy": best} in found.tried
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)


@pytest.mark.parametrize(("wanted", "strong"), [("bee", True), ("ant", False)])
def test_c_is_chosen_on_validation_and_not_on_test(wanted, strong):
    """One text that a weak C calls ant and a strong one bee; the test split wants the contrary of the validation's."""
    common = [f"soil leg w{i}" for i in range(200)]
    train = pa.table({"text": [*common, "wing soil", "wing soil"], "label": ["ant"] * 200 + ["bee"] * 2})
    other = {"ant": "bee", "bee": "ant"}[wanted]
    validation = pa.table({"text": ["wing soil"] * 9, "label": [wanted] * 9})
    test = pa.table({"text": ["wing soil"] * 7, "label": [other] * 7})
    found = fit_baseline(train, validation, test, ["text"], "label")
    assert found.predictions == [wanted] * 7
    assert (found.settings["C"] > 1) == strong


def test_the_same_tables_give_the_same_answers():
    tables = rows(0, 300), rows(300, 90), rows(390, 90)
    assert fit_baseline(*tables, ["text"], "label") == fit_baseline(*tables, ["text"], "label")


def test_several_input_columns_all_count():
    def tables(start, count):
        plain = rows(start, count)
        return pa.table({"title": ["the same"] * count, "body": plain["text"], "label": plain["label"]})

    train, validation, test = tables(0, 600), tables(600, 150), tables(750, 150)
    both = fit_baseline(train, validation, test, ["title", "body"], "label").predictions
    one = fit_baseline(train, validation, test, ["title"], "label").predictions
    truth = test["label"].to_pylist()
    assert sum(map(str.__eq__, both, truth)) > 0.8 * 150 > sum(map(str.__eq__, one, truth))


def test_nulls_are_empty_texts():
    train = pa.table({"text": ["leg", None, "honey", "hive", "leg", "soil"], "label": ["a", "a", "b", "b", "a", "a"]})
    found = fit_baseline(train, train, pa.table({"text": [None, "honey"], "label": ["a", "b"]}), ["text"], "label")
    assert len(found.predictions) == 2


@pytest.mark.parametrize(
    "train",
    [
        pa.table({"text": ["one two", "three"], "label": ["a", "a"]}),
        pa.table({"text": ["", "!"], "label": ["a", "b"]}),
    ],
    ids=["one class", "no word"],
)
def test_what_cannot_be_fitted_is_answered_with_the_majority(train):
    found = fit_baseline(train, train, pa.table({"text": ["x", "y", "z"], "label": ["a"] * 3}), ["text"], "label")
    assert found.predictions == ["a"] * 3
    assert found.tried == []


def test_without_a_validation_split_it_still_answers():
    found = fit_baseline(rows(0, 90), rows(0, 0), rows(90, 30), ["text"], "label")
    assert len(found.predictions) == 30
