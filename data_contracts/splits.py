"""Which split a row is in: arithmetic on a hash of what the model sees, so equal inputs never straddle a split.

A row's place is the first 8 bytes of SHA-256 of its key, as a fraction u in [0, 1): test = [0, t), validation =
[t, t + v), train = the rest. The key is the group column where the contract names one, else the normalised input
columns. Neither the label nor a column's or dataset's name is in it: duplicates and contradictory twins land
together, and sets that share texts and shares t, v agree on each text. A new row moves no old one.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract

SPLITS = ("train", "validation", "test")


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


def assign(table: "pa.Table", contract: "Contract") -> list[str]:
    """The split of each row of a cast table."""
    from data_contracts.rows import as_text

    split = contract.split
    columns = [split.group] if split.group else list(contract.inputs)
    texts: Iterable[tuple[str | None, ...]] = zip(*(as_text(table.column(name)) for name in columns), strict=True)
    return [split_of(key_of(values), split.test, split.validation) for values in texts]
