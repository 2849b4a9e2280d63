"""Drift is said when chance cannot explain a change and the change matters, and not otherwise."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data_contracts.contract import Contract
from data_contracts.drift import DriftResult, compare, load_test, not_compared
from data_contracts.profile import profile
from infra.errors import WrongInput

Maker = Callable[..., Contract]
COLUMNS = {"text": "string", "kind": "string"}


@pytest.fixture
def made(contract: Maker) -> Contract:
    return contract(COLUMNS, inputs=["text"], label="kind")


def named(columns: dict[str, Any], salt: int = 0) -> pa.Table:
    """A table with row ids, which are hashes like any row's."""
    rows = len(next(iter(columns.values())))
    ids = [hashlib.sha256(f"{salt} {index}".encode()).hexdigest() for index in range(rows)]
    return pa.table({"row_id": ids, **columns})


def table(lengths: Any, kinds: Any, salt: int = 0) -> pa.Table:
    texts = ["x" * int(length) if length >= 0 else None for length in lengths]
    return named({"text": pa.array(texts, pa.string()), "kind": pa.array(list(kinds), pa.string())}, salt)


def draw(seed: int, rows: int = 2000, shares: Any = (0.5, 0.3, 0.2), scale: float = 60) -> pa.Table:
    random = np.random.default_rng(seed)
    return table(random.exponential(scale, rows), random.choice(["a", "b", "c"], rows, p=shares), seed)


def results(contract: Contract, before: pa.Table, after: pa.Table) -> dict[str, DriftResult]:
    found = compare(profile(before, contract), profile(after, contract), contract)
    return {result.kind: result for result in found}


def test_p_values_of_unchanged_sources_are_as_rare_as_they_say() -> None:
    test = load_test("categories")
    random = np.random.default_rng(0)
    p_values = []
    for _ in range(2000):
        old, new = (random.multinomial(rows, (0.5, 0.3, 0.15, 0.04, 0.01)) for rows in (500, 800))
        counts = [{str(index): int(count) for index, count in enumerate(side)} for side in (old, new)]
        p_values.append(test.compare(*counts)["p_value"])
    # Four standard deviations of a binomial of 2,000 at 0.05.
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.02)


def test_a_shifted_label_mix_is_found_and_named(made: Contract) -> None:
    found = results(made, draw(0), draw(1, shares=(0.3, 0.3, 0.4)))
    assert found["label mix"].drifted and not found["text length"].drifted
    assert "'" in found["label mix"].sentence and "->" in found["label mix"].sentence


def test_longer_texts_are_found(made: Contract) -> None:
    found = results(made, draw(0), draw(1, scale=180))
    assert found["text length"].drifted and not found["label mix"].drifted


def test_missing_values_are_found(made: Contract) -> None:
    before = draw(0)
    lengths = [-1 if index % 4 == 0 else 30 for index in range(2000)]
    found = results(made, before, table(lengths, before.column("kind").to_pylist()))
    assert found["missing values"].drifted


def test_a_change_that_is_certain_and_small_is_no_drift(made: Contract) -> None:
    before, after = draw(0, rows=200_000), draw(1, rows=200_000, shares=(0.52, 0.29, 0.19))
    mix = results(made, before, after)["label mix"]
    assert mix.p_value < 1e-6 and mix.effect < 0.1 and not mix.drifted


def test_a_change_that_is_large_and_may_be_chance_is_no_drift(made: Contract) -> None:
    mix = results(made, table([1] * 4, "aabb"), table([1] * 4, "aaab"))["label mix"]
    assert mix.effect > 0.1 and mix.p_value > 0.05 and not mix.drifted


def test_the_contract_sets_the_thresholds(contract: Maker) -> None:
    before, after = draw(0), draw(1, shares=(0.3, 0.3, 0.4))
    for effect, drifted in ((0.1, True), (0.9, False)):
        policy = {"columns": {"kind": {"effect": effect}}}
        made = contract(COLUMNS, inputs=["text"], label="kind", drift=policy)
        assert results(made, before, after)["label mix"].drifted == drifted


def test_levels_are_corrected_for_the_number_of_columns(made: Contract) -> None:
    alphas = sorted(result.alpha for result in results(made, draw(0), draw(1)).values())
    assert alphas == pytest.approx([0.05 / 3, 0.05 / 2, 0.05])


def test_against_scipy() -> None:
    from scipy.spatial.distance import jensenshannon
    from scipy.stats import chi2_contingency

    old, new = {"a": 120, "b": 80, "c": 40}, {"a": 90, "b": 130, "c": 30}
    outcome = load_test("categories").compare(old, new)
    expected = chi2_contingency([list(old.values()), list(new.values())], correction=False)
    assert outcome["statistic"] == pytest.approx(expected.statistic)
    assert outcome["p_value"] == pytest.approx(expected.pvalue)
    assert outcome["effect"] == pytest.approx(jensenshannon(list(old.values()), list(new.values()), base=2))


