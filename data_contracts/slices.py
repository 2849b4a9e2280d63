"""Slices: parts of the data that a model must not do badly on, as `slipway.slices` of a contract names them.

- language                    one slice for each value of the column
- name: long reviews          one slice: the rows that meet a condition (data_contracts.conditions)
  condition: {type: comparison, column: {name: words}, operator: ">", parameter: 50}
"""

from typing import TYPE_CHECKING, Any

from data_contracts.conditions import check_condition, columns_of, rows_meeting
from data_contracts.row_sample import hidden, personal_columns
from infra.errors import WrongInput, choices

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from data_contracts.contract import Contract

MAX_VALUES = 50
RARER = "rarer values"


def check_slices(value: list[Any], columns: list[str], where: str) -> tuple[Any, ...]:
    """What a contract's `slipway.slices` says. Raises WrongInput naming the entry that is not as it should be."""
    names = set()
    for number, entry in enumerate(value):
        place = f"{where}[{number}]"
        if isinstance(entry, str):
            used, name = {entry}, entry
        elif isinstance(entry, dict) and set(entry) == {"name", "condition"} and isinstance(entry["name"], str):
            check_condition(entry["condition"], f"{place}.condition")
            used, name = columns_of(entry["condition"]), entry["name"]
        else:
            raise WrongInput(
                f"{place}: {str(entry)[:60]!r} is no slice; write a column or {{name: ..., condition: ...}}"
            )
        for column in sorted(used):
            if column not in columns:
                raise WrongInput(f"{place}: column '{column}' is not in the schema; {choices(column, columns)}")
        if name in names:
            raise WrongInput(f"{place}: '{name}' is named twice; keep one")
        names.add(name)
    return tuple(value)


def slice_columns(contract: "Contract") -> list[str]:
    """The columns that its slices are made of."""
    used = {
        name for one in contract.slices for name in ([one] if isinstance(one, str) else columns_of(one["condition"]))
    }
    return sorted(used)


def named_slices(contract: "Contract", table: "pa.Table", minimum: int) -> "dict[str, np.ndarray]":
    """Slice -> which rows are in it, (N,) bool. Values of a column with fewer than `minimum` rows are one slice.

    Raises WrongInput for a column with too many values to be slices, and a condition that does not fit its column.
    """
    import numpy as np

    found = {}
    personal = personal_columns(contract)
    for entry in contract.slices:
        if isinstance(entry, dict):
            where = f"contract {contract.path}: slipway.slices: {entry['name']}"
            found[entry["name"]] = np.asarray(rows_meeting(entry["condition"], table, where))
            continue
        values = np.array([str(value) for value in table[entry].to_pylist()], dtype=object)
        kinds, counts = np.unique(values, return_counts=True)
        if len(kinds) > MAX_VALUES:
            raise WrongInput(
                f"contract {contract.path}: slipway.slices: column '{entry}' has {len(kinds):,} values; name its parts "
                "with conditions"
            )
        for kind in kinds[counts >= minimum]:
            shown = hidden(kind, contract) if entry in personal else kind
            found[f"{entry} = {shown}"] = values == kind
        rarer = np.isin(values, kinds[counts < minimum])
        if rarer.any():
            found[f"{entry}: {RARER}"] = rarer
    return found
