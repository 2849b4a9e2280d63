"""List columns: cast item by item, said exactly for row ids, measured for rules.

A list stands as Arrow's list, or, in a format that has only text (CSV, and JSON on its way), as the text of a JSON
list. Its items are cast as a column of their declared type would be, but for the null rule, which is of whole values:
an empty text in a list is an empty text.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Column

CastItems = Callable[["pa.Array", "Column"], "tuple[pa.Array, dict[int, str]]"]
PREFIX = "list<"


def is_list(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def list_text(items: list[Any]) -> str:
    """The one text that stands for a list: JSON, every item as text. Raises ValueError for a list in a list."""
    if any(isinstance(item, (list, dict)) for item in items):
        raise ValueError("holds lists or objects")
    return json.dumps([_text(item) for item in items], ensure_ascii=False)


def _text(item: Any) -> str | None:
    if isinstance(item, bytes):
        return item.decode()
    return None if item is None else ("true" if item else "false") if isinstance(item, bool) else str(item)


def cast_lists(values: "pa.Array", column: "Column", cast_items: CastItems) -> "tuple[pa.Array, dict[int, str]]":
    """Lists of the column's item type, and what is wrong with those rows that do not fit, which are null."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    faults: dict[int, str] = {}
    if pa.types.is_fixed_size_list(values.type):
        values = values.cast(pa.list_(values.type.value_type))
    if not is_list(values.type):
        values = _parsed(values, faults)
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    item = replace(column, type=column.item, arrow=column.arrow.removeprefix(PREFIX).removesuffix(">"))
    items, wrong = cast_items(values.flatten(), item)
    for index, problem in wrong.items():
        row = int(np.searchsorted(offsets, index, side="right")) - 1
        faults.setdefault(row, f"{problem} (item {index - offsets[row] + 1} of its list)")
    mask = values.is_null().to_numpy(zero_copy_only=False)
    mask[list(faults)] = True
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items, mask=pa.array(mask)), faults


def _parsed(values: "pa.Array", faults: dict[int, str]) -> "pa.Array":
    """Lists of text from the texts of JSON lists."""
    import pyarrow as pa

    found: list[list[str | None] | None] = []
    for row, value in enumerate(values.to_pylist()):
        try:
            found.append(None if value is None else _items(value))
        except (ValueError, RecursionError):
            found.append(None)
            faults[row] = f"'{str(value)[:60]}' is not a list of values"
    return pa.array(found, pa.list_(pa.string()))


def _items(value: Any) -> list[str | None]:
    body = json.loads(str(value), parse_float=str, parse_int=str, parse_constant=str)
    if not isinstance(body, list):
        raise ValueError(value)
    return json.loads(list_text(body))


def exact_lists(values: Any, exact_items: Callable[[Any], Any]) -> Any:
    """Each list as text: `length:text` of each item, `-` for a null, by the items' exact text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(values, pa.ChunkedArray):
        return pa.chunked_array([exact_lists(chunk, exact_items) for chunk in values.chunks], pa.string())
    text = exact_items(values.flatten()).cast(pa.string())
    length = pc.binary_length(text).cast(pa.string())
    items = pc.fill_null(pc.binary_join_element_wise(length, text, ":"), "-")
    ends = pc.cumulative_sum(pc.fill_null(pc.list_value_length(values), 0))
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends.cast(pa.int32())])
    return pc.binary_join(pa.ListArray.from_arrays(offsets, items, mask=values.is_null()), ",")


def num_items(values: Any) -> Any:
    import pyarrow.compute as pc

    return pc.list_value_length(values)


def num_repeated(values: Any) -> Any:
    """How many items of each list are there already; null for no list."""
    import pyarrow as pa

    return pa.array([None if one is None else len(one) - len(set(one)) for one in values.to_pylist()], pa.int64())


MEASURES = {"items": num_items, "repeated items": num_repeated}
"""What rules of a list column are asked of, in Great Expectations' frame: it knows no lists."""
