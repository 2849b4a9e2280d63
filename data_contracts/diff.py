"""What two versions of a dataset differ in: schema, rows, labels, splits, distribution.

Rows are matched by a declared unique column where there is one, else by the contract's group column; a row whose key
is in both versions under another row id has changed. Without either, rows are added and removed by row id. Only ids
are held of rows that are in both.
"""

from collections import Counter, defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from data_contracts.profile import read_profile
from data_contracts.registry import Version, contract_of, read_split
from data_contracts.row_sample import hidden, personal_columns
from data_contracts.splits import SPLITS
from infra.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract

FORMAT = 1
Ids = defaultdict[Any, list[tuple[str, str]]]
"""Key -> (row id, split) of each row that has it."""
SHOWN = 20
"""Changed rows that a diff shows; all are counted."""


def diff(store: Store, before: Version, after: Version) -> dict[str, Any]:
    """{"format", "before", "after", "schema", "rows", "labels", "distribution"}: JSON values."""
    old, new = contract_of(store, before), contract_of(store, after)
    return {
        "format": FORMAT,
        "before": f"{before.name}@{before.digest}",
        "after": f"{after.name}@{after.digest}",
        "same_rows": before.rows == after.rows,
        "schema": _schema(old, new),
        "counts": {name: [before.counts.get(name, 0), after.counts.get(name, 0)] for name in after.counts},
        "rows": _rows(store, before, after, old, new),
        "labels": _labels(store, before, after, old, new),
        "distribution": _distribution(store, before, after, new),
    }


def _schema(old: "Contract", new: "Contract") -> dict[str, Any]:
    was, now = ({column.name: column for column in contract.columns} for contract in (old, new))
    return {
        "added": [name for name in now if name not in was],
        "removed": [name for name in was if name not in now],
        "changed": [
            {"column": name, "field": field, "before": first, "after": second}
            for name in was
            if name in now
            for field in ("type", "arrow", "required", "unique", "severity")
            if (first := getattr(was[name], field)) != (second := getattr(now[name], field))
        ],
        "inputs": [list(old.inputs), list(new.inputs)] if old.inputs != new.inputs else None,
        "label": [old.label, new.label] if old.label != new.label else None,
        "contract_changed": old.digest != new.digest,
    }


def _key(old: "Contract", new: "Contract") -> tuple[str | None, str]:
    """The column that rows are matched by in both versions, and why: "unique" or "group"."""
    was = {column.name for column in old.columns}
    for column in new.columns:
        if column.unique and column.name in was:
            return column.name, "unique"
    group = new.split.group
    return (group, "group") if group is not None and group in was else (None, "row id")


def _table(store: Store, version: Version, key: str | None) -> "pa.Table":
    """row_id, split and key of every kept row."""
    import pyarrow as pa

    parts = []
    for split in SPLITS:
        part = read_split(store, version, split, [key] if key else [])
        parts.append(part.append_column("split", pa.array([split] * part.num_rows, pa.string())))
    return pa.concat_tables(parts)


def _rows(store: Store, before: Version, after: Version, old: "Contract", new: "Contract") -> dict[str, Any]:
    import pyarrow.compute as pc

    key, why = _key(old, new)
    was, now = _table(store, before, key), _table(store, after, key)
    in_both = pc.is_in(now.column("row_id"), value_set=was.column("row_id"))
    gone = was.filter(pc.invert(pc.is_in(was.column("row_id"), value_set=now.column("row_id"))))
    come = now.filter(pc.invert(in_both))
    found: dict[str, Any] = {
        "matched_by": key or "row id",
        "same": was.num_rows - gone.num_rows,
        "added": come.num_rows,
        "removed": gone.num_rows,
        "changed": 0,
        "moved": _moved(was, now.filter(in_both)),
    }
    if key is None:
        return found
    removed: Ids = defaultdict(list)
    added: Ids = defaultdict(list)
    for table, by_key in ((gone, removed), (come, added)):
        for value, row_id, split in zip(*(table.column(name).to_pylist() for name in (key, "row_id", "split")),
                                        strict=True):  # fmt: skip
            by_key[value].append((row_id, split))
    shared = [value for value in removed if value is not None and value in added]
    # Within one key as many rows have changed as there are on both sides; the rest came or went.
    changed = sum(min(len(removed[value]), len(added[value])) for value in shared)
    found |= {"added": come.num_rows - changed, "removed": gone.num_rows - changed, "changed": changed}
    personal = personal_columns(old) | personal_columns(new)
    if why == "unique":
        pairs = [(removed[value][0], added[value][0]) for value in shared]
        found |= _values(store, before, after, pairs, [column.name for column in new.columns], personal, new)
    else:
        shown = [hidden(value, new) if key in personal else value for value in shared[:SHOWN]]
        found["groups"] = {"changed": len(shared), "shown": [str(value) for value in shown]}
    return found


