"""Texts that belong together, for sentence embeddings: pairs of a dataset, or neighbouring passages of its texts; and
for each a text that looks alike and does not belong."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from training.text import text_rows

if TYPE_CHECKING:
    import pyarrow

BLOCK = 256
"""Rows of the matrix of similarities that are held at once."""


@dataclass
class Pool:
    """Each text once, and the row that it was first found in."""

    texts: list[str] = field(default_factory=list)
    row_ids: list[str] = field(default_factory=list)
    known: dict[str, int] = field(default_factory=dict)

    def add(self, text: str, row_id: str) -> int:
        number = self.known.setdefault(text, len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
            self.row_ids.append(row_id)
        return number


@dataclass(frozen=True)
class Pairs:
    texts: np.ndarray
    """(N, 2) int32: numbers of texts in the pool."""
    row_ids: list[str]
    labels: list[Any]
    """One a pair; None where the dataset has none."""

    def only(self, kept: Sequence[bool]) -> "Pairs":
        index = np.flatnonzero(np.asarray(kept, dtype=bool))
        return Pairs(self.texts[index], [self.row_ids[i] for i in index], [self.labels[i] for i in index])


def read_pairs(table: "pyarrow.Table", inputs: Sequence[str], label: str | None, pool: Pool) -> Pairs:
    """The pairs of a table with two input columns. Raises WrongInput for another number of them."""
    row_ids = table["row_id"].to_pylist()
    found = [
        [pool.add(text or "", row_id) for text in pair]
        for pair, row_id in zip(text_rows(table, inputs), row_ids, strict=True)
    ]
    labels = table[label].to_pylist() if label else [None] * len(found)
    return Pairs(np.array(found, np.int32).reshape(-1, 2), row_ids, labels)


def neighbours(table: "pyarrow.Table", column: str, words: int, pool: Pool) -> Pairs:
    """Each passage of each text with the one after it: sections of one article are closer than those of others
    (Reimers & Gurevych, EMNLP 2019, §4.4)."""
    found, row_ids = [], []
    for row_id, text in zip(table["row_id"].to_pylist(), table[column].to_pylist(), strict=True):
        numbers = [pool.add(passage, row_id) for passage in passages(text or "", words)]
        following = [pair for pair in pairwise(numbers) if pair[0] != pair[1]]
        found += following
        row_ids += [row_id] * len(following)
    return Pairs(np.array(found, np.int32).reshape(-1, 2), row_ids, [None] * len(found))


def passages(text: str, words: int) -> Iterator[str]:
    """Whole paragraphs together while they fit into `words` words; a longer paragraph is cut. White space is one
    blank each."""
    held: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        new = paragraph.split()
        if held and len(held) + len(new) > words:
            yield " ".join(held)
            held = []
        held += new
        while len(held) >= words:
            yield " ".join(held[:words])
            held = held[words:]
    if held:
        yield " ".join(held)


def tfidf(texts: Sequence[str]) -> Any:
    """(N, words) sparse, rows of length 1, as `training.baseline` weighs words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(sublinear_tf=True, dtype=np.float32, token_pattern=r"\S+").fit_transform(texts)


def mine_negatives(features: Any, pairs: np.ndarray) -> np.ndarray:
    """For each pair the second text of another pair that is most alike to its first, and was never paired with it.

    features: (texts, D) rows of length 1, sparse or dense. pairs: (N, 2) int. Returns (N,) int32; a pair's own second
    text where there is no other. A negative this near may be a positive that nobody marked: see the lab sheet.
    """
    candidates = np.unique(pairs[:, 1])
    place = {int(text): number for number, text in enumerate(candidates)}
    barred: dict[int, set[int]] = {}
    for first, second in pairs.tolist():
        barred.setdefault(first, {first}).add(second)
        barred.setdefault(second, {second}).add(first)
    found = pairs[:, 1].astype(np.int32)
    for begin in range(0, len(pairs), BLOCK):
        block = pairs[begin : begin + BLOCK, 0]
        alike = features[block] @ features[candidates].T
        alike = alike.toarray() if hasattr(alike, "toarray") else alike
        for row, first in enumerate(block.tolist()):
            alike[row, [place[text] for text in barred[first] if text in place]] = -np.inf
        best = alike.argmax(1)
        there = np.isfinite(alike[np.arange(len(block)), best])
        found[begin : begin + BLOCK][there] = candidates[best[there]]
    return found
