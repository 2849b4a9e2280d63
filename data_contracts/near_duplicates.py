"""Inputs of one split that nearly repeat one of another: found by MinHash LSH, confirmed by exact Jaccard.

What is compared is the set of 5-character pieces of a row's normalised text inputs (Broder 1997, "On the resemblance
and containment of documents"; short texts need characters where documents take words). Of a pair across splits the
training row leaves, between validation and test the validation row: a row may leave but never changes its split.

Candidates are so cheap to confirm that the bands are chosen to miss a pair at the threshold less than once in a
million: what is found depends on the rows, not on the luck of 128 hashes.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_contracts.splits import keys
from infra.progress import Progress

if TYPE_CHECKING:
    import pyarrow as pa
    from datasketch import LeanMinHash

    from data_contracts.contract import Contract

PIECE = 5
"""Characters."""
HASHES = 128
MISSED = 1e-6
"""At most this share of pairs exactly as similar as the threshold is not even a candidate."""
RULE = "inputs:near-duplicate"


@dataclass(frozen=True)
class Pair:
    leaves: int
    """Row number of the one that leaves."""
    stays: int
    similarity: float


def compared_columns(contract: "Contract") -> list[str]:
    """The text inputs; numbers and pixels have no pieces."""
    return [name for name in contract.inputs if contract.column(name).type == "string"]


def bands(similarity: float) -> tuple[int, int]:
    """(bands, rows of each): the most selective ones that miss no more than MISSED."""
    for rows in range(8, 0, -1):
        if (1 - similarity**rows) ** (HASHES // rows) < MISSED:
            return HASHES // rows, rows
    return HASHES, 1


def pieces(text: str) -> set[str]:
    """Every run of PIECE characters; a shorter text is one piece."""
    return {text[start : start + PIECE] for start in range(max(len(text) - PIECE + 1, 1))}


def near_duplicates(
    table: "pa.Table", splits: Sequence[str], contract: "Contract", progress: Progress | None = None
) -> list[Pair]:
    """For each row that has a near-duplicate in a split that matters more (test, then validation): the nearest one.

    `table` holds `compared_columns`. Rows that leave are no reason for others to leave.
    """
    from datasketch import MinHashLSH

    assert contract.duplicates is not None
    similarity = contract.duplicates["similarity"]
    columns = compared_columns(contract)
    texts = list(keys(table, columns))
    sketch = _sketcher()
    by_split = {name: [row for row, split in enumerate(splits) if split == name] for name in set(splits)}
    index = MinHashLSH(num_perm=HASHES, params=bands(similarity))
    found: list[Pair] = []
    done = 0
    for name in ("test", "validation", "train"):
        staying: dict[str, int] = {}  # text -> its first row
        for row in by_split.get(name, ()):
            done += 1
            if progress is not None and done % 1000 == 0:
                progress.update(done, len(texts), "looking for near-duplicates (rows)")
            text = texts[row]
            if not text:
                continue
            if name != "test":
                near = index.query(sketch(text))
                best = max(_confirmed(text, near, {one: pieces(texts[one]) for one in near}, similarity), default=None)
                if best is not None:
                    found.append(Pair(row, -best[1], best[0]))
                    continue
            if name != "train":
                staying.setdefault(text, row)
        for text, row in staying.items():  # after the whole split: its own rows are not what it is held against
            index.insert(row, sketch(text))
    return found


def near_copies(
    own: Sequence[str], other: Sequence[str], similarity: float, progress: Progress | None = None
) -> dict[int, tuple[int, float]]:
    """Row of `own` -> the first row of `other` that nearly repeats it, and how alike the two are; rows without one are
    left out. Both are normalised texts. Only `own` is held in the index, so that should be the smaller one."""
    from datasketch import MinHashLSH

    sketch, index = _sketcher(), MinHashLSH(num_perm=HASHES, params=bands(similarity))
    by_text: dict[str, list[int]] = {}
    for row, text in enumerate(own):
        if text:
            by_text.setdefault(text, []).append(row)
    held: dict[int, set[str]] = {}
    for text, rows in by_text.items():
        index.insert(rows[0], sketch(text))
        held[rows[0]] = pieces(text)
    first: dict[str, int] = {}
    for row, text in enumerate(other):
        first.setdefault(text, row)
    found: dict[int, tuple[int, float]] = {}
    for done, (text, row) in enumerate(first.items()):
        if progress is not None and done % 1000 == 0:
            progress.update(done, len(first), "looking for near-duplicates (rows)")
        for jaccard, minus in list(_confirmed(text, index.query(sketch(text)), held, similarity)) if text else ():
            found |= dict.fromkeys(by_text[own[-minus]], (row, jaccard))
            index.remove(-minus)  # else rows made from one template are compared each with each
    return found


def _sketcher() -> "Callable[[str], LeanMinHash]":
    from datasketch import LeanMinHash, MinHash

    blank = MinHash(num_perm=HASHES, hashfunc=lambda piece: zlib.crc32(piece.encode()))

    def sketch(text: str) -> "LeanMinHash":
        sketch = blank.copy()
        sketch.update_batch(pieces(text))
        return LeanMinHash(sketch)

    return sketch


def _confirmed(
    text: str, candidates: Sequence[int], held: Mapping[int, set[str]], similarity: float
) -> Iterator[tuple[float, int]]:
    """(Jaccard, minus the row) of the candidates that are near enough: the greatest is the nearest, first row."""
    own = pieces(text)
    for row in candidates:
        other = held[row]
        shared = len(own & other)
        jaccard = shared / (len(own) + len(other) - shared)
        if jaccard >= similarity:
            yield jaccard, -row
