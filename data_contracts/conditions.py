"""Row conditions: which rows a rule is about, in Great Expectations' structured form.

    {type: comparison, column: {name: age}, operator: ">=", parameter: 18}    also ==, !=, <, <=, >, IN, NOT_IN
    {type: nullity, column: {name: age}, is_null: false}
    {type: and, conditions: [...]}                                            also or

Great Expectations makes text for `pandas.query` of it; here Arrow compares, and nothing is evaluated as code. As in SQL
a null meets no comparison, `!=` and NOT_IN included.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from infra.errors import WrongInput, choices

if TYPE_CHECKING:
    import pyarrow as pa

KEYS = {
    "comparison": {"type", "column", "operator", "parameter"},
    "nullity": {"type", "column", "is_null"},
    "and": {"type", "conditions"},
    "or": {"type", "conditions"},
}
COMPARISONS = {
    "==": "equal",
    "!=": "not_equal",
    "<": "less",
    "<=": "less_equal",
    ">": "greater",
    ">=": "greater_equal",
}
"""Operator -> function of pyarrow.compute."""
IN = ("IN", "NOT_IN")


def check_condition(value: Any, where: str) -> None:
    """Raises WrongInput naming the field that is not as the form has it."""
    if not isinstance(value, dict):
        raise WrongInput(
            f"{where} {str(value)[:60]!r} is text that would be run as code; write {{type: comparison, "
            "column: {name: age}, operator: '>=', parameter: 18}"
        )
    kind = value.get("type")
    if kind not in KEYS:
        raise WrongInput(f"{where}.type: {kind!r} is not taken; {choices(str(kind), KEYS)}")
    for key in value:
        if key not in KEYS[kind]:
            raise WrongInput(f"{where}: unknown key '{key}'; {choices(str(key), KEYS[kind])}")
    for key in KEYS[kind]:
        if key not in value:
            raise WrongInput(f"{where}: '{key}' is missing")
    if kind in ("and", "or"):
        if not isinstance(value["conditions"], list) or not value["conditions"]:
            raise WrongInput(f"{where}.conditions is not a list of conditions")
        for place, part in enumerate(value["conditions"]):
            check_condition(part, f"{where}.conditions[{place}]")
        return
    column = value["column"]
    if not isinstance(column, dict) or set(column) != {"name"} or not isinstance(column["name"], str):
        raise WrongInput(f"{where}.column: {column!r} names no column; write {{name: age}}")
    if kind == "nullity":
        if not isinstance(value["is_null"], bool):
            raise WrongInput(f"{where}.is_null: {value['is_null']!r} is not true or false")
        return
    operator, parameter = value["operator"], value["parameter"]
    if operator not in (*COMPARISONS, *IN):
        raise WrongInput(f"{where}.operator: {operator!r} is unknown; {choices(str(operator), (*COMPARISONS, *IN))}")
    wanted = parameter if operator in IN and isinstance(parameter, list) else [parameter]
    if (operator in IN) != isinstance(parameter, list) or not all(isinstance(one, str | int | float) for one in wanted):
        what = "a list of values" if operator in IN else "one value"
        raise WrongInput(f"{where}.parameter: {parameter!r} is not {what}, text, number or true or false")


def columns_of(condition: dict[str, Any]) -> set[str]:
    if "conditions" in condition:
        return {name for part in condition["conditions"] for name in columns_of(part)}
    return {condition["column"]["name"]}


def rows_meeting(condition: dict[str, Any], table: "pa.Table | pa.RecordBatch", where: str) -> "pa.Array":
    """One boolean a row, never null. Raises WrongInput for a parameter that is none of the column's type."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if "conditions" in condition:
        join: Callable[..., Any] = pc.and_ if condition["type"] == "and" else pc.or_
        met, *more = [rows_meeting(part, table, where) for part in condition["conditions"]]
        for other in more:
            met = join(met, other)
        return met
    name = condition["column"]["name"]
    values = table.column(name)
    if condition["type"] == "nullity":
        return values.is_null() if condition["is_null"] else values.is_valid()
    operator, parameter = condition["operator"], condition["parameter"]
    try:
        wanted = [_typed(one, values.type) for one in (parameter if operator in IN else [parameter])]
    except (pa.ArrowException, ValueError):
        raise WrongInput(f"{where}: parameter {parameter!r} is no value of column '{name}' ({values.type})") from None
    if operator in IN:
        member = pc.is_in(values, value_set=pa.array(wanted, values.type))
        return member if operator == "IN" else pc.and_(pc.invert(member), values.is_valid())
    return pc.fill_null(getattr(pc, COMPARISONS[operator])(values, wanted[0]), False)


def _typed(value: Any, target: "pa.DataType") -> Any:
    import pyarrow as pa

    if pa.types.is_string(target) != isinstance(value, str) and not pa.types.is_temporal(target):
        raise ValueError(value)
    if pa.types.is_boolean(target) != isinstance(value, bool):
        raise ValueError(value)
    if pa.types.is_timestamp(target) and isinstance(value, str):
        import datetime as dt

        moment = dt.datetime.fromisoformat(value)
        return pa.scalar(moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC), target)
    return pa.scalar(value).cast(target)
