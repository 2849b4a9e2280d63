"""Which split a row is in: arithmetic on a hash of what the model sees, so equal inputs never straddle a split.

A row's place is the first 8 bytes of SHA-256 of its key, as a fraction u in [0, 1): test = [0, t), validation =
[t, t + v), train = the rest. The key is the group column where the contract names one, else the normalised input
columns. Neither the label nor a column's or dataset's name is in it: duplicates and contradictory twins land
together, and sets that share texts and shares t, v agree on each text. A new row moves no old one. Splits that files
or a column pin are kept as given; what leaks between them is for `repeats` to say.
"""

import hashlib
import operator
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from infra.errors import WrongInput, choices

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract

SPLITS = ("train", "validation", "test")
BATCH_ROWS = 65_536
SPACE = r"\t-\r\x1c-\x1f "
"""What `str.split` takes for space in ASCII, in a regular expression's brackets."""


def normalise(text: str) -> str:
    """What of a text counts for its split: not case, not the width of space, not how an accent is composed."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.casefold().split())


def split_of(key: str, test: float, validation: float) -> str:
    """The split of one normalised key."""
    # Python's fractions of 2**64 round; comparing integers keeps [0, t) the same everywhere.
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    if place < round(test * 2**64):
        return "test"
    if place < round((test + validation) * 2**64):
        return "validation"
    return "train"


def key_of(values: Sequence[str | None]) -> str:
    """The key of a row from its input values as text: one column's text alone, several with their lengths."""
    if len(values) == 1:
        return normalise(values[0] or "")
    parts = ["" if value is None else normalise(value) for value in values]
    return "".join(f"{len(part)}:{part}" for part in parts)


def key_columns(contract: "Contract") -> list[str]:
    """The columns that `assign` needs."""
    split = contract.split
    return [split.column] if split.column else [split.group] if split.group else list(contract.inputs)


def redrawn(before: "Contract", now: "Contract") -> str | None:
    """What of a contract draws its splits otherwise than before, as a sentence; None where no row changes its place."""
    old, new = _drawn(before), _drawn(now)
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if not changed:
        return None
    was, are = (", ".join(f"{name} {found.get(name, 'none')}" for name in changed) for found in (old, new))
    return (
        f"splits are drawn anew ({are}; was {was}): rows change places, and a model of an earlier version may have "
        "trained on what is test now"
    )


def _drawn(contract: "Contract") -> dict[str, Any]:
    split = contract.split
    if split.column is not None:
        return {"column": split.column, "values": split.values}
    found: dict[str, Any] = {"files": split.files} if split.files else {}
    if split.test or split.validation:
        found |= {"by": ", ".join(key_columns(contract)), "test": split.test, "validation": split.validation}
    return found


def keys(table: "pa.Table", columns: Sequence[str]) -> Iterator[str]:
    """The key of each row of a cast table: what `key_of` says, by Arrow, a batch at a time."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from data_contracts.rows import exact_text

    for batch in table.select(columns).to_batches(max_chunksize=BATCH_ROWS):
        texts = []
        for values in batch.columns:
            text = pc.fill_null(exact_text(values), "")
            texts.append(_normalised(text) if pa.types.is_string(values.type) else text)
        if len(texts) > 1:
            parts = [pc.binary_join_element_wise(pc.utf8_length(text).cast(pa.string()), text, ":") for text in texts]
            texts = [pc.binary_join_element_wise(*parts, "")]
        yield from texts[0].to_pylist()


def _normalised(texts: "pa.Array") -> "pa.Array":
    """`normalise` of each text; by Arrow where all of them are ASCII, where it agrees with Python."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pc.all(pc.string_is_ascii(texts)).as_py():
        return pa.array([normalise(text) for text in texts.to_pylist()], pa.string())
    lower = pc.utf8_lower(texts)
    if pc.any(pc.match_substring_regex(lower, f"[{SPACE}]{{2}}|[{SPACE.rstrip()}]|^ | $")).as_py():
        lower = pc.utf8_trim(pc.replace_substring_regex(lower, f"[{SPACE}]+", " "), " ")
    return lower


def assign(table: "pa.Table", contract: "Contract", files: Sequence[str]) -> list[str]:
    """The split of each row of a cast table; `files` says of each row which file it is from.

    Raises WrongInput for a row that no split is said for.
    """
    split = contract.split
    if split.column is not None:
        return _said(table, contract)
    if split.files:
        places = {file: pinned_to(file, contract) for file in dict.fromkeys(files)}
        given = [places[file] for file in files]
        if not split.validation and not split.test:
            return given
        carved = (split_of(key, split.test, split.validation) for key in keys(table, key_columns(contract)))
        return [own if place == "train" else place for place, own in zip(given, carved, strict=True)]
    return [split_of(key, split.test, split.validation) for key in keys(table, key_columns(contract))]


def _said(table: "pa.Table", contract: "Contract") -> list[str]:
    name = contract.split.column
    assert name is not None
    meaning = {split: split for split in SPLITS} | contract.split.values
    found = []
    for value in table.column(name).to_pylist():
        if str(value) not in meaning:
            raise WrongInput(
                f"contract {contract.path}: slipway.split.column: {name} '{value}' is no split; "
                f"{choices(str(value), SPLITS)} (or say which it is: values: {{{value}: validation}})"
            )
        found.append(meaning[str(value)])
    return found


GLOB = re.compile(r"(\*\*/|\*\*|\*|\?|\[!?\]?[^]]*\])")
WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def fits(name: str, pattern: str) -> bool:
    """Whether a glob finds a path below a folder: as `glob` on disk does, for names that are not on this disk."""
    parts = GLOB.split(pattern)
    wild = [
        WILD.get(part) or f"[{part[1:-1].replace('!', '^', 1) if part[1] == '!' else part[1:-1]}]"
        for part in parts[1::2]
    ]
    whole = [
        re.escape(parts[0]),
        *(one for pair in zip(wild, map(re.escape, parts[2::2]), strict=True) for one in pair),
    ]
    return re.fullmatch("".join(whole), name, re.DOTALL) is not None


def pinned_to(file: str, contract: "Contract") -> str:
    """The split that a file is pinned to; its own name counts before a glob that fits. Raises WrongInput."""
    claims = contract.split.files
    for fit in (operator.eq, fits):
        found = [name for name, patterns in claims.items() if any(fit(file, pattern) for pattern in patterns)]
        if len(found) == 1:
            return found[0]
        if found:
            raise WrongInput(
                f"contract {contract.path}: slipway.split.files: {file} is claimed by {' and '.join(found)}; keep one"
            )
    if file in claims:  # the hub's splits have no files
        return file
    raise WrongInput(f"contract {contract.path}: slipway.split.files: names no split for {file}; add it, or a glob")
