"""Inputs that stand in a version more than once: across splits that were given, within one, under two labels.

Splits that Slipway assigns cannot leak an input, because equal inputs have one place. Splits that files or a column pin
are kept as given, so what they share is counted and named, and nothing is taken out (but see `near_duplicates`). Every
row of a finding stands in the version's `repeats` file.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from itertools import combinations
from typing import TYPE_CHECKING, Any

from data_contracts.splits import SPLITS

if TYPE_CHECKING:
    import pyarrow as pa

NAMED = 100
"""Groups that a finding names."""


def repeats(keys: Iterable[str]) -> list[list[int]]:
    """Groups of rows with one key, by their first row; rows that stand alone are left out."""
    first: dict[bytes, int] = {}
    groups: dict[int, list[int]] = {}
    for row, key in enumerate(keys):
        earlier = first.setdefault(sha256(key.encode()).digest()[:16], row)
        if earlier != row:
            groups.setdefault(earlier, [earlier]).append(row)
    return [groups[row] for row in sorted(groups)]


def remarks(
    groups: list[list[int]],
    splits: Sequence[str],
    labels: Sequence[Any] | None,
    origin: Callable[[int], tuple[str, int]],
) -> list[dict[str, Any]]:
    """Findings of severity warning: rule, reason, rows, and up to NAMED groups as `file:row = file:row`."""
    found = []

    def add(rule: str, chosen: list[list[int]], reason: str) -> None:
        if chosen:
            rows = len({row for group in chosen for row in group})
            named = [" = ".join("{}:{}".format(*origin(row)) for row in group) for group in chosen[:NAMED]]
            found.append({"rule": rule, "reason": reason, "rows": rows, "named": named})

    straddling = [group for group in groups if len({splits[row] for row in group}) > 1]
    pairs = Counter(
        pair
        for group in straddling
        for pair in combinations(sorted({splits[row] for row in group}, key=SPLITS.index), 2)
    )
    shared = ", ".join(f"{first}/{second} {count:,}" for (first, second), count in sorted(pairs.items()))
    add("split:leak", straddling, f"{_inputs(straddling, 'stands', 'stand')} in more than one split ({shared})")

    def within(chosen: list[list[int]]) -> str:
        sizes = Counter(
            split for group in chosen for split in SPLITS if [splits[row] for row in group].count(split) > 1
        )
        return ", ".join(f"{split} {sizes[split]:,}" for split in SPLITS if sizes[split])

    repeated = [group for group in groups if len({splits[row] for row in group}) < len(group)]
    add("inputs:repeated", repeated, f"{_inputs(repeated, 'is', 'are')} repeated within a split ({within(repeated)})")
    if labels is not None:
        twins = contradictions(groups, labels)
        inside = within([group for group in twins if _contradicts_inside(group, splits, labels)])
        where = f" (within a split: {inside})" if inside else ""
        add("label:contradictory", twins, f"{_inputs(twins, 'has', 'have')} more than one label{where}")
    return found


def _inputs(groups: list[list[int]], of_one: str, of_more: str) -> str:
    return f"1 input {of_one}" if len(groups) == 1 else f"{len(groups):,} inputs {of_more}"


def contradictions(groups: list[list[int]], labels: Sequence[Any]) -> list[list[int]]:
    """The groups whose rows have more than one label."""
    return [group for group in groups if len({labels[row] for row in group}) > 1]


def repeats_table(rows: Sequence[tuple[str, int, str, str, str | None, float]]) -> "pa.Table":
    """One row for each row of a finding: kind, group (rows with one number belong together), row_id, split, label,
    similarity to the group's other row (1: equal after normalising)."""
    import pyarrow as pa

    kinds = (pa.string(), pa.int64(), pa.string(), pa.string(), pa.string(), pa.float64())
    names = ("kind", "group", "row_id", "split", "label", "similarity")
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    return pa.table({name: pa.array(values, kind) for name, kind, values in zip(names, kinds, columns, strict=True)})


def _contradicts_inside(group: list[int], splits: Sequence[str], labels: Sequence[Any]) -> bool:
    seen: dict[str, Any] = {}
    return any(seen.setdefault(splits[row], labels[row]) != labels[row] for row in group)
