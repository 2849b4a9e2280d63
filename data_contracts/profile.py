"""What a dataset version looks like, small enough to compare for ever: counts, quantiles, categories, text lengths and
vocabulary, image brightness, and a fixed sample of rows (`row_sample`).

Two versions, made years apart, are compared by their profiles alone: no row of either is read. A column marked as
personal is told by counts and hashes only.
"""

import json
from typing import TYPE_CHECKING, Any

from data_contracts.row_sample import hidden, personal_columns, pick, row_sample
from infra.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract
    from data_contracts.registry import Version

FORMAT = 2
"""1 had no sample, no vocabulary and no images."""
LENGTH_BINS = 20
"""Text length by power of two: bin 0 is the empty text, bin k holds 2**(k-1) to 2**k - 1 characters."""
MAX_CATEGORIES = 200
"""A column with more distinct values than this has no category counts."""
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


def profile(table: "pa.Table", contract: "Contract", hashed: bool = False) -> dict[str, Any]:
    """The profile of a version's kept rows, all splits together, with their `row_id`.

    hashed: of a personal column the table holds `hidden` values already, as an inference log does.
    """
    sample = row_sample(pick(table), contract, hashed)
    personal = personal_columns(contract)
    columns = {}
    for column in contract.columns:
        values = table.column(column.name)
        found: dict[str, Any] = {"type": column.type, "rows": len(values), "nulls": values.null_count}
        if column.name in personal:
            found |= {"personal": True} | _personal(values, contract, hashed)
        elif column.type == "image":
            from data_contracts.pixels import brightness

            found["brightness"] = _quantiles(brightness(sample["columns"][column.name]))
        else:
            found |= _column(values, column.type)
        columns[column.name] = found
    return {
        "format": FORMAT,
        "rows": table.num_rows,
        "label": contract.label,
        "inputs": list(contract.inputs),
        "columns": columns,
        "sample": sample,
    }


def _personal(values: "pa.ChunkedArray", contract: "Contract", done: bool) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_nested(values.type) or pa.types.is_large_binary(values.type):
        return {}
    distinct = pc.count_distinct(values).as_py()
    if distinct > MAX_CATEGORIES:
        return {"distinct": distinct}
    counts = values.drop_null().value_counts().to_pylist()
    hashed = {entry["values"] if done else hidden(entry["values"], contract): entry["counts"] for entry in counts}
    return {"distinct": distinct, "categories": dict(sorted(hashed.items()))}


def _column(values: "pa.ChunkedArray", kind: str) -> dict[str, Any]:
    import pyarrow.compute as pc

    if kind == "number":
        return _numbers(values)
    if kind == "array":
        return {"items": _numbers(pc.list_value_length(values)), "item": _items(values)}
    if kind in ("date", "timestamp"):
        edges = pc.min_max(values).as_py()
        return {"min": _text(edges["min"]), "max": _text(edges["max"])}
    found: dict[str, Any] = _numbers(values) if kind == "integer" else {}
    found["distinct"] = pc.count_distinct(values).as_py()
    if found["distinct"] <= MAX_CATEGORIES:
        counts = values.drop_null().value_counts().to_pylist()
        found["categories"] = dict(sorted((_text(entry["values"]), entry["counts"]) for entry in counts))
    if kind == "string":
        lengths = pc.utf8_length(values).drop_null()
        found["length"] = {
            "bins": _length_bins(lengths),
            "mean": pc.mean(lengths).as_py(),
            "max": pc.max(lengths).as_py(),
        }
        if is_text(found | {"rows": len(values)}):
            from data_contracts.vocabulary import vocabulary

            found["vocabulary"] = vocabulary(values)
    return found


def _items(values: "pa.ChunkedArray") -> dict[str, Any]:
    """What all lists of a column hold: {"rows", "nulls", "distinct"} and "categories" or, of many texts, "vocabulary";
    of fractions what `_numbers` says."""
    import pyarrow as pa
    import pyarrow.compute as pc

    flat = pc.list_flatten(values)
    found = {"rows": len(flat), "nulls": flat.null_count}
    if pa.types.is_floating(flat.type):
        return found | _numbers(flat)
    found |= {"distinct": pc.count_distinct(flat).as_py()}
    if found["distinct"] <= MAX_CATEGORIES:
        counts = flat.drop_null().value_counts().to_pylist()
        found["categories"] = dict(sorted((_text(entry["values"]), entry["counts"]) for entry in counts))
    elif pa.types.is_string(flat.type):
        from data_contracts.vocabulary import vocabulary

        found["vocabulary"] = vocabulary(flat)
    return found


def is_text(column: dict[str, Any]) -> bool:
    """Whether a string column holds texts rather than categories: values that seldom come again."""
    return column["distinct"] > MAX_CATEGORIES or column["distinct"] > max(20, column["rows"] / 5)


def _numbers(values: "pa.ChunkedArray") -> dict[str, Any]:
    import pyarrow.compute as pc

    # Unsafe: an integer above 2**53 may lose its last digits here, which no quantile shows.
    floats = values.drop_null().cast("float64", safe=False)
    finite = floats.filter(pc.is_finite(floats))
    if not len(finite):
        return {"quantiles": {}, "mean": None, "standard_deviation": None, "infinite": len(floats)}
    return {
        "quantiles": _quantiles(finite),
        "mean": pc.mean(finite).as_py(),
        "standard_deviation": pc.stddev(finite).as_py(),
        "infinite": len(floats) - len(finite),
    }


def _quantiles(values: Any) -> dict[str, float]:
    import pyarrow.compute as pc

    found = pc.quantile(values, q=list(QUANTILES)).to_pylist() if len(values) else []
    return {str(q): value for q, value in zip(QUANTILES, found, strict=False)}


def _length_bins(lengths: "pa.ChunkedArray") -> list[int]:
    import numpy as np

    numbers = lengths.to_numpy().astype(np.float64)
    bins = np.minimum(np.floor(np.log2(np.maximum(numbers, 0.5))) + 1, LENGTH_BINS - 1).astype(int)
    return np.bincount(bins, minlength=LENGTH_BINS).tolist()


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def read_profile(store: Store, version: "Version") -> dict[str, Any]:
    """The profile written with a version. Raises WrongInput when a newer Slipway wrote it."""
    from infra.artifacts import check_format

    key = version.key(version.manifest["files"]["profile"]["name"])
    body = json.loads(store.get(key))
    check_format(body, FORMAT, key)
    return {"sample": {"row_ids": [], "columns": {}}, **body}
