"""The words of a text column in bounded space: how many, how many different ones, and the most common.

The number of different words is estimated from the k smallest of their hashes (Bar-Yossef et al., "Counting distinct
elements in a data stream", 2002, §2; k = 1,024: within about 3 %). The counts of the most common ones are exact up to
`KEPT` different words; beyond, a word that was rare at the beginning may be counted too low.
"""

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

SMALLEST = 1024
KEPT = 20_000
COMMON = 100
BATCH_ROWS = 50_000
LONGEST = 40
"""Characters: what is longer is an address or base64, and no word."""


def vocabulary(texts: "pa.ChunkedArray") -> dict[str, Any]:
    """{"words": total, "distinct": about how many different ones, "common": {word: count}}, lower case."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from pandas.util import hash_array

    total = 0
    counts: Counter[str] = Counter()
    smallest = np.empty(0, np.uint64)
    for start in range(0, len(texts), BATCH_ROWS):
        lower = pc.utf8_lower(texts.slice(start, BATCH_ROWS).drop_null())
        lists = pc.split_pattern_regex(lower, r"[^\pL\pN']+")
        words = pc.list_flatten(lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists)
        words = words.filter(
            pc.and_(pc.greater(pc.utf8_length(words), 0), pc.less_equal(pc.utf8_length(words), LONGEST))
        )
        total += len(words)
        found = words.value_counts()
        fresh = hash_array(found.field("values").to_numpy(zero_copy_only=False), categorize=False)
        smallest = np.unique(np.concatenate([smallest, fresh]))[:SMALLEST]
        if len(found) > KEPT:  # most are seen this once and never again
            found = found.filter(pc.greater(found.field("counts"), 1))
        names, seen = (found.field(name).to_pylist() for name in ("values", "counts"))
        counts.update(dict(zip(names, seen, strict=True)))
        if len(counts) > KEPT:
            counts = Counter(dict(counts.most_common(KEPT // 2)))
    full = len(smallest) == SMALLEST
    distinct = round((SMALLEST - 1) / (float(smallest[-1]) / 2**64)) if full else len(smallest)
    # Equally common words in their alphabet's order: the profile of the same rows is the same file.
    common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:COMMON]
    return {"words": total, "distinct": distinct, "common": dict(common)}
