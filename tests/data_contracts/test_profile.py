"""A profile says what a version holds, keeps a fixed sample of it, and tells nothing of a personal column."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data_contracts.contract import Contract
from data_contracts.drift import compare
from data_contracts.profile import profile
from data_contracts.row_sample import ROWS
from data_contracts.vocabulary import vocabulary

Maker = Callable[..., Contract]


def ids(rows: int, salt: str = "") -> list[str]:
    return [hashlib.sha256(f"{salt}{index}".encode()).hexdigest() for index in range(rows)]


def test_the_sample_is_the_rows_with_the_smallest_ids_whatever_their_order(contract: Maker) -> None:
    made = contract({"n": "integer"})
    rows = pa.table({"row_id": ids(5000), "n": list(range(5000))})
    sample = profile(rows, made)["sample"]
    chosen = sorted(zip(rows["row_id"].to_pylist(), range(5000), strict=True))[:ROWS]
    assert sample["columns"]["n"] == [index for _, index in chosen]
    assert sample["row_ids"] == [row_id[:16] for row_id, _ in chosen]
    shuffled = rows.take(np.random.default_rng(0).permutation(5000))
    assert profile(shuffled, made) == profile(rows, made)


def test_a_version_with_some_more_rows_keeps_nearly_the_same_sample(contract: Maker) -> None:
    made = contract({"n": "integer"})
    before, after = (
        set(profile(pa.table({"row_id": ids(rows), "n": list(range(rows))}), made)["sample"]["row_ids"])
        for rows in (5000, 5500)
    )
    assert len(before & after) / ROWS == pytest.approx(5000 / 5500, abs=0.03)


@pytest.mark.parametrize("mark", ["PII", "personal data", "Restricted"])
def test_a_personal_column_is_told_by_hashes_alone(contract: Maker, mark: str) -> None:
    def made(name: str) -> Contract:
        columns = {"sex": {"logicalType": "string", "classification": mark}, "note": "string",
                   "income": {"logicalType": "number", "classification": mark},
                   "place": {"logicalType": "string", "classification": "public"}}  # fmt: skip
        return contract(columns, id=name)

    def table(salt: str, sexes: list[str]) -> pa.Table:
        incomes = [31415.0 + index for index in range(1000)]
        columns = {"sex": sexes * 500, "note": ["fine"] * 1000, "income": incomes, "place": ["Rome"] * 1000}
        return pa.table({"row_id": ids(1000, salt), **columns})

    first = profile(table("a", ["female", "male"]), made("people"))
    told = json.dumps(first)
    assert "male" not in told and "31415" not in told and "Rome" in told
    assert list(first["columns"]["sex"]["categories"].values()) == [500, 500]
    other = profile(table("a", ["female", "male"]), made("others"))
    assert not set(first["columns"]["sex"]["categories"]) & set(other["columns"]["sex"]["categories"])
    second = profile(table("b", ["female", "female"]), made("people"))
    found = {result.column: result for result in compare(first, second, made("people"))}
    assert found["sex"].drifted and "male" not in found["sex"].sentence


def test_vocabulary_counts_words() -> None:
    texts = ["The cat, the dog.", "a CAT's life", None, "", "x" * 500]
    found = vocabulary(pa.chunked_array([texts[:2], texts[2:]], pa.string()))
    assert found == {
        "words": 7, "distinct": 6,
        "common": {"the": 2, "a": 1, "cat": 1, "cat's": 1, "dog": 1, "life": 1},
    }  # fmt: skip


def test_vocabulary_of_many_words_is_bounded_and_near_the_truth() -> None:
    words = np.minimum(np.random.default_rng(0).zipf(1.2, (60_000, 5)), 10**6)
    truth = Counter(words.ravel().tolist())
    found = vocabulary(pa.chunked_array([[" ".join(f"w{word}" for word in row) for row in words]]))
    assert found["words"] == 300_000
    assert found["distinct"] == pytest.approx(len(truth), rel=0.1)  # three standard errors
    for word, count in truth.most_common(20):
        assert found["common"][f"w{word}"] == count
    assert len(found["common"]) == 100


def test_images_are_told_by_size_and_brightness_and_their_drift_is_found(contract: Maker) -> None:
    made = contract({"picture": {"logicalType": "string",
                                 "customProperties": [{"property": "slipway.type", "value": "image"}]},
                     "kind": "string"}, label="kind")  # fmt: skip

    def table(seed: int, darker: int) -> pa.Table:
        random = np.random.default_rng(seed)
        pictures = [(random.integers(60, 200, (6, 5, 3)) - darker).astype(np.uint8).tobytes() for _ in range(300)]
        shape: dict[str, Any] = {"width": pa.array([5] * 300, pa.int32()), "height": pa.array([6] * 300, pa.int32())}
        columns = {f"picture_{name}": values for name, values in (shape | {"mode": ["RGB"] * 300}).items()}
        columns |= {"picture": pa.array(pictures, pa.large_binary()), "kind": ["a"] * 300}
        return pa.table({"row_id": ids(300, str(seed)), **columns})

    first, second, dark = (profile(table(seed, darker), made) for seed, darker in ((0, 0), (1, 0), (2, 30)))
    assert first["columns"]["picture"]["brightness"]["0.5"] == pytest.approx(130, abs=5)
    assert first["columns"]["picture_width"]["quantiles"]["0.5"] == 5
    assert first["columns"]["picture_mode"]["categories"] == {"RGB": 300}
    steady = compare(first, second, made)
    assert {result.column for result in steady} == {
        "picture", "picture_width", "picture_height", "picture_mode", "kind"
    }  # fmt: skip
    assert not any(result.drifted for result in steady)
    assert [result.column for result in compare(first, dark, made) if result.drifted] == ["picture"]


def test_every_type_has_a_profile_that_json_can_hold(contract: Maker) -> None:
    import datetime as dt

    made = contract({"n": "number", "day": "date", "time": "timestamp", "truth": "boolean", "word": "string"})
    moment = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    columns = {
        "n": pa.array([1.0, float("inf"), None]),
        "day": pa.array([dt.date(2024, 1, 1), None, dt.date(2024, 1, 2)]),
        "time": pa.array([moment, None, moment], pa.timestamp("us", tz="UTC")),
        "truth": pa.array([True, None, False]),
        "word": pa.array(["x" * 5000, None, ""]),
    }
    found = profile(pa.table({"row_id": ids(3), **columns}), made)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert sum(value is None for value in found["sample"]["columns"]["n"]) == 2
    assert max(len(value or "") for value in found["sample"]["columns"]["word"]) == 500
    holes = {name: pa.nulls(3, values.type) for name, values in columns.items()}
    nothing = profile(pa.table({"row_id": ids(3), **holes}), made)
    assert nothing["columns"]["n"]["quantiles"] == {}
    assert not any(result.drifted for result in compare(nothing, nothing, made))
