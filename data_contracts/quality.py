"""Quality rules as ODCS writes them: the standard's own metrics, and Great Expectations' expectations by name.

A rule that could not be run, or that would be run as code, is refused when the contract is read.
"""

import re
from typing import Any

from data_contracts.conditions import check_condition
from data_contracts.odcs import OPERATORS, load_yaml
from infra.errors import WrongInput, choices

SEVERITIES = ("error", "warning")
ARGUMENTS = {
    "nullValues": set(),
    "missingValues": {"missingValues"},
    "invalidValues": {"validValues", "pattern"},
    "duplicateValues": {"properties"},
    "rowCount": set(),
}
UNITS = {"rows", "percent"}


def check_rule(rule: dict[str, Any], where: str) -> dict[str, Any] | None:
    """A quality rule ready to run: {"kind": "metric" | "expectation" ...}; None for one of words. Raises WrongInput."""
    kind = rule.get("type", "library")
    severity = rule.get("severity", "error")
    if kind == "text":
        return None  # for people; nothing claims to check it
    if kind == "sql":
        raise WrongInput(
            f"{where}: rules in SQL are not run (no contract is evaluated as code); use a metric or a GX rule"
        )
    if kind == "library":
        metric = rule["metric"]
        operator = next(key for key in rule if key in OPERATORS)
        arguments = rule.get("arguments") or {}
        for key in arguments:
            if key not in ARGUMENTS[metric]:
                raise WrongInput(
                    f"{where}: arguments: unknown key '{key}' for {metric}; {choices(key, ARGUMENTS[metric])}"
                )
        if metric == "invalidValues" and not arguments:
            raise WrongInput(f"{where}: invalidValues needs arguments: validValues (a list) or pattern")
        if "pattern" in arguments:
            _check_pattern(arguments["pattern"], f"{where}: arguments.pattern")
        unit = rule.get("unit", "rows")
        if unit not in UNITS:
            raise WrongInput(f"{where}: unit '{unit}' is unknown; {choices(unit, UNITS)}")
        bound = rule[operator]
        numbers = bound if isinstance(bound, list) else [bound]
        if any(isinstance(number, bool) or not isinstance(number, (int, float)) for number in numbers):
            raise WrongInput(f"{where}: {operator}: {bound!r} is not a number; write how many {unit}")
        return {
            "kind": "metric",
            "metric": metric,
            "operator": operator,
            "bound": bound,
            "unit": unit,
            "arguments": arguments,
            "severity": severity,
            "name": rule.get("name") or metric,
        }
    if rule["engine"].lower().replace("_", "").replace("-", "") != "greatexpectations":
        raise WrongInput(f"{where}: engine '{rule['engine']}' is unknown; there is: greatExpectations")
    implementation = rule["implementation"]
    if isinstance(implementation, str):
        implementation = load_yaml(implementation, f"{where}: implementation")
    return _check_expectation(implementation, rule, f"{where}: implementation", severity)


def _check_expectation(body: dict[str, Any], rule: dict[str, Any], where: str, severity: str) -> dict[str, Any]:
    for key in body:
        if key not in ("type", "expectation_type", "kwargs", "meta"):
            raise WrongInput(f"{where}: unknown key '{key}'; {choices(key, ['type', 'kwargs', 'meta'])}")
    kind = body.get("type") or body.get("expectation_type")
    known = expectations()
    if kind not in known:
        raise WrongInput(f"{where}: expectation {kind!r} is not Great Expectations' own; {choices(str(kind), known)}")
    kwargs = body.get("kwargs") or {}
    if not isinstance(kwargs, dict):
        raise WrongInput(f"{where}: kwargs {kwargs!r} is not a map")
    for key in kwargs:
        if key in ("condition_parser", "result_format"):
            reason = "decided by Slipway" if key == "result_format" else "for text that would be run as code"
            raise WrongInput(f"{where}: kwargs.{key} is not taken ({reason}); leave it out")
    patterns = kwargs.get("regex_list", [])
    for pattern in [*(patterns if isinstance(patterns, list) else [patterns]), kwargs.get("regex", "")]:
        _check_pattern(pattern, f"{where}: kwargs.{'regex' if 'regex' in kwargs else 'regex_list'}")
    if _holds_pattern(kwargs.get("json_schema")):
        raise WrongInput(
            f"{where}: kwargs.json_schema holds a pattern, which would run without a time limit; "
            "give the column a logicalTypeOptions.pattern or expect_column_values_to_match_regex"
        )
    condition = kwargs.get("row_condition")
    if condition is not None:
        check_condition(condition, f"{where}: kwargs.row_condition")
    return {
        "kind": "expectation",
        "type": kind,
        "kwargs": {key: value for key, value in kwargs.items() if key != "row_condition"},
        "condition": condition,
        "severity": severity,
        "name": rule.get("name") or kind,
    }


def _check_pattern(pattern: Any, where: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, TypeError, OverflowError, RecursionError) as error:
        raise WrongInput(f"{where} is not a regular expression ({error})") from None


def _holds_pattern(schema: Any) -> bool:
    if isinstance(schema, list):
        return any(_holds_pattern(part) for part in schema)
    if not isinstance(schema, dict):
        return False
    return any(key in ("pattern", "patternProperties") or _holds_pattern(part) for key, part in schema.items())


def expectations() -> list[str]:
    """Names of Great Expectations' own expectations, read from its file that lists them: importing it takes seconds.

    Left out are those that hand a query to a database.
    """
    import importlib.util
    from pathlib import Path

    spec = importlib.util.find_spec("great_expectations")
    assert spec is not None and spec.submodule_search_locations
    listing = Path(spec.submodule_search_locations[0]) / "expectations" / "core" / "__init__.py"
    names = re.findall(r"^from \.(expect_\w+) import", listing.read_text(encoding="utf-8"), re.MULTILINE)
    # expect_multicolumn_values_to_be_unique is an old name that GX lists and cannot run.
    return sorted(name for name in names if "query" not in name and name != "expect_multicolumn_values_to_be_unique")
