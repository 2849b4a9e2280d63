"""The rules of a contract: what its schema says of each column, its budgets of text, and its quality rules.

A rule is one expectation of Great Expectations with its arguments; `validation` runs it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_contracts.budgets import OVER_LANGUAGE, OVER_LENGTH
from data_contracts.conditions import columns_of
from data_contracts.language import LANGUAGES
from infra.errors import WrongInput, choices

if TYPE_CHECKING:
    from data_contracts.contract import Column, Contract


@dataclass(frozen=True, kw_only=True)
class Rule:
    field: str
    """Column, or "table"."""
    name: str
    expectation: str
    kwargs: dict[str, Any]
    severity: str
    sentence: str
    """What a row that fails does wrong: "is null but required"."""
    tolerance: tuple[str, Any, str] | None = None
    """(operator, bound, unit) of an ODCS metric that allows some failing rows."""
    measure: str = ""
    """What of a value is judged, of `lists.MEASURES` or `budgets.MEASURES`; empty: the value itself."""
    version: bool = False
    """Whether it judges the version as a whole, and never a row of it."""
    condition: dict[str, Any] | None = None
    """Which rows it is about, as `conditions` has it; None: all."""

    @property
    def key(self) -> str:
        return f"{self.field}:{self.name}"


def rules_of(contract: "Contract") -> list[Rule]:
    """Every rule of a contract: what its schema says of each column, then its quality rules."""
    rules = [rule for column in contract.columns for rule in [*_schema_rules(column), *_budget_rules(column)]]
    for column in contract.columns:
        rules += [_quality_rule(rule, column.name) for rule in column.quality]
    rules += [_quality_rule(rule, None) for rule in contract.quality]
    return rules


def _schema_rules(column: "Column") -> list[Rule]:
    found = []

    def add(name: str, expectation: str, sentence: str, measure: str = "", **kwargs: Any) -> None:
        kwargs["column"] = column.name
        found.append(
            Rule(
                field=column.name,
                name=name,
                expectation=expectation,
                kwargs=kwargs,
                severity=column.severity,
                sentence=sentence,
                measure=measure,
            )
        )

    options = column.options
    if column.required:
        add("required", "expect_column_values_to_not_be_null", "is null but required")
    if column.unique:
        add("unique", "expect_column_values_to_be_unique", "is there more than once but unique")
    if column.enum:
        shown = ", ".join(str(value) for value in column.enum[:8]) + (" ..." if len(column.enum) > 8 else "")
        add("enum", "expect_column_values_to_be_in_set", f"is none of {shown}", value_set=list(column.enum))
    low, high = options.get("minItems"), options.get("maxItems")
    between = "expect_column_values_to_be_between"
    if low is not None or high is not None:
        add("items", between, f"has not {_between(low, high)} items", "items", min_value=low, max_value=high)
    if options.get("uniqueItems"):
        add("unique-items", between, "holds an item more than once", "repeated items", max_value=0)
    low, high = options.get("minLength"), options.get("maxLength")
    if low is not None or high is not None:
        add(
            "length",
            "expect_column_value_lengths_to_be_between",
            f"has not {_between(low, high)} characters",
            min_value=low,
            max_value=high,
        )
    if "pattern" in options:
        # ODCS patterns are JSON schema's: they may match anywhere; GX matches at the start.
        add(
            "pattern",
            "expect_column_values_to_match_regex",
            f"does not match {options['pattern']}",
            regex=options["pattern"],
        )
    low = options.get("minimum", options.get("exclusiveMinimum"))
    high = options.get("maximum", options.get("exclusiveMaximum"))
    if low is not None or high is not None:
        add(
            "range",
            "expect_column_values_to_be_between",
            f"is not {_between(low, high)}",
            min_value=_bound(low, column),
            max_value=_bound(high, column),
            strict_min="exclusiveMinimum" in options,
            strict_max="exclusiveMaximum" in options,
        )
    return found


def _budget_rules(column: "Column") -> list[Rule]:
    """A length that filters is no rule: what it leaves out is not judged."""

    def at_most(limits: dict[str, float], **told: Any) -> Rule:
        bounds = {"column": column.name, **limits}
        return Rule(field=column.name, expectation="expect_column_values_to_be_between", kwargs=bounds, **told)

    found = []
    if column.length is not None and (severity := OVER_LENGTH[column.length["over"]]):
        most, unit = column.length["maximum"], column.length["unit"]
        found.append(
            at_most(
                {"max_value": most},
                name="length-budget",
                severity=severity,
                sentence=f"has more than {most:,} {unit}",
                measure=unit,
            )
        )
    if column.language is not None:
        expected, limit = column.language["expected"], column.language["limit"]
        found.append(
            at_most(
                {"max_value": 0, "mostly": 1 - limit},
                name="language",
                severity=OVER_LANGUAGE[column.language["over"]],
                sentence=f"look to be in another language than {LANGUAGES[expected]} (limit {limit:.1%})",
                measure=f"not {expected}",
                version=True,
            )
        )
    return found


def _between(low: Any, high: Any) -> str:
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"{low} to {high}"


def _bound(value: Any, column: "Column") -> Any:
    if value is None or column.type not in ("date", "timestamp"):
        return value
    import pandas as pd

    try:
        moment = pd.Timestamp(value)
    except ValueError:
        raise WrongInput(f"contract: schema.properties.{column.name}: bound '{value}' is no {column.type}") from None
    return (moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")).to_pydatetime()


def _quality_rule(rule: dict[str, Any], column: str | None) -> Rule:
    where = column or "table"
    if rule["kind"] == "expectation":
        kwargs = dict(rule["kwargs"])
        if column is not None and "column" not in kwargs and rule["type"].startswith("expect_column_"):
            kwargs["column"] = column
        return Rule(
            field=where,
            name=rule["name"],
            expectation=rule["type"],
            kwargs=kwargs,
            severity=rule["severity"],
            sentence=f"fails {rule['name']}",
            condition=rule["condition"],
        )
    metric, arguments = rule["metric"], rule["arguments"]
    bound, operator = rule["bound"], rule["operator"]
    per_row = (operator, bound) in (("mustBe", 0), ("mustBeLessOrEqualTo", 0)) or (
        operator == "mustBeLessThan" and rule["unit"] == "rows" and 0 < bound <= 1
    )
    tolerance = None if per_row else (operator, bound, rule["unit"])
    kwargs = {"column": column}
    if metric == "rowCount":
        return Rule(
            field=where,
            name=rule["name"],
            expectation="expect_table_row_count_to_be_between",
            kwargs={"min_value": 0},
            severity=rule["severity"],
            sentence="",
            tolerance=(operator, bound, "rows"),
        )
    if metric == "duplicateValues":
        columns = arguments.get("properties") or ([column] if column else [])
        if not columns:
            raise WrongInput(
                f"contract: quality rule {rule['name']}: duplicateValues of a table needs arguments.properties"
            )
        expectation = "expect_column_values_to_be_unique"
        kwargs = {"column": columns[0]}
        if len(columns) > 1:
            expectation, kwargs = "expect_compound_columns_to_be_unique", {"column_list": columns}
        sentence = "is there more than once"
    elif column is None:
        raise WrongInput(f"contract: quality rule {rule['name']}: {metric} is of a column; move it below one")
    elif metric == "nullValues":
        expectation, sentence = "expect_column_values_to_not_be_null", "is null"
    elif metric == "missingValues":
        expectation, sentence = "expect_column_values_to_not_be_in_set", "stands for a missing value"
        kwargs["value_set"] = [
            value for value in arguments.get("missingValues", ["", "N/A", "n/a"]) if value is not None
        ]
    elif "validValues" in arguments:
        expectation, sentence = "expect_column_values_to_be_in_set", "is not one of the valid values"
        kwargs["value_set"] = arguments["validValues"]
    else:
        expectation, sentence = "expect_column_values_to_match_regex", f"does not match {arguments['pattern']}"
        kwargs["regex"] = arguments["pattern"]
    return Rule(
        field=where,
        name=rule["name"],
        expectation=expectation,
        kwargs=kwargs,
        severity=rule["severity"],
        sentence=sentence,
        tolerance=tolerance,
    )


def columns_of_rules(contract: "Contract") -> list[str]:
    """The columns that some rule names, in any argument. Raises WrongInput for one that the schema lacks."""
    there = [column.name for column in contract.columns]
    named: set[str] = set()
    for rule in rules_of(contract):
        for key, value in rule.kwargs.items():
            if key.startswith("column"):
                named.update([value] if isinstance(value, str) else value)
        named |= columns_of(rule.condition) if rule.condition else set()
    for name in sorted(named):
        if name not in there:
            raise WrongInput(f"contract {contract.path}: quality: column '{name}' is not there; {choices(name, there)}")
    return [name for name in there if name in named]
