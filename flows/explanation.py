"""What changed from A to B between two trees of a step's ingredients, in words."""

import json
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from flows import code_key

SHOWN = 3
"""Files that a line names."""


def explain(before: Any, after: Any, path: str = "") -> list[str]:
    """One line a difference, as `training.epochs: from 4 to 6`; nothing for trees that are equal as JSON."""
    before, after = json.loads(json.dumps([before, after]))  # a record has lists where the step has tuples
    return _explain(before, after, path)


def _explain(before: Any, after: Any, path: str) -> list[str]:
    if before == after:
        return []
    if path == "code":
        return code_key.changes(before, after)
    if isinstance(before, dict) and isinstance(after, dict):
        found = []
        for name in sorted({*before, *after}):
            inner = f"{path}.{name}" if path else name
            if name not in before:
                found.append(f"{inner}: new, {_short(after[name])}")
            elif name not in after:
                found.append(f"{inner}: gone, was {_short(before[name])}")
            else:
                found += _explain(before[name], after[name], inner)
        return found
    if path.startswith("moved") and isinstance(before, list) and isinstance(after, list):
        return [f"{path}: {_moved(before, after)}"]
    return [f"{path}: from {_short(before)} to {_short(after)}"]


def _moved(before: list[Any], after: list[Any]) -> str:
    """What became of a source's files, each a list that begins with its name: [name, bytes, ns] on disk."""
    old, new = ({str(row[0] if isinstance(row, list) else row): row for row in rows} for rows in (before, after))
    said = [
        f"{PurePath(name).name} is new" if name not in old
        else f"{PurePath(name).name} is gone" if name not in new
        else f"{PurePath(name).name} changed{_from_to(old[name], new[name])}"
        for name in {**new, **old}
        if old.get(name) != new.get(name)
    ]  # fmt: skip
    more = f", and {len(said) - SHOWN} more" if len(said) > SHOWN else ""
    return ", ".join(said[:SHOWN]) + more if said else "the order of its files changed"


def _from_to(old: Any, new: Any) -> str:
    try:
        (_, was, then), (_, size, when) = old, new
        moments = [datetime.fromtimestamp(one / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S") for one in (then, when)]
    except (TypeError, ValueError, OverflowError):
        return ""  # a source that tells less of its files
    if was != size:
        return f" from {was:,} to {size:,} bytes"
    return f" from {moments[0]} to {moments[1]} UTC, {size:,} bytes both"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    is_digest = len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)
    return text[:12] if is_digest else text[:80]
