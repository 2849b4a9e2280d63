"""Every rule is run once, over whole columns, and a rule that cannot be checked has failed."""

from collections.abc import Callable
from typing import Any

import pytest

from data_contracts.contract import Contract
from data_contracts.quality import expectations
from data_contracts.rows import schema_of
from data_contracts.rules import rules_of
from data_contracts.validation import Findings, _exception, validate
from infra.errors import WrongInput

Maker = Callable[..., Contract]


def run(contract: Contract, rows: list[dict[str, Any]]) -> Findings:
    import pyarrow as pa

    return validate(pa.Table.from_pylist(rows, schema=schema_of(contract)), contract)


def failing(contract: Contract, column: str, values: list[Any]) -> dict[int, list[str]]:
    found = run(contract, [{column: value} for value in values])
    return {row: [rule for rule, _ in reasons] for row, reasons in sorted(found.rows.items())}


def metric(name: str, **rest: Any) -> dict[str, Any]:
    return {"type": "library", "metric": name, **rest}


def expectation(kind: str, severity: str = "error", **kwargs: Any) -> dict[str, Any]:
    implementation = {"type": kind, "kwargs": kwargs}
    return {"type": "custom", "engine": "greatExpectations", "severity": severity, "implementation": implementation}


STRING, INTEGER = {"logicalType": "string"}, {"logicalType": "integer"}
PLANTED = [
    # column, values, the row that breaks it, the rule
    (STRING | {"required": True}, ["a", None, ""], [1], "required"),
    (STRING | {"unique": True}, ["a", "b", "a", None, None], [0, 2], "unique"),
    (INTEGER | {"unique": True}, [2**53, 2**53 + 1, None], [], "unique"),
    (STRING | {"enum": [{"value": "a"}, {"value": "b"}]}, ["a", "c", None], [1], "enum"),
    (INTEGER | {"enum": [{"value": 1}]}, [1, 2, None], [1], "enum"),
    (STRING | {"logicalTypeOptions": {"minLength": 2}}, ["ab", "a", "éé", None], [1], "length"),
    (STRING | {"logicalTypeOptions": {"maxLength": 2}}, ["ab", "abc"], [1], "length"),
    (STRING | {"logicalTypeOptions": {"pattern": "^[a-z]+$"}}, ["ab", "aB", None], [1], "pattern"),
    (STRING | {"logicalTypeOptions": {"pattern": "b"}}, ["abc", "ac"], [1], "pattern"),
    (INTEGER | {"logicalTypeOptions": {"minimum": 1, "maximum": 3}}, [1, 3, 0, 4, None], [2, 3], "range"),
    (INTEGER | {"logicalTypeOptions": {"exclusiveMinimum": 1}}, [1, 2], [0], "range"),
    ({"logicalType": "number", "logicalTypeOptions": {"maximum": 0.5}}, [0.5, 0.51], [1], "range"),
    ({"logicalType": "boolean", "required": True}, [True, None, False], [1], "required"),
]


@pytest.mark.parametrize(("column", "values", "rows", "rule"), PLANTED, ids=[str(entry[0])[:70] for entry in PLANTED])
def test_a_schema_rule_finds_its_rows_and_no_other(
    contract: Maker, column: dict[str, Any], values: list[Any], rows: list[int], rule: str
) -> None:
    assert failing(contract({"x": column}), "x", values) == {row: [f"x:{rule}"] for row in rows}


@pytest.mark.parametrize("kind", ["date", "timestamp"])
def test_bounds_of_times_are_checked(contract: Maker, kind: str) -> None:
    import datetime as dt

    made = contract({"x": {"logicalType": kind, "logicalTypeOptions": {"minimum": "2024-01-01"}}})
    days: list[Any] = [dt.date(2023, 12, 31), dt.date(2024, 1, 1), None]
    if kind == "timestamp":
        days = [day and dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC) for day in days]
    assert failing(made, "x", days) == {0: ["x:range"]}


RULES = [
    # quality rule of column x, values, failing rows, refused
    (metric("nullValues", mustBe=0), [1, None], [1], False),
    (metric("nullValues", mustBeLessThan=60, unit="percent"), [1, None], [], False),
    (metric("nullValues", mustBeLessThan=50, unit="percent"), [1, None], [], True),
    (metric("nullValues", mustBeLessOrEqualTo=1), [1, None, None], [], True),
    (metric("nullValues", mustBeBetween=[1, 2]), [1, None, None], [], False),
    (metric("duplicateValues", mustBe=0), [1, 1, 2], [0, 1], False),
    (metric("invalidValues", mustBe=0, arguments={"validValues": [1, 2]}), [1, 3], [1], False),
    (metric("missingValues", mustBe=0, arguments={"missingValues": [-1]}), [1, -1], [1], False),
    (expectation("expect_column_values_to_be_between", max_value=2), [1, 3], [1], False),
    (expectation("expect_column_values_to_be_between", max_value=2, mostly=0.9), [1, 3], [1], True),
    (expectation("expect_column_values_to_be_between", max_value=2, mostly=0.5), [1, 3], [1], False),
    (expectation("expect_column_mean_to_be_between", max_value=2), [1, 9], [], True),
    (expectation("expect_column_mean_to_be_between", max_value=9), [1, 9], [], False),
]


