"""Rows of a table as numbers: what a model without words reads, the same in training, evaluation and service.

Numbers, integers and truth values stay numbers; texts become categories, by their place in a list; a date becomes days
since 1970, its weekday and its day of the year, a time its hour (UTC) as well. What is missing, or a category never
seen in training, is NaN.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contract import Column
from data_contracts.rows import cast_column
from infra.errors import WrongInput

MOST_CATEGORIES = 254
"""Of a column, the most frequent ones; scikit-learn's trees take 255 bins, one of them for what is missing."""
SECONDS_A_DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class Input:
    """An input column as a model takes it."""

    name: str
    type: str
    """ODCS logicalType."""
    arrow: str
    """Name of the Arrow type, as the contract has it."""
    categories: tuple[str, ...] | None = None
    """The known ones, the most frequent first; None for numbers."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the columns that it becomes."""
        if self.type not in ("date", "timestamp"):
            return (self.name,)
        parts = ("weekday", "day of year", *(("hour",) if self.type == "timestamp" else ()))
        return (self.name, *(f"{self.name}: {part}" for part in parts))


def read_inputs(
    table: pa.Table, names: Sequence[str], as_categories: Collection[str] = ()
) -> tuple[list[Input], list[str]]:
    """How these columns of the training split are taken, and the names of those that are left out: free text, of which
    nearly every row has its own. as_categories: columns of numbers that are names of something.

    Raises WrongInput for columns that hold lists or pixels, and where none is left.
    """
    inputs, left_out = [], []
    for name in names:
        values = table[name]
        kind, arrow = _kind(values.type, name)
        categories = None
        if kind == "string" or name in as_categories:
            found = _text(values).value_counts().to_pylist()
            counts = {one["values"]: one["counts"] for one in found if one["values"] is not None}
            if kind == "string" and len(counts) > max(20, len(values) / 5):
                left_out.append(name)
                continue
            categories = tuple(sorted(counts, key=lambda one: (-counts[one], one))[:MOST_CATEGORIES])
        inputs.append(Input(name=name, type=kind, arrow=arrow, categories=categories))
    if not inputs:
        raise WrongInput(
            f"inputs {', '.join(names)}: hold free text alone, which a table's model cannot read; name columns of "
            "numbers and categories in the contract's slipway.inputs, or use a text recipe"
        )
    return inputs, left_out


def _kind(found: pa.DataType, name: str) -> tuple[str, str]:
    """(logicalType, the contract's name of the Arrow type)."""
    if pa.types.is_integer(found):
        return "integer", str(found)
    if pa.types.is_floating(found):
        return "number", str(found)
    for kind, arrow, known in (
        ("boolean", "bool", pa.types.is_boolean(found)),
        ("string", "string", pa.types.is_string(found)),
        ("date", "date32", pa.types.is_date32(found)),
        ("timestamp", "timestamp", pa.types.is_timestamp(found)),
    ):
        if known:
            return kind, arrow
    raise WrongInput(
        f"column '{name}': holds lists or pixels, which are no numbers or categories; name the others in the "
        "contract's slipway.inputs"
    )


def _text(values: Any) -> Any:
    return values if pa.types.is_string(values.type) else values.cast(pa.string())


def cast_rows(rows: Sequence[dict[str, Any]], inputs: Iterable[Input], nulls: Sequence[str]) -> pa.Table:
    """Rows as they are asked, texts or numbers, in the types of the contract: cast as when the data were registered.

    A column that a row lacks is missing. Raises WrongInput naming row and column of a value that does not fit.
    """
    columns = {}
    for one in inputs:
        asked = [row.get(one.name) for row in rows]
        try:
            values = pa.array(asked, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # of several types: as texts, which every type is read from
            values = pa.array([None if value is None else str(value) for value in asked], pa.string())
        if pa.types.is_null(values.type):
            values = values.cast(pa.string())
        fitting, faults = cast_column(values, Column(name=one.name, type=one.type, arrow=one.arrow), tuple(nulls))
        for row, problem in sorted(faults.items()):
            raise WrongInput(f"row {row + 1}: column '{one.name}': {problem}")
        columns[one.name] = fitting
    return pa.table(columns)


def matrix(table: pa.Table, inputs: Iterable[Input]) -> np.ndarray:
    """(N, features) float64; of a category its place in the list."""
    columns: list[np.ndarray] = []
    for one in inputs:
        values = table[one.name]
        if one.categories is not None:
            columns.append(_numbers(pc.index_in(_text(values), value_set=pa.array(one.categories, pa.string()))))
        elif one.type == "boolean":
            columns.append(_numbers(values.cast(pa.int8())))
        elif one.type in ("date", "timestamp"):
            columns += _parts(values, one.type)
        else:
            columns.append(_numbers(values))
    return np.stack(columns, axis=1)


def is_categorical(inputs: Iterable[Input]) -> np.ndarray:
    """(features,) bool."""
    return np.array([one.categories is not None for one in inputs for _ in one.features])


def _parts(values: Any, kind: str) -> list[np.ndarray]:
    if kind == "date":
        days = _numbers(values.cast(pa.int32()))
    else:
        days = _numbers(values.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())) / (1e6 * SECONDS_A_DAY)
    found = [days, _numbers(pc.day_of_week(values)), _numbers(pc.day_of_year(values))]
    return found if kind == "date" else [*found, 24 * (days - np.floor(days))]


def _numbers(values: Any) -> np.ndarray:
    # Unsafe: an integer above 2**53 loses its last digits, by which no tree splits.
    return values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
