"""What a dataset version looks like: counts, quantiles, categories and text lengths, small enough to compare for ever.

Histograms have fixed bins, so that two versions, made years apart, are compared without reading a row of either.
"""

import json
from typing import TYPE_CHECKING, Any

from infra.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract
    from data_contracts.registry import Version

FORMAT = 1
LENGTH_BINS = 20
"""Text length by power of two: bin 0 is the empty text, bin k holds 2**(k-1) to 2**k - 1 characters."""
MAX_CATEGORIES = 200
"""A text column with more distinct values than this has no category counts."""
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


def profile(table: "pa.Table", contract: "Contract") -> dict[str, Any]:
    """The profile of a version's kept rows, all splits together."""
    return {
        "format": FORMAT,
        "rows": table.num_rows,
        "label": contract.label,
        "inputs": list(contract.inputs),
        "columns": {column.name: _column(table.column(column.name), column.type) for column in contract.columns},
    }


def _column(values: "pa.ChunkedArray", kind: str) -> dict[str, Any]:
    import pyarrow.compute as pc

    found: dict[str, Any] = {"type": kind, "rows": len(values), "nulls": values.null_count}
    if kind in ("integer", "number"):
        return found | _numbers(values)
    if kind in ("date", "timestamp"):
        edges = pc.min_max(values).as_py()
        return found | {"min": _text(edges["min"]), "max": _text(edges["max"])}
    if kind == "string":
        lengths = pc.utf8_length(values).drop_null()
        found["length"] = {
            "bins": _length_bins(lengths),
            "mean": pc.mean(lengths).as_py(),
            "max": pc.max(lengths).as_py(),
        }
    distinct = pc.count_distinct(values).as_py()
    found["distinct"] = distinct
    if distinct <= MAX_CATEGORIES:
        counts = values.drop_null().value_counts().to_pylist()
        found["categories"] = dict(sorted((_text(entry["values"]), entry["counts"]) for entry in counts))
    return found


def _numbers(values: "pa.ChunkedArray") -> dict[str, Any]:
    import pyarrow.compute as pc

    floats = values.drop_null().cast("float64")
    finite = floats.filter(pc.is_finite(floats))
    if not len(finite):
        return {"quantiles": {}, "mean": None, "standard_deviation": None, "infinite": len(floats)}
    quantiles = pc.quantile(finite, q=list(QUANTILES)).to_pylist()
    return {
        "quantiles": {str(q): value for q, value in zip(QUANTILES, quantiles, strict=True)},
        "mean": pc.mean(finite).as_py(),
        "standard_deviation": pc.stddev(finite).as_py(),
        "infinite": len(floats) - len(finite),
    }


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
    return body
