"""A rule's condition picks rows, and nothing that a contract says is evaluated as code."""

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from data_contracts.audit import audit
from data_contracts.conditions import check_condition, columns_of, rows_meeting
from data_contracts.contract import Contract
from data_contracts.registry import read_split, register
from data_contracts.rows import schema_of
from data_contracts.validation import validate
from infra.errors import WrongInput
from infra.store import FolderStore

Maker = Callable[..., Contract]


def compare(name: str, operator: str, parameter: Any) -> dict[str, Any]:
    return {"type": "comparison", "column": {"name": name}, "operator": operator, "parameter": parameter}


def null(name: str, is_null: bool = True) -> dict[str, Any]:
    return {"type": "nullity", "column": {"name": name}, "is_null": is_null}


TABLE = pa.table(
    {
        "age": pa.array([1, 18, None, 70]),
        "name": pa.array(["Ann", None, "`x` == @os", "Ann"]),
        "share": pa.array([0.5, None, 0.25, 1.0], pa.float32()),
        "born": pa.array([dt.datetime(2000, 1, 1, tzinfo=dt.UTC), None, None, dt.datetime(2001, 1, 1, tzinfo=dt.UTC)]),
        "active": pa.array([True, False, None, True]),
    }
)
MET: list[tuple[dict[str, Any], list[int]]] = [
    (compare("age", "==", 18), [1]),
    (compare("age", "!=", 18), [0, 3]),
    (compare("age", "<", 18), [0]),
    (compare("age", "<=", 18), [0, 1]),
    (compare("age", ">", 18), [3]),
    (compare("age", ">=", 18), [1, 3]),
    (compare("age", "IN", [1, 70]), [0, 3]),
    (compare("age", "NOT_IN", [1, 18]), [3]),
    (compare("name", "==", "`x` == @os"), [2]),
    (compare("name", "!=", "Ann"), [2]),
    (compare("share", "==", 0.25), [2]),
    (compare("born", ">", "2000-06-01"), [3]),
    (compare("active", "==", True), [0, 3]),
    (null("age"), [2]),
    (null("age", is_null=False), [0, 1, 3]),
    ({"type": "and", "conditions": [compare("name", "==", "Ann"), compare("age", ">", 1)]}, [3]),
    ({"type": "or", "conditions": [null("age"), null("name"), compare("age", "==", 70)]}, [1, 2, 3]),
]


@pytest.mark.parametrize(("condition", "rows"), MET, ids=[str(condition)[:80] for condition, _ in MET])
def test_a_condition_picks_its_rows_and_a_null_meets_no_comparison(condition: dict[str, Any], rows: list[int]) -> None:
    check_condition(condition, "row_condition")
    met = rows_meeting(condition, TABLE, "row_condition").to_pylist()
    assert [row for row, is_met in enumerate(met) if is_met is True] == rows
    assert None not in met and columns_of(condition) <= set(TABLE.column_names)


WRONG: list[tuple[Any, str]] = [
    ("age > 18", "is text that would be run as code; write"),
    ({"type": "pass_through", "pass_through_filter": "age > 18"}, "type: 'pass_through' is not taken"),
    ({"type": "comparison", "column": "age", "operator": "==", "parameter": 1}, "column: 'age' names no column"),
    (compare("age", "=", 1), "operator: '=' is unknown"),
    (compare("age", "IN", 1), "parameter: 1 is not a list of values"),
    (compare("age", "==", None), "parameter: None is not one value"),
    (null("age") | {"isnull": 1}, "unknown key 'isnull'; did you mean 'is_null'?"),
    ({"type": "and", "conditions": []}, "conditions is not a list of conditions"),
    ({"type": "or", "conditions": [null("age"), "age"]}, r"conditions\[1\] 'age' is text"),
]


@pytest.mark.parametrize(("condition", "words"), WRONG, ids=[words[:30] for _, words in WRONG])
def test_another_form_is_refused_in_one_line(condition: Any, words: str) -> None:
    with pytest.raises(WrongInput, match=words) as caught:
        check_condition(condition, "row_condition")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("parameter", ["x", 1.5, True])
def test_a_parameter_of_another_type_is_refused(parameter: Any) -> None:
    with pytest.raises(WrongInput, match=r"is no value of column 'age' \(int64\)"):
        rows_meeting(compare("age", "==", parameter), TABLE, "row_condition")


