"""Texts: whether a classifier on hashed words and word pairs can tell the two versions apart.

The features are those of a plain text classifier: words, punctuation and neighbouring pairs, hashed to 2**16 places
(Weinberger et al., "Feature hashing", 2009), each text of length 1. Scripts written without spaces are taken letter by
letter. Length alone has a comparison of its own.
"""

import re
from collections import Counter
from typing import Any

from data_contracts.two_samples import MIN_ROWS, folds_of, separate

TYPES = ("string",)
MEASURE = "2 AUC - 1"
TOKEN = re.compile(r"[^\W\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]+|\w|[^\w\s]")
PLACES = 2**16
STRENGTH = 1.0


def take(column: dict[str, Any], sample: list[Any]) -> list[str] | None:
    return [value for value in sample if value is not None] if sample else None


def compare(before: list[str], after: list[str]) -> dict[str, Any]:
    """{statistic, p_value, effect, sentence, interval}: statistic and interval are of the AUC."""
    if min(len(before), len(after)) < MIN_ROWS:
        few = f"{min(len(before), len(after))} texts are too few to tell ({MIN_ROWS})"
        return {"statistic": 0.5, "p_value": 1.0, "effect": 0.0, "sentence": few, "interval": (0.0, 1.0)}
    import numpy as np
    from sklearn.feature_extraction.text import HashingVectorizer

    texts = [*before, *after]
    hashing = HashingVectorizer(
        tokenizer=TOKEN.findall, token_pattern=None, ngram_range=(1, 2), n_features=PLACES, alternate_sign=False
    )
    newer = np.repeat([0, 1], [len(before), len(after)])
    found = separate(hashing.transform(texts), newer, folds_of([text.encode() for text in texts]), STRENGTH)
    return {
        "statistic": found.auc,
        "p_value": found.p_value,
        "effect": found.effect,
        "sentence": f"AUC {found.auc:.3f} ({found.low:.3f} to {found.high:.3f}); {_telling(before, after)}",
        "interval": (found.low, found.high),
    }


def _telling(before: list[str], after: list[str]) -> str:
    """The word whose share of texts changed most, for people."""
    old, new = (Counter(word for text in side for word in set(words_of(text))) for side in (before, after))
    changes = {word: new[word] / len(after) - old[word] / len(before) for word in old.keys() | new.keys()}
    if not changes:
        return "no words in either"
    word = max(changes, key=lambda word: (abs(changes[word]), word))
    return f"'{word[:40]}' in {old[word] / len(before):.1%} -> {new[word] / len(after):.1%} of texts"


def words_of(text: str) -> list[str]:
    return [token for token in TOKEN.findall(text.lower()) if token.isalnum()]
