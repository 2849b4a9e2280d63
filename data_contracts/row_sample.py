"""A fixed sample of a version's rows, kept with its profile, so that a comparison never reads the version again.

The rows with the smallest row ids are taken: ids are hashes, so they are drawn as if by lot, the same ones each time,
and a row that two versions share is in both samples or nearly so. What is kept of a value is what a drift test needs:
a number, the beginning of a text, an image's pixel statistics; of a column marked as personal, a hash.
"""

import hashlib
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract

ROWS = 2000
"""Enough for a two-sample test to see an effect of 0.1 (facts of the tests: a shift of a fifth of a deviation)."""
CHARACTERS = 500
"""Of each text."""
ID_CHARACTERS = 16
PERSONAL = ("pii", "personal", "private", "sensitive", "confidential", "restricted", "secret")
"""A column whose `classification` says one of these words is kept out of every profile but as hashes."""


def personal_columns(contract: "Contract") -> set[str]:
    """Names of the columns whose ODCS `classification` marks them as personal or secret."""
    tables = contract.document.get("schema") or [{}]
    marks = {entry["name"]: str(entry.get("classification", "")) for entry in tables[0].get("properties") or []}
    return {name for name, mark in marks.items() if any(word in mark.lower() for word in PERSONAL)}


def hidden(value: Any, contract: "Contract") -> str:
    """What stands for a personal value: equal values of one dataset are equal, and two datasets cannot be joined."""
    text = value if isinstance(value, bytes) else str(value).encode()
    return "#" + hashlib.blake2b(text, key=contract.name.encode()[:64], digest_size=8).hexdigest()


def pick(table: "pa.Table") -> "pa.Table":
    """The rows with the smallest row ids, at most `ROWS`, by id."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = pa.table({"row_id": table.column("row_id")})
    order = pc.select_k_unstable(ids, k=min(ROWS, table.num_rows), sort_keys=[("row_id", "ascending")])
    return table.take(order)


def row_sample(table: "pa.Table", contract: "Contract", hashed: bool = False) -> dict[str, Any]:
    """{"row_ids": beginnings of ids, "columns": {name: one JSON value a row}} of the rows that `pick` chose.

    hashed: personal values are hashes already."""
    personal = personal_columns(contract)
    columns = {}
    for column in contract.columns:
        values = table.column(column.name)
        if column.name in personal and not hashed:
            columns[column.name] = [None if value is None else hidden(value, contract) for value in values.to_pylist()]
        elif column.type == "image":
            from data_contracts.pixels import statistics

            columns[column.name] = statistics(table, column.name)
        else:
            columns[column.name] = [_plain(value) for value in values.to_pylist()]
    return {"row_ids": [row_id[:ID_CHARACTERS] for row_id in table.column("row_id").to_pylist()], "columns": columns}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None  # JSON has no infinity; the profile counts them
    if isinstance(value, (list, dict)):
        return len(value)
    return str(value)[:CHARACTERS]