def ruled(contract: Maker, condition: Any, **kwargs: Any) -> Contract:
    body = {
        "type": "expect_column_values_to_be_between",
        "kwargs": {"min_value": 5, "row_condition": condition, **kwargs},
    }
    rule = {"type": "custom", "engine": "greatExpectations", "implementation": body}
    return contract({"x": {"logicalType": "integer", "quality": [rule]}, "kind": "string"})


def rows_of(contract: Contract) -> pa.Table:
    rows = [{"x": 1, "kind": "a"}, {"x": 2, "kind": "b"}, {"x": 9, "kind": "b"}, {"x": 3, "kind": None}]
    return pa.Table.from_pylist(rows, schema=schema_of(contract))


def test_a_rule_judges_the_rows_that_meet_its_condition_alone(contract: Maker) -> None:
    made = ruled(contract, compare("kind", "==", "b"))
    found = validate(rows_of(made), made)
    assert sorted(found.rows) == [1] and not found.refusals
    (result,) = found.report["results"]
    assert result["meta"]["row_condition"]["parameter"] == "b" and result["result"]["element_count"] == 2
    share = ruled(contract, compare("kind", "==", "b"), mostly=0.6)
    assert "1 of 2 rows" in validate(rows_of(share), share).refusals[0]


def test_a_condition_that_no_row_meets_fails_none(contract: Maker) -> None:
    made = ruled(contract, compare("kind", "==", "c"))
    found = validate(rows_of(made), made)
    assert not found.rows and not found.refusals and not found.warnings


def test_a_condition_of_an_unknown_column_is_refused(contract: Maker) -> None:
    made = ruled(contract, compare("kin", "==", "c"))
    with pytest.raises(WrongInput, match="column 'kin' is not there; did you mean 'kind'"):
        validate(rows_of(made), made)


def test_code_in_a_contract_is_refused_and_does_not_run(contract: Maker, tmp_path: Path) -> None:
    code = f"@__import__('os').mkdir('{tmp_path}/ran')"
    for condition in (code, {"type": "pass_through", "pass_through_filter": code}):
        with pytest.raises(WrongInput, match=r"kwargs\.row_condition"):
            ruled(contract, condition)
    made = ruled(contract, compare("kind", "==", code))
    validate(rows_of(made), made)
    assert not (tmp_path / "ran").exists()


def made_of(condition: Any, **more: Any) -> dict[str, Any]:
    made = {"property": "slipway.condition", "value": condition}
    return {"cnt": "integer", "busy": {"logicalType": "boolean", "customProperties": [made], **more}}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_column_made_of_a_condition_is_in_no_source_and_in_every_version(
    suffix: str, contract: Maker, tmp_path: Path
) -> None:
    rows = [{"cnt": count} for count in (1, 200, None, 110, 109)]
    path = tmp_path / f"rows.{suffix}"
    if suffix == "csv":
        path.write_text("cnt,x\n1,\n200,\n,\n110,\n109,\nmany,\n")
    elif suffix == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + '\n{"cnt": "many"}\n')
    else:
        parquet.write_table(pa.table({"cnt": ["1", "200", None, "110", "109", "many"]}), path)
    store = FolderStore(tmp_path / "store")
    # As many rows as there are leave no room for splits: all train.
    made = contract(
        made_of(compare("cnt", ">", 109), required=True), path=str(path), format=suffix,
        split={"test": 0, "validation": 0}, label="busy", quarantine={"limit": 1},
    )  # fmt: skip
    version, _ = register(store, made, cache=tmp_path / "cache")
    assert version.counts["quarantined"] == 1 and all(check.passed for check in audit(store, version))
    found = read_split(store, version, "train").to_pylist()
    assert [(row["cnt"], row["busy"]) for row in found] == [
        (1, False), (200, True), (None, False), (110, True), (109, False)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (made_of(compare("cnt", ">", 1), logicalType="integer"), "is what a column of logicalType: boolean is made of"),
        (made_of(compare("cnt", ">", 1), physicalName="BUSY"), "no source holds under any physicalName"),
        (made_of(compare("count", ">", 1)), r"busy\.slipway\.condition: column 'count' is not in the schema.*'cnt'"),
        (made_of(compare("busy", "==", True)), "asks column 'busy', which is made of a condition itself"),
        (made_of({"type": "comparison", "column": {"name": "cnt"}}), "slipway.condition: '(operator|parameter)'"),
    ],
    ids=["no boolean", "named in the data", "unknown column", "of itself", "incomplete"],
)
def test_a_condition_that_makes_no_column_is_one_line(columns: Any, message: str, contract: Maker) -> None:
    with pytest.raises(WrongInput, match=message):
        contract(columns)
