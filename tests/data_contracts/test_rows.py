"""A row's id says what the row holds: from any format, in any batch, on any machine."""

import math
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given

from data_contracts.contract import Contract
from data_contracts.rows import RowIds, cast, schema_of

ALL = {
    "text": "string",
    "whole": "integer",
    "small": {"logicalType": "integer", "logicalTypeOptions": {"format": "i8"}},
    "number": "number",
    "single": {"logicalType": "number", "logicalTypeOptions": {"format": "f32"}},
    "truth": "boolean",
    "day": "date",
    "moment": "timestamp",
}
Maker = Callable[..., Contract]


def texts(rows: list[dict[str, Any]], names: list[str]) -> pa.RecordBatch:
    return pa.record_batch([pa.array([row[name] for row in rows], pa.string()) for name in names], names)


strange = st.one_of(
    st.none(),
    st.text(max_size=12),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(repr),
    st.sampled_from(
        ["", " ", "007", " 7 ", "7.0", "7.5", "1e3", "1_000", "0x10", "+5", "-0", "-0.0", "nan", "NaN", "inf", "1e400",
         "1e39", "true", "FALSE", "1", "0", "yes", "2024-02-29", "2023-02-29", "2024-01-01T00:00:00", "128", "-129",
         "2024-01-01 10:00:00+02:00", "2024-01-01T08:00:00Z", "٣", "é", "e\u0301", "1e999999999", "9007199254740993"]
    ),
)  # fmt: skip


@pytest.mark.parametrize("column", list(ALL))
@given(values=st.lists(strange, min_size=1, max_size=6))
def test_a_value_is_cast_the_same_whatever_stands_beside_it(contract: Maker, column: str, values: list[Any]) -> None:
    made = contract({column: ALL[column]})
    rows = [{column: value} for value in values]
    together, faults = cast(texts(rows, [column]), made)
    assert together.schema == schema_of(made)
    for index, row in enumerate(rows):
        alone, alone_faults = cast(texts([row], [column]), made)
        assert alone.to_pylist()[0] == together.to_pylist()[index]
        assert alone_faults.get(0) == faults.get(index)


@given(st.lists(st.fixed_dictionaries({"text": st.sampled_from("abc"), "whole": st.integers(0, 2)}), max_size=30),
       st.integers(1, 30))  # fmt: skip
def test_ids_do_not_depend_on_batches_and_equal_rows_differ(
    contract: Maker, rows: list[dict[str, Any]], size: int
) -> None:
    schema = schema_of(contract({"text": "string", "whole": "integer"}))
    whole = RowIds().of(pa.RecordBatch.from_pylist(rows, schema=schema))
    names = RowIds()
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    assert whole == [name for part in parts for name in names.of(pa.RecordBatch.from_pylist(part, schema=schema))]
    assert len(set(whole)) == len(rows), "each occurrence has an id of its own"


@given(*[st.tuples(st.one_of(st.none(), st.text(max_size=5)), st.one_of(st.none(), st.text(max_size=5)))] * 2)
def test_rows_that_differ_have_different_ids(contract: Maker, one: Any, other: Any) -> None:
    made = contract({"a": "string", "b": "string"}, null=[])
    ids = []
    for row in (one, other):
        batch, _ = cast(pa.record_batch([pa.array([value], pa.string()) for value in row], ["a", "b"]), made)
        ids.append((batch.to_pylist()[0], RowIds().of(batch)[0]))
    assert (ids[0][0] == ids[1][0]) == (ids[0][1] == ids[1][1])


def test_an_id_is_for_ever(contract: Maker) -> None:
    # Golden: `printf 'row5:caf\xc3\xa9,1:7,2:-8,19:4591870180066957722,10:1036831949,4:true,5:19782,16:170409...'`
    # (the moment in microseconds: 1704096000000000) `| sha256sum`, floats by their bits. Corrections and lineage are
    # kept by row id.
    row = {"text": "cafe\u0301", "whole": "007", "small": "-8", "number": "0.1", "single": "0.1", "truth": "true",
           "day": "2024-02-29", "moment": "2024-01-01T10:00:00+02:00"}  # fmt: skip
    batch, faults = cast(texts([row], list(ALL)), contract(ALL))
    assert not faults
    assert RowIds().of(batch) == ["08a61e1e906919b701befa642335eba4fc6e26af567cce525b44548a64da1db1"]


def test_typed_and_text_values_make_the_same_row(contract: Maker) -> None:
    made = contract(ALL)
    import datetime as dt

    typed = pa.RecordBatch.from_pylist(
        [{"text": "a", "whole": 7, "small": 1, "number": 0.1, "single": 0.1, "truth": True, "day": dt.date(2024, 1, 2),
          "moment": dt.datetime(2024, 1, 2, 3, 4, 5)}]
    )  # fmt: skip
    row = {"text": "a", "whole": "007", "small": "1.0", "number": "1e-1", "single": "0.1", "truth": "True",
           "day": "2024-01-02", "moment": "2024-01-02T03:04:05Z"}  # fmt: skip
    casts = [cast(batch, made) for batch in (typed, texts([row], list(ALL)))]
    assert [faults for _, faults in casts] == [{}, {}]
    assert RowIds().of(casts[0][0]) == RowIds().of(casts[1][0])


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("integer", "7.5", "'7.5' is not an integer"),
        ("integer", "1e999999999", "is not an integer"),
        ("integer", "0x10", "'0x10' is not an integer"),
        ("integer", "1_000", "'1_000' is not an integer"),
        ("integer", str(2**63), "is not an integer"),
        ("number", "seven", "'seven' is not a number"),
        ("boolean", "yes", "'yes' is not true or false"),
        ("date", "2023-02-29", "'2023-02-29' is not a date"),
        ("timestamp", "noon", "'noon' is not a timestamp"),
    ],
)
def test_a_value_that_does_not_fit_says_so(contract: Maker, kind: str, value: str, words: str) -> None:
    batch, faults = cast(pa.record_batch([pa.array(["", value])], ["a"]), contract({"a": kind}))
    assert list(faults) == [1] and faults[1][0] == "a" and words in faults[1][1]
    assert batch.column(0).to_pylist() == [None, None]


def test_the_null_rule_is_the_contracts(contract: Maker) -> None:
    batch = pa.record_batch([pa.array(["", "NA", "x", None])], ["a"])
    assert cast(batch, contract({"a": "string"}))[0].column(0).to_pylist() == [None, "NA", "x", None]
    assert cast(batch, contract({"a": "string"}, null=["NA"]))[0].column(0).to_pylist() == ["", None, "x", None]


def test_not_a_number_is_no_value_and_zero_has_no_sign(contract: Maker) -> None:
    batch, faults = cast(pa.record_batch([pa.array([math.nan, -0.0, 0.0])], ["a"]), contract({"a": "number"}))
    assert not faults and batch.column(0).to_pylist() == [None, 0.0, 0.0]
    ids = RowIds().of(batch)
    assert RowIds().of(batch.slice(1, 1)) == RowIds().of(batch.slice(2, 1)) and len(set(ids)) == 3
