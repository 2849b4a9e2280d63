"""Great Expectations, and nothing else of it anywhere: a contract's rules as a suite, run once over whole columns.

A rule is never run per batch (uniqueness and means come out wrong) and only the columns that some rule names are
held in memory. A rule that could not be checked has failed: `success` alone does not say so, `exception_info` does.
Nothing a contract says is evaluated as code: queries are refused when it is read, and the rows that meet a rule's
condition are picked by Arrow before Great Expectations sees them.
"""

import logging
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data_contracts.budgets import MEASURES as TEXT_MEASURES
from data_contracts.conditions import rows_meeting
from data_contracts.lists import MEASURES as LIST_MEASURES
from data_contracts.lists import is_list
from data_contracts.patterns import SECONDS, TooSlow, check_time
from data_contracts.row_sample import hidden, personal_columns
from data_contracts.rules import Rule, columns_of_rules, rules_of
from infra.digests import canonical
from infra.errors import SlipwayError, WrongInput

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract

FORMAT = 1
MEASURES = LIST_MEASURES | TEXT_MEASURES
SHOWN_VALUES = 20
"""Failing values that validation.json keeps of each rule; the rows themselves are in quarantine."""


@dataclass
class Findings:
    rows: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    """Row index -> (rule, reason) for each rule of severity error that it fails."""
    refusals: list[str] = field(default_factory=list)
    """Why no version may come of this."""
    warnings: list[dict[str, Any]] = field(default_factory=list)
    """Rules of severity warning that failed: rule, reason, rows."""
    report: dict[str, Any] = field(default_factory=dict)
    """validation.json: Great Expectations' result format."""


def validate(table: "pa.Table", contract: "Contract") -> Findings:
    """Run every rule of the contract over whole columns: cast rows, at least those columns that the rules name."""
    rules = rules_of(contract)
    findings = Findings()
    if not rules:
        findings.report = {"format": FORMAT, "success": True, "results": [], "statistics": {}, "meta": {}}
        return findings
    _check_patterns(rules, table, contract)
    results, version = _run(rules, table, columns_of_rules(contract), contract)
    for rule, result in zip(rules, results, strict=True):
        result["success"] = _judge(rule, result, table, findings, contract)
        result["meta"] = {"rule": rule.key, "severity": rule.severity}
        if rule.condition is not None:
            result["meta"]["row_condition"] = rule.condition
        for key in ("unexpected_list", "unexpected_index_list", "unexpected_index_query"):
            result["result"].pop(key, None)
    passed = sum(result["success"] for result in results)
    findings.report = {
        "format": FORMAT,
        "success": passed == len(results),
        "results": results,
        "suite_name": contract.name,
        "statistics": {
            "evaluated_expectations": len(results),
            "successful_expectations": passed,
            "unsuccessful_expectations": len(results) - passed,
            "success_percent": 100 * passed / len(results),
        },
        "meta": {"great_expectations_version": version, "rows": table.num_rows},
    }
    return findings


def _check_patterns(rules: list[Rule], table: "pa.Table", contract: "Contract") -> None:
    """Raises WrongInput for a pattern that is too slow on the column it judges."""
    searched = [
        (rule, pattern)
        for rule in rules
        for pattern in [rule.kwargs.get("regex"), *rule.kwargs.get("regex_list", ())]
        if pattern is not None and not is_list(table.schema.field(rule.kwargs["column"]).type)
    ]
    try:
        check_time([(pattern, table.column(rule.kwargs["column"])) for rule, pattern in searched])
    except TooSlow as slow:
        rule, pattern = searched[slow.place]
        value = repr(slow.value[:40])
        if rule.kwargs["column"] in personal_columns(contract):
            value = hidden(slow.value, contract)
        raise WrongInput(
            f"contract {contract.path}: {rule.key}: pattern {pattern!r} takes too long (more than {SECONDS:g} s on "
            f"{value}, {len(slow.value):,} characters); write it without a repeat inside a repeat"
        ) from None


