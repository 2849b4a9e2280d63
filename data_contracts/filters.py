"""Filters: rows left out of a version on purpose, counted and kept in its `filtered` file with the filter's name.

    slipway.filters:
      - {name: too-old, where: {type: comparison, column: {name: year}, operator: "<", parameter: 1990}}

The conditions are `conditions`'. The order is: rows are cast (what fails is quarantined, it has no values to ask),
filters leave rows out, then come repeats, rules and splits. So a filtered row is judged by no rule, repeats no other
row and never counts as the first of its repeats. Of several filters that a row meets the first one names it; texts over
a `slipway.length` with `over: filter` come after those, as COLUMN:length.
"""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from data_contracts.budgets import too_long
from data_contracts.conditions import check_condition, columns_of, rows_meeting
from infra.errors import Refused, WrongInput, choices

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract

DUPLICATE = "duplicate"
"""The reason of a row that repeats another one (slipway.duplicates); no filter may have this name."""


def check_filters(value: list[Any], columns: list[str], where: str) -> tuple[dict[str, Any], ...]:
    """What a contract's `slipway.filters` says. Raises WrongInput naming the entry that is not as it should be."""
    from data_contracts.contract import NAME

    names = set()
    for number, entry in enumerate(value):
        place = f"{where}[{number}]"
        if not isinstance(entry, dict) or set(entry) != {"name", "where"}:
            raise WrongInput(f"{place}: {str(entry)[:60]!r} is no filter; write {{name: too-old, where: {{...}}}}")
        name = entry["name"]
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise WrongInput(f"{place}.name: {str(name)[:60]!r} names no filter; use letters, digits, '-' and '_'")
        if name == DUPLICATE:
            raise WrongInput(f"{place}.name: '{name}' is what repeats are filtered as; give another name")
        if name in names:
            raise WrongInput(f"{place}: '{name}' is named twice; keep one")
        names.add(name)
        check_condition(entry["where"], f"{place}.where")
        for column in sorted(columns_of(entry["where"])):
            if column not in columns:
                raise WrongInput(f"{place}: column '{column}' is not in the schema; {choices(column, columns)}")
    return tuple(value)


def left_out(table: "pa.Table", contract: "Contract", source: str) -> dict[int, str]:
    """Row -> name of the filter that leaves it out, in source order.

    Raises WrongInput for a condition that does not fit its column, Refused when no row would be left.
    """
    import numpy as np

    found: dict[int, str] = {}
    for name, met in _met(table, contract):
        for row in np.flatnonzero(np.asarray(met)).tolist():
            found.setdefault(row, name)
    if found and len(found) == table.num_rows:
        shares = ", ".join(f"{name} {count:,}" for name, count in Counter(found.values()).most_common())
        raise Refused(
            f"{source}: the filters of contract {contract.path} leave out every row ({shares}); mend slipway.filters"
        )
    return dict(sorted(found.items()))


def _met(table: "pa.Table", contract: "Contract") -> Iterator[tuple[str, Any]]:
    """(name, which rows it leaves out) of each filter, in the order that counts."""
    for entry in contract.filters:
        place = f"contract {contract.path}: slipway.filters: {entry['name']}"
        yield entry["name"], rows_meeting(entry["where"], table, place)
    for column in contract.columns:
        if column.length is not None and column.length["over"] == "filter":
            yield f"{column.name}:length", too_long(column, table.column(column.name))
