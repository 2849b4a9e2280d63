"""The parts of a test split where a model does worst, found by a shallow tree, and honestly judged.

A tree that looks for the worst rows finds some in any noise. So the tree is grown on one half of the rows and its
leaves are judged on the other (Athey & Imbens, "Recursive partitioning for heterogeneous causal effects", PNAS
113(27), 2016, §2: honest trees). What it may split by: the label, the contract's columns, lengths of texts.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from infra.digests import digest_bytes

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from data_contracts.contract import Contract

DEPTH = 2
WEAKEST = 3
"""Leaves handed on: each one more asks more of all."""
MAX_CATEGORIES = 20
LEAST_SHARE = 0.05
"""Of the rows that a leaf holds at least."""


def features(table: "pa.Table", labels: Sequence[str], contract: "Contract") -> "dict[str, np.ndarray]":
    """Name -> value of each row, (N,) float, NaN where there is none. `A = b` is 0 or 1.

    Left out: what is personal, and texts themselves (their lengths are in).
    """
    import numpy as np

    from data_contracts.row_sample import personal_columns

    personal = personal_columns(contract)
    found: dict[str, np.ndarray] = {}

    def categories(name: str, values: "np.ndarray") -> bool:
        kinds, counts = np.unique(values, return_counts=True)
        few = 1 < len(kinds) <= MAX_CATEGORIES
        for kind in kinds[np.argsort(-counts, kind="stable")][:MAX_CATEGORIES] if few or name == "label" else ():
            found[f"{name} = {kind}"] = (values == kind).astype(float)
        return few

    if contract.label not in personal:
        categories("label", np.array(labels, dtype=object).astype(str))
    for column in contract.columns:
        if column.name == contract.label or column.type == "image" or column.name not in table.column_names:
            continue
        values = table[column.name].to_pylist()
        if column.type in ("integer", "number"):
            found[column.name] = np.array([np.nan if value is None else value for value in values], dtype=float)
        elif column.type in ("string", "boolean"):
            texts = np.array(["none" if value is None else str(value) for value in values], dtype=object)
            if column.name in personal or categories(column.name, texts.astype(str)) or column.type == "boolean":
                continue
            found[f"characters of {column.name}"] = np.array([len(text) for text in texts], dtype=float)
            found[f"words of {column.name}"] = np.array([len(text.split()) for text in texts], dtype=float)
    return found


def weak_slices(
    row_ids: Sequence[str], found: "Mapping[str, np.ndarray]", gains: "np.ndarray", minimum: int
) -> "dict[str, np.ndarray]":
    """The `WEAKEST` leaves, worst first: what they hold in words -> the rows to judge them on, (N,) bool.

    gains: (N,) what is looked for the least of, row by row. A leaf has at least `minimum` rows to be judged on.
    """
    import numpy as np
    from sklearn.tree import DecisionTreeRegressor

    to_grow = np.array([digest_bytes(row_id.encode())[0] in "01234567" for row_id in row_ids])
    if not found or to_grow.sum() < 4 * minimum:
        return {}
    names, columns = list(found), np.stack(list(found.values()), 1)
    least = max(2 * minimum, int(LEAST_SHARE * to_grow.sum()))  # twice: chance leaves fewer on the other half
    tree = DecisionTreeRegressor(max_depth=DEPTH, min_samples_leaf=least, random_state=0)
    tree.fit(columns[to_grow], gains[to_grow])
    leaf = tree.apply(columns)
    means = {number: gains[to_grow & (leaf == number)].mean() for number in np.unique(leaf[to_grow])}
    said = _paths(tree.tree_, names)
    slices: dict[str, np.ndarray] = {}
    for number in sorted(means, key=lambda one: (means[one], one)):
        rows = ~to_grow & (leaf == number)
        if said[number] and rows.sum() >= minimum and len(slices) < WEAKEST:
            slices[said[number]] = rows
    return slices


def _paths(tree: Any, names: Sequence[str]) -> dict[int, str]:
    """Leaf -> the conditions that lead there, in words."""
    found: dict[int, str] = {}
    waiting: list[tuple[int, dict[str, str]]] = [(0, {})]
    while waiting:
        node, conditions = waiting.pop()
        if tree.children_left[node] < 0:
            found[int(node)] = " and ".join(conditions.values())
            continue
        name, limit = names[tree.feature[node]], tree.threshold[node]
        # Keyed by column and side: a later, tighter bound replaces an earlier one.
        if " = " in name:
            left, right = name.replace(" = ", " \N{NOT EQUAL TO} ", 1), name
        else:
            left, right = f"{name} \N{LESS-THAN OR EQUAL TO} {limit:g}", f"{name} > {limit:g}"
        waiting.append((tree.children_left[node], {**conditions, f"{name} left": left}))
        waiting.append((tree.children_right[node], {**conditions, f"{name} right": right}))
    return found