def _run(
    rules: list[Rule], table: "pa.Table", columns: list[str], contract: "Contract"
) -> tuple[list[dict[str, Any]], str]:
    """Great Expectations' result of each rule, in the rules' order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx
        import pandas as pd
        import pyarrow as pa
        import pyarrow.compute as pc
        from great_expectations.data_context.types.base import ProgressBarsConfig
        from great_expectations.expectations.registry import get_expectation_impl
        from pydantic.v1 import ValidationError

        suite = []
        for number, rule in enumerate(rules):
            kwargs = {key: value for key, value in rule.kwargs.items() if value is not None}
            if rule.measure:
                kwargs["column"] = f"{kwargs['column']}, {rule.measure}"
            try:
                suite.append(get_expectation_impl(rule.expectation)(**kwargs, meta={"rule": number}))
            except ValidationError as error:
                first = error.errors()[0]
                place = ".".join(str(part) for part in first["loc"])
                raise WrongInput(f"{_where(contract, rule)}: {place}: {first['msg']}") from None
            except (TypeError, ValueError) as error:
                raise WrongInput(f"{_where(contract, rule)}: {error}") from None
        # Nullable types only where a null would turn integers into floats and make neighbours of 2**53 equal.
        nullable = {
            pa.int64(): pd.Int64Dtype(),
            pa.uint64(): pd.UInt64Dtype(),
            pa.int32(): pd.Int32Dtype(),
            pa.uint32(): pd.UInt32Dtype(),
        }
        holed = {name for name in columns if table.column(name).null_count}
        series = {}
        for name in columns:
            values = table.column(name)
            if is_list(values.type):  # of which the frame holds only whether it is there
                values = pc.list_value_length(values)
            if pa.types.is_date32(values.type):
                values = values.cast(pa.timestamp("us", tz="UTC"))
            series[name] = values.to_pandas(types_mapper=nullable.get if name in holed else None)
        for rule in rules:
            if rule.measure:
                name = rule.kwargs["column"]
                series[f"{name}, {rule.measure}"] = MEASURES[rule.measure](table.column(name)).to_pandas()
        # All at once: a frame grown column by column is put together anew for each rule.
        frame = pd.DataFrame(series, index=range(table.num_rows))
        # It sets this one to INFO itself, to tell of a temporary folder each time.
        logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        asset = context.data_sources.add_pandas("rows").add_dataframe_asset(contract.name)
        definition = asset.add_batch_definition_whole_dataframe("all")
        by_rule: dict[int, dict[str, Any]] = {}
        for chosen in _by_condition(rules):
            part, condition = frame, rules[chosen[0]].condition
            if condition is not None:  # rows keep their number: the frame's index says which one failed
                met = rows_meeting(condition, table, f"{_where(contract, rules[chosen[0]])}: row_condition")
                part = frame[met.to_numpy()]
            outcome = definition.get_batch({"dataframe": part}).validate(
                gx.ExpectationSuite(name=contract.name, expectations=[suite[number] for number in chosen]),
                result_format={"result_format": "COMPLETE", "partial_unexpected_count": SHOWN_VALUES},
            )
            results = outcome.to_json_dict()["results"]
            by_rule |= {result["expectation_config"]["meta"]["rule"]: result for result in results}
    if set(by_rule) != set(range(len(rules))):
        raise SlipwayError(
            f"Great Expectations answered {len(by_rule)} of {len(rules)} rules; report this with the contract"
        )
    return [by_rule[number] for number in range(len(rules))], gx.__version__


def _by_condition(rules: list[Rule]) -> list[list[int]]:
    """The numbers of the rules, those of one condition together."""
    groups: dict[bytes, list[int]] = {}
    for number, rule in enumerate(rules):
        groups.setdefault(canonical(rule.condition), []).append(number)
    return list(groups.values())


def _where(contract: "Contract", rule: Rule) -> str:
    return f"contract {contract.path}: quality of {rule.field}: {rule.expectation}"


def _judge(rule: Rule, result: dict[str, Any], table: "pa.Table", findings: Findings, contract: "Contract") -> bool:
    """Whether the rule holds; what it finds goes into `findings`."""
    body = result["result"]
    num_rows = table.num_rows if rule.condition is None else body.get("element_count", 0)
    exception = _exception(result.get("exception_info") or {})
    failing = body.get("unexpected_index_list")
    count = body.get("unexpected_count", body.get("observed_value"))
    if exception is None and not result["success"] and not body:
        exception = "Great Expectations gave no result"
    elif exception is None and rule.tolerance is not None and not isinstance(count, (int, float)):
        exception = "Great Expectations gave no count"
    elif exception is None and failing is not None and len(failing) != body["unexpected_count"]:
        # NOTE it cuts `unexpected_list` at 200 values; the list of rows is whole, and must be.
        exception = f"Great Expectations named {len(failing)} of {body['unexpected_count']} rows"
    judged = body.get("element_count", 0) - body.get("missing_count", 0)
    if exception is None and rule.version and not judged:
        exception = "no text is long enough to tell"
    if exception is not None:
        reason = f"{rule.key}: could not be checked ({exception})"
        if rule.severity == "error":
            findings.refusals.append(reason)
        else:
            findings.warnings.append({"rule": rule.key, "reason": reason, "rows": 0})
        return False
    if rule.tolerance is not None:
        operator, bound, unit = rule.tolerance
        observed = 100 * count / max(num_rows, 1) if unit == "percent" else count
        if _holds(observed, operator, bound):
            return True
        reason = f"{rule.key}: {observed:g} {unit}, {operator} {bound}"
    elif rule.version:
        if result["success"]:
            return True
        reason = f"{rule.key}: {count / judged:.1%} of the {judged:,} texts that can be told {rule.sentence}"
    elif failing:
        stated = "mostly" in rule.kwargs and not result["success"]
        if rule.severity == "error":
            for row, sentence in zip(failing, _sentences(rule, failing, table, contract), strict=True):
                findings.rows.setdefault(int(row), []).append((rule.key, sentence))
            if not stated:
                return False
        reason = f"{rule.key}: {len(failing):,} of {num_rows:,} rows: {rule.field} {rule.sentence}"
    elif result["success"]:
        return True
    else:
        observed = body.get("observed_value")
        if rule.kwargs.get("column") in personal_columns(contract):
            observed = hidden(observed, contract)
        reason = f"{rule.key}: observed {observed!r}, {_limits(rule)}"
    if rule.severity == "error":
        findings.refusals.append(reason)
    else:
        findings.warnings.append({"rule": rule.key, "reason": reason, "rows": len(failing or ())})
    return False


def _sentences(rule: Rule, failing: list[int], table: "pa.Table", contract: "Contract") -> list[str]:
    """What each failing row does wrong, with its value (a personal one's hash) where the rule is of one column."""
    column = rule.kwargs.get("column")
    if column is None or rule.name == "required":
        return [f"{rule.field}: {rule.sentence}"] * len(failing)
    values = table.column(column).take(failing).to_pylist()
    if column in personal_columns(contract):
        return [f"{rule.field}: {hidden(value, contract)} {rule.sentence}" for value in values]
    return [f"{rule.field}: '{str(value)[:60]}' {rule.sentence}" for value in values]


def _limits(rule: Rule) -> str:
    return f"{rule.expectation} " + ", ".join(f"{key}={value}" for key, value in rule.kwargs.items())


def _exception(info: dict[str, Any]) -> str | None:
    """The message of what was raised while a rule was checked; GX nests it by metric, or not."""
    if info.get("raised_exception"):
        return str(info.get("exception_message"))[:200]
    for nested in info.values():
        if isinstance(nested, dict) and nested.get("raised_exception"):
            return str(nested.get("exception_message"))[:200]
    return None


def _holds(observed: float, operator: str, bound: Any) -> bool:
    return {
        "mustBe": lambda: observed == bound,
        "mustNotBe": lambda: observed != bound,
        "mustBeGreaterThan": lambda: observed > bound,
        "mustBeGreaterOrEqualTo": lambda: observed >= bound,
        "mustBeLessThan": lambda: observed < bound,
        "mustBeLessOrEqualTo": lambda: observed <= bound,
        "mustBeBetween": lambda: bound[0] <= observed <= bound[1],
        "mustNotBeBetween": lambda: not bound[0] <= observed <= bound[1],
    }[operator]()
