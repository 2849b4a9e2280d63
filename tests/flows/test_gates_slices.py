"""The slices gate: named slices and found ones, corrected for their number, judged on rows that did not choose them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flows.judging.weak_slices import features, weak_slices
from tests.flows.conftest import CONTRACT
from tests.flows.gate_examples.slices import confused
from training.intervals import holm

SLICED = (
    CONTRACT.replace(
        "      - {name: label, ",
        "      - {name: place, logicalType: string}\n      - {name: age, logicalType: integer}\n      - {name: label, ",
    )
    + """\
  - property: slipway.slices
    value:
      - place
      - {name: the old, condition: {type: comparison, column: {name: age}, operator: ">=", parameter: 90}}
"""
)


@pytest.fixture
def sliced(world: Any) -> Any:
    """3,000 rows; `place` is north, south, or now and then a rare one; `age` is 0 to 99."""
    rows = ["text,place,age,label"]
    for i in range(3000):
        label, place = ("ant", "bee", "cat")[i % 3], f"isle{i % 7}" if i % 100 == 0 else ("north", "south")[i % 2]
        rows.append(f"{label} number {i} sits still,{place},{i * 7 % 100},{label}")
    world.add_dataset("sliced", "\n".join(rows) + "\n", SLICED)
    return world


def wrong_on(world: Any, share: float, **where: Any) -> Any:
    """A model wrong on that share of the test rows whose columns say so, and right on all others."""
    from data_contracts.registry import read_split

    data = read_split(world.store, world.dataset("sliced"), "test")
    rng = np.random.default_rng(0)
    inside = np.ones(data.num_rows, dtype=bool)
    for name, wanted in where.items():
        inside &= np.array([value in wanted for value in data[name].to_pylist()])
    wrong = inside & (rng.random(data.num_rows) < share)

    def plant(table: pa.Table) -> pa.Table:
        labels = table["label"].to_pylist()
        given = ["ant" if label != "ant" else "bee" for label in labels]
        answers = [other if bad else label for label, other, bad in zip(labels, given, wrong, strict=True)]
        return table.set_column(table.column_names.index("prediction"), "prediction", pa.array(answers))

    return world.candidate(dataset="sliced", plant=plant)


@pytest.mark.parametrize(
    ("where", "slice"),
    [({"place": ["north"]}, "place = north"), ({"age": range(90, 100)}, "the old")],
    ids=["by column", "by condition"],
)
def test_a_slice_of_the_contract_that_got_worse_is_named(sliced, where, slice):
    first = sliced.promote(wrong_on(sliced, 0.05))
    worse = wrong_on(sliced, 0.3, **where)
    verdict = sliced.judge("slices", {"find": False}, worse, first)
    assert not verdict.passed and f"'{slice}'" in verdict.sentence
    assert sliced.judge("slices", {"find": False, "margin": 0.5}, worse, first).passed
    assert sliced.judge("slices", {}, wrong_on(sliced, 0.06), first).passed
    names = {row["slice"] for row in verdict.details}
    assert names >= {"place = north", "place = south", "the old"}
    assert not any("isle" in name for name in names), "seven values of four rows each are no slices"


def test_a_named_slice_with_too_few_rows_is_a_no_that_says_the_way_out(sliced):
    first = sliced.promote(wrong_on(sliced, 0.05))
    verdict = sliced.judge("slices", {"minimum_rows": 100}, wrong_on(sliced, 0.05), first)
    assert not verdict.passed
    assert "slice 'the old' has" in verdict.sentence and "gates.slices.minimum_rows" in verdict.sentence


def test_the_weakest_slice_is_found_without_being_named(sliced):
    first = sliced.promote(wrong_on(sliced, 0.05))
    worse = wrong_on(sliced, 0.6, place=["south"], age=range(40))
    verdict = sliced.judge("slices", {}, worse, first)
    found = [row for row in verdict.details if row["slice"].startswith("found: ") and row["verdict"] == "worse"]
    assert found and "place" in found[0]["slice"] and "age" in found[0]["slice"]


def test_the_floor_is_held_on_every_slice_also_without_a_champion(sliced):
    weak = wrong_on(sliced, 0.5, place=["north"])
    assert sliced.judge("slices", {}, weak).passed, "nothing to compare"
    verdict = sliced.judge("slices", {"floor": 0.7}, weak)
    assert not verdict.passed and "below 0.700" in verdict.sentence
    assert verdict.observed < 0.7 == verdict.threshold
    assert sliced.judge("slices", {"floor": 0.3}, weak).passed
    reigning = sliced.promote(weak)
    assert not sliced.judge("slices", {"floor": 0.7}, weak, None).passed, "there is a champion to compare with"
    assert not sliced.judge("slices", {"floor": 0.7}, weak, reigning).passed


def test_without_the_test_rows_there_is_no_yes(sliced):
    first, candidate = sliced.promote(wrong_on(sliced, 0.05)), wrong_on(sliced, 0.05)
    version = sliced.dataset("sliced")
    sliced.store.delete(version.key(version.manifest["files"]["data/test"]["name"]))
    verdict = sliced.judge("slices", {}, candidate, first)
    assert not verdict.passed and "Could not be judged" in verdict.sentence


def test_a_candidate_that_answers_as_the_champion_does_is_worse_on_no_slice(world):
    rows = [f"{label} number {i} sits still,{label}" for i in range(3000) for label in [("ant", "bee", "cat")[i % 3]]]
    world.add_dataset("unsliced", "\n".join(["text,label", *rows]) + "\n", CONTRACT)
    first = world.promote(world.candidate(dataset="unsliced"))
    verdict = world.judge("slices", {}, world.candidate(dataset="unsliced"), first)
    assert verdict.passed and verdict.observed == 0.0 and verdict.evidence
    assert "answers as the champion does" in verdict.sentence


def test_the_rows_that_chose_a_slice_do_not_judge_it():
    rng = np.random.default_rng(0)
    row_ids = [f"{i:064x}" for i in range(2000)]
    noise = rng.normal(size=2000)
    columns = {f"x{i}": rng.normal(size=2000) for i in range(20)}
    slices = weak_slices(row_ids, columns, noise, 30)
    assert 1 <= len(slices) <= 3
    means = [noise[inside].mean() * np.sqrt(inside.sum()) for inside in slices.values()]
    assert min(means) > -3, "pure noise has no slice that is worse on fresh rows"
    judged = np.any(list(slices.values()), axis=0)
    changed = np.where(judged, 100 * rng.normal(size=2000), noise)
    assert weak_slices(row_ids, columns, changed, 30).keys() == slices.keys(), "what judges has no say in the choice"


def test_slices_are_found_by_the_contracts_columns_and_never_by_personal_ones(sliced):
    from data_contracts.contract import parse_contract
    from data_contracts.registry import read_split

    table = read_split(sliced.store, sliced.dataset("sliced"), "test")
    labels = table["label"].to_pylist()
    names = features(table, labels, parse_contract(SLICED, "x")).keys()
    assert {"label = cat", "place = north", "age", "characters of text", "words of text"} <= names
    hidden = parse_contract(SLICED.replace("{name: place,", "{name: place, classification: personal,"), "x")
    assert not any("place" in name for name in features(table, labels, hidden))


def test_holms_correction_equals_the_published_steps():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # R: p.adjust(p, "holm")
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


def test_a_model_that_is_as_good_in_all_and_worse_on_one_class_passes_champion_and_not_slices(world):
    first = world.promote(world.candidate(right=0.9))
    candidate = world.candidate(right=0.9, plant=confused)
    assert world.judge("champion", {"margin": 0.06}, candidate, first).passed
    verdict = world.judge("slices", {}, candidate, first)
    assert not verdict.passed and "label = cat" in verdict.sentence