@pytest.mark.parametrize(("rule", "values", "rows", "refused"), RULES, ids=[str(entry[0])[15:90] for entry in RULES])
def test_a_quality_rule_finds_its_rows_or_refuses(
    contract: Maker, rule: dict[str, Any], values: list[Any], rows: list[int], refused: bool
) -> None:
    found = run(contract({"x": INTEGER | {"quality": [rule]}}), [{"x": value} for value in values])
    assert sorted(found.rows) == rows
    assert bool(found.refusals) == refused


@pytest.mark.parametrize(("count", "refused"), [(3, False), (2, True)])
def test_the_number_of_rows_is_counted(contract: Maker, count: int, refused: bool) -> None:
    made = contract({"x": "integer"}, quality=[metric("rowCount", mustBeGreaterThan=2)])
    assert bool(run(made, [{"x": 1}] * count).refusals) == refused


def test_a_rule_over_two_columns_finds_its_rows(contract: Maker) -> None:
    columns = {"x": "integer", "y": "integer"}
    larger = expectation("expect_column_pair_values_a_to_be_greater_than_b", column_A="x", column_B="y")
    twice = metric("duplicateValues", mustBe=0, arguments={"properties": ["x", "y"]})
    rows = [{"x": 2, "y": 1}, {"x": 1, "y": 2}, {"x": 2, "y": 1}]
    assert sorted(run(contract(columns, quality=[larger]), rows).rows) == [1]
    assert sorted(run(contract(columns, quality=[twice]), rows).rows) == [0, 2]


def test_a_rule_that_could_not_be_checked_has_failed(contract: Maker) -> None:
    made = contract({"x": STRING | {"quality": [expectation("expect_column_values_to_be_between", max_value=2)]}})
    found = run(made, [{"x": "a"}])
    assert "could not be checked" in found.refusals[0] and not found.report["success"]
    warned = expectation("expect_column_mean_to_be_between", severity="warning", max_value=2)
    found = run(contract({"x": STRING | {"quality": [warned]}}), [{"x": "a"}])
    assert not found.refusals and "could not be checked" in found.warnings[0]["reason"]


def test_an_exception_is_seen_in_both_shapes_that_gx_has() -> None:
    raised = {"raised_exception": True, "exception_message": "no such metric"}
    assert _exception(raised) == _exception({"MetricConfigurationID(...)": raised}) == "no such metric"
    assert _exception({"raised_exception": False, "exception_message": None}) is None


def test_a_warning_keeps_the_row_and_says_so(contract: Maker) -> None:
    column = STRING | {"required": True, "customProperties": [{"property": "slipway.severity", "value": "warning"}]}
    found = run(contract({"x": column}), [{"x": "a"}, {"x": None}])
    assert not found.rows and not found.refusals
    assert found.warnings == [
        {"rule": "x:required", "reason": "x:required: 1 of 2 rows: x is null but required", "rows": 1}
    ]


def test_wrong_arguments_of_an_expectation_are_one_line(contract: Maker) -> None:
    made = contract({"x": INTEGER | {"quality": [expectation("expect_column_values_to_be_between", max_valu=2)]}})
    with pytest.raises(WrongInput, match=r"quality of x: expect_column_values_to_be_between: max_valu: extra fields"):
        run(made, [{"x": 1}])
    made = contract(
        {"x": "integer"}, quality=[expectation("expect_column_mean_to_be_between", column="y", max_value=1)]
    )
    with pytest.raises(WrongInput, match="quality: column 'y' is not there; there is: x"):
        run(made, [{"x": 1}])


def test_the_report_is_in_great_expectations_format(contract: Maker) -> None:
    made = contract({"x": INTEGER | {"required": True, "logicalTypeOptions": {"maximum": 3}}})
    report = run(made, [{"x": 1}, {"x": 4}, {"x": None}]).report
    assert report["format"] == 1 and report["success"] is False
    assert report["statistics"] == {
        "evaluated_expectations": 2,
        "successful_expectations": 0,
        "unsuccessful_expectations": 2,
        "success_percent": 0.0,
    }
    first = report["results"][0]
    assert first["expectation_config"]["type"] == "expect_column_values_to_not_be_null"
    assert first["meta"] == {"rule": "x:required", "severity": "error"}
    assert first["result"]["unexpected_count"] == 1 and "unexpected_index_list" not in first["result"]


def test_the_names_of_expectations_are_great_expectations_own() -> None:
    from great_expectations.expectations.registry import list_registered_expectation_implementations

    known = set(list_registered_expectation_implementations())
    assert set(expectations()) <= known
    assert len(expectations()) > 50
    assert "unexpected_rows_expectation" not in expectations(), "it takes a query"


def test_every_rule_has_a_key_of_its_own(contract: Maker) -> None:
    made = contract({"x": INTEGER | {"required": True, "unique": True, "logicalTypeOptions": {"minimum": 1}}})
    keys = [rule.key for rule in rules_of(made)]
    assert len(set(keys)) == len(keys) == 3


def test_a_rule_that_every_row_fails_names_every_row(contract: Maker) -> None:
    # Great Expectations cuts its list of failing values at 200.
    made = contract({"x": INTEGER | {"logicalTypeOptions": {"maximum": 0}}})
    found = run(made, [{"x": 1 + index} for index in range(500)])
    assert sorted(found.rows) == list(range(500))
    assert found.rows[499] == [("x:range", "x: '500' is not at most 0")]
