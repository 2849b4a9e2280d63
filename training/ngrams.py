"""An interpolated n-gram model: how surprising each token is after the few before it, by counting.

Witten & Bell, "The zero-frequency problem", IEEE Transactions on Information Theory 37(4), 1991, method C, interpolated
as in Chen & Goodman, "An empirical study of smoothing techniques for language modeling", TR-10-98, Harvard 1998, §2.5:

    p_n(w | h) = (c(h w) + T(h) p_{n-1}(w | h')) / (c(h) + T(h))

c: count in training; T(h): how many different tokens followed h; h': h without its first token; p_0: 1 / vocabulary.
It has no parameter but its order. No library here counts a million tokens of order 8 in seconds.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def surprisals(
    train: "Sequence[np.ndarray]", texts: "Sequence[np.ndarray]", vocabulary: int, order: int
) -> "np.ndarray":
    """-log p of every token of `texts` in nats, by the models of order 1 to `order`: (order, tokens), the texts end to
    end. train, texts: token ids of each text; no context reaches over a text's beginning."""
    import numpy as np

    together = [*train, *texts]
    ids = np.concatenate([np.asarray(text, np.int64) for text in together] or [np.empty(0, np.int64)])
    lengths = np.array([len(text) for text in together], np.int64)
    begins = np.repeat(np.cumsum(lengths) - lengths, lengths)
    place = np.arange(len(ids)) - begins
    seen = int(lengths[: len(train)].sum())
    context = np.zeros(len(ids), np.int64)
    probability = np.full(len(ids) - seen, 1 / vocabulary)
    found = np.empty((order, len(ids) - seen))
    for length in range(order):  # tokens of context
        there = place >= length
        _, event = np.unique(context * vocabulary + ids, return_inverse=True)
        counted = there[:seen]
        count = np.bincount(event[:seen][counted], minlength=event.max(initial=0) + 1)
        total = np.bincount(context[:seen][counted], minlength=context.max(initial=0) + 1)
        first = np.unique(event[:seen][counted], return_index=True)[1]
        kinds = np.bincount(context[:seen][counted][first], minlength=len(total))
        asked = seen + np.flatnonzero(there[seen:] & (total[context[seen:]] > 0))
        kind, whole = kinds[context[asked]], total[context[asked]]
        lower = probability[asked - seen]
        probability[asked - seen] = (count[event[asked]] + kind * lower) / (whole + kind)
        found[length] = -np.log(probability)
        context = np.concatenate([[0], event[:-1]])  # what was seen one token earlier, and that token
    return found
