"""Whether drawn pictures are copies: how near each is to a training picture, beside how near unseen pictures are."""

from collections.abc import Mapping
from typing import Any

import numpy as np

QUANTILE = 0.05
"""Of unseen pictures so many are nearer to a training picture: nearer ones are called copies."""


def nearness(
    book: Any,
    pixels: Mapping[str, np.ndarray],
    codes: Mapping[str, np.ndarray],
    split: str,
    pictures: np.ndarray,
    made: np.ndarray,
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """What is told of distances to the nearest training picture; the distance of each picture, and which it is.

    pixels, codes: of each split; unseen pictures are those of `split`. made: the codes of the pictures."""
    grid = (-1, book.grid, book.grid)
    unseen, _ = nearest(book.decode(codes[split].reshape(grid)), pixels["train"])
    distances, which = nearest(pictures, pixels["train"])
    known = {one.tobytes() for one in codes["train"]}
    return (
        {
            "drawn": float(np.median(distances)),
            "unseen": float(np.median(unseen)),
            "copies_below": float(np.quantile(unseen, QUANTILE)),
            "drawn_with_the_codes_of_a_training_picture": float(np.mean([one.tobytes() in known for one in made])),
            "unseen_with_the_codes_of_a_training_picture": float(
                np.mean([one.tobytes() in known for one in codes[split]])
            ),
        },
        distances,
        which,
    )


def nearest(pictures: np.ndarray, others: np.ndarray, at_once: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square of pixels, 0 to 1, to the nearest of others, and its number. Both (n, H, W, C) uint8."""
    flat = others.reshape(len(others), -1).astype(np.float32) / 255
    squares = np.square(flat).sum(1)
    distances, which = np.empty(len(pictures)), np.empty(len(pictures), int)
    for begin in range(0, len(pictures), at_once):
        part = pictures[begin : begin + at_once].reshape(-1, flat.shape[1]).astype(np.float32) / 255
        apart = np.square(part).sum(1)[:, None] - 2 * part @ flat.T + squares
        which[begin : begin + at_once] = apart.argmin(1)
        distances[begin : begin + at_once] = np.sqrt(np.maximum(apart.min(1), 0) / flat.shape[1])
    return distances, which