def _moved(was: "pa.Table", now: "pa.Table") -> int:
    """Rows of both versions that changed their split: none ever should."""
    joined = was.select(["row_id", "split"]).join(now.select(["row_id", "split"]), "row_id", right_suffix="_now",
                                                  join_type="inner")  # fmt: skip
    import pyarrow.compute as pc

    return int(pc.sum(pc.not_equal(joined.column("split"), joined.column("split_now"))).as_py() or 0)


def _values(
    store: Store,
    before: Version,
    after: Version,
    pairs: list[tuple[tuple[str, str], tuple[str, str]]],
    names: list[str],
    personal: set[str],
    contract: "Contract",
) -> dict[str, Any]:
    """How often each column differs in the changed rows, and the first rows; of personal columns hashes, of pixels
    nothing."""
    there = {column["name"] for column in before.manifest["columns"]}
    names = [name for name in names if name in there and contract.column(name).type != "image"]
    sides = (
        _taken(store, before, [old for old, _ in pairs], names),
        _taken(store, after, [new for _, new in pairs], names),
    )
    columns: Counter[str] = Counter()
    examples: list[dict[str, Any]] = []
    for (old_id, _), (new_id, _) in pairs:
        differing = {}
        for name in names:
            first, second = sides[0][old_id][name], sides[1][new_id][name]
            if first != second:
                columns[name] += 1
                differing[name] = [_shown(value, name in personal, contract) for value in (first, second)]
        if len(examples) < SHOWN:
            examples.append({"before": old_id, "after": new_id, "columns": differing})
    return {"columns": dict(columns.most_common()), "examples": examples}


def _shown(value: Any, personal: bool, contract: "Contract") -> Any:
    if value is None or (isinstance(value, bool | int | float) and not personal):
        return value
    return hidden(value, contract) if personal else str(value)[:200]


def _taken(store: Store, version: Version, rows: list[tuple[str, str]], names: list[str]) -> dict[str, dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    found = {}
    for split in SPLITS:
        wanted = [row_id for row_id, place in rows if place == split]
        if wanted:
            table = read_split(store, version, split, names)
            part = table.filter(pc.is_in(table.column("row_id"), value_set=pa.array(wanted, pa.string())))
            found.update({row.pop("row_id"): row for row in part.to_pylist()})
    return found


def _labels(store: Store, before: Version, after: Version, old: "Contract", new: "Contract") -> dict[str, list[int]]:
    """Label -> its rows before and after; empty for labels that are numbers or lists, and where there is none."""
    if new.label is None or old.label != new.label or new.column(new.label).type in ("number", "array"):
        return {}
    personal = new.label in personal_columns(new)
    sides = []
    for version in (before, after):
        counts: Counter[str] = Counter()
        for split in SPLITS:
            for entry in read_split(store, version, split, [new.label]).column(new.label).value_counts().to_pylist():
                value = entry["values"]
                counts["" if value is None else hidden(value, new) if personal else str(value)] += entry["counts"]
        sides.append(counts)
    return {label: [sides[0][label], sides[1][label]] for label in sorted(sides[0].keys() | sides[1].keys())}


def _distribution(store: Store, before: Version, after: Version, contract: "Contract") -> list[dict[str, Any]]:
    """Drift of each column that both have, by the newer contract's policy, as `slipway data drift` judges it."""
    from data_contracts.drift import compare

    if before.digest == after.digest:
        return []
    names = ("column", "kind", "test", "p_value", "effect", "drifted", "change", "sentence")
    return [
        {name: asdict(one)[name] for name in names}
        for one in compare(read_profile(store, before), read_profile(store, after), contract)
    ]