def test_one_p_value_that_holds_ends_the_rejecting(made: Contract, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holm: 0.03 is not below 0.05 / 2, so that 0.04 is below 0.05 / 1 no longer counts."""
    planted = iter([0.04, 0.03])
    outcome = {"statistic": 1.0, "effect": 0.9, "sentence": ""}
    categories = load_test("categories")
    monkeypatch.setattr(categories, "compare", lambda *_: {**outcome, "p_value": next(planted)})
    profiles = [profile(draw(seed), made) for seed in (0, 1)]
    for side in profiles:
        side["sample"]["columns"] = {}
    found = compare(profiles[0], profiles[1], made)
    assert [(result.p_value, result.drifted) for result in found] == [(0.03, False), (0.04, False)]


def test_a_column_may_be_ignored_only_said_or_compared_by_another_test(contract: Maker) -> None:
    columns = {"n": "integer", "kind": "string"}
    before = named({"n": [1, 2, 3, 4] * 200, "kind": ["a"] * 800})
    after = named({"n": [9, 8, 7, 4] * 200, "kind": ["b"] * 800}, 1)

    def found(**own: Any) -> dict[str, DriftResult]:
        made = contract(columns, label="kind", drift={"columns": {"n": own}})
        return results(made, before, after)

    assert found()["values"].test == "numbers" and found()["values"].blocks
    assert set(found(ignore=True)) == {"label mix"}
    assert found(block=False)["values"].drifted and not found(block=False)["values"].blocks
    assert found(test="categories")["categories"].test == "categories"
    for own, complaint in (({"test": "number"}, "did you mean .numbers"), ({"block": 1}, "is not true or false")):
        with pytest.raises(WrongInput, match=complaint):
            found(**own)


def test_categories_that_became_too_many_to_count_are_still_compared(made: Contract) -> None:
    before, after = draw(0), table([5] * 2000, [f"kind {index % 300}" for index in range(2000)], 1)
    assert results(made, before, after)["label mix"].drifted


def test_a_profile_of_format_1_is_compared_by_its_counts(made: Contract) -> None:
    old, new = profile(draw(0), made), profile(draw(1, shares=(0.3, 0.3, 0.4), scale=180), made)
    old["sample"] = {"row_ids": [], "columns": {}}
    found = {result.kind: result.drifted for result in compare(old, new, made)}
    assert found == {"label mix": True, "text length": True}


def test_lengths_fall_into_their_bins(made: Contract) -> None:
    bins = profile(table([0, 1, 2, 3, 4, 7, 8, -1], "aaaaaaaa"), made)["columns"]["text"]["length"]["bins"]
    assert bins[:6] == [1, 1, 2, 2, 1, 0] and sum(bins) == 7


def test_a_profile_tells_numbers_and_missing_values(contract: Maker) -> None:
    made = contract({"n": "number", "day": "date", "truth": "boolean"})
    import datetime as dt

    rows = named({"n": pa.array([1.0, 2.0, 3.0, None, float("inf")]),
                  "day": pa.array([dt.date(2024, 1, day + 1) for day in range(5)]),
                  "truth": pa.array([True, False, True, None, True])})  # fmt: skip
    columns = profile(rows, made)["columns"]
    assert columns["n"]["quantiles"]["0.5"] == 2 and columns["n"]["nulls"] == 1 and columns["n"]["infinite"] == 1
    assert (columns["day"]["min"], columns["day"]["max"]) == ("2024-01-01", "2024-01-05")
    assert columns["truth"]["categories"] == {"false": 1, "true": 3}


def test_what_is_not_compared_is_said_with_its_reason(contract: Maker) -> None:
    columns = {"when": "timestamp", "kind": "string", "aside": "string", "known": "string", "new": "string"}
    made = contract(
        columns, inputs=["when", "known", "new"], label="kind", drift={"columns": {"known": {"ignore": True}}}
    )
    texts = pa.array(["a", "b"] * 50)
    values = dict.fromkeys(("kind", "aside", "known", "new"), texts)
    values["when"] = pa.array([datetime(2020, 1, 1, tzinfo=UTC)] * 100, pa.timestamp("us", tz="UTC"))
    old, new = (profile(named(values, salt), made) for salt in (0, 1))
    del old["columns"]["new"]
    assert not_compared(old, new, made) == {
        "when": "no drift test is of a timestamp; only its missing values are counted",
        "aside": "is neither an input nor the label",
        "known": "slipway.drift ignores it",
        "new": "is not in the older version",
    }
    assert {result.column for result in compare(old, new, made)} == {"kind"}
