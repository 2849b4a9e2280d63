"""PCA as a codec of pictures, the linear one that an autoencoder has to beat: with as many numbers, or as many bits.

Of bits: the largest components, each with the same number of bits, cut uniformly over a range of so many standard
deviations. How many bits a component, and which range: whatever does best on the validation split. RANGES surround the
best ones for a Gaussian (Max, "Quantizing for minimum distortion", IRE Trans. Information Theory 6(1), 1960, table II).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_BITS = 8
RANGES = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
"""From the middle to the ends, in standard deviations of a component."""


@dataclass(frozen=True)
class LinearCodec:
    mean: np.ndarray
    """(D,), of pixel values from 0 to 1"""
    axes: np.ndarray
    """(components, D), orthonormal, the largest first"""
    deviations: np.ndarray
    """(components,)"""
    bits: int | None = None
    """Of a component; None: it is not cut."""
    reach: float = 0.0

    def reconstruct(self, pixels: np.ndarray) -> np.ndarray:
        """(n, H, W, C) uint8 -> the same"""
        found = self.mean + self.cut(self.numbers(pixels)) @ self.axes
        return (255 * found).round().clip(0, 255).astype(np.uint8).reshape(pixels.shape)

    def numbers(self, pixels: np.ndarray) -> np.ndarray:
        """(n, H, W, C) uint8 -> (n, components)"""
        return (values(pixels) - self.mean) @ self.axes.T

    def cut(self, numbers: np.ndarray) -> np.ndarray:
        """Each number as the middle of the cell it falls into."""
        if self.bits is None:
            return numbers
        cells = 2**self.bits
        step = 2 * self.reach * self.deviations / cells
        cell = np.clip(
            np.floor(np.divide(numbers, step, out=np.zeros_like(numbers), where=step > 0)), -cells // 2, cells // 2 - 1
        )
        return (cell + 0.5) * step


def values(pixels: np.ndarray) -> np.ndarray:
    """(n, H, W, C) uint8 -> (n, D) from 0 to 1"""
    return pixels.reshape(len(pixels), -1).astype(np.float32) / 255


def fit_pca(train: np.ndarray, components: int) -> Any:
    """scikit-learn's PCA of (N, H, W, C) uint8 pictures, of at most so many components."""
    from sklearn.decomposition import PCA

    found = values(train)
    return PCA(min(components, *found.shape), random_state=0).fit(found)


def linear_codec(pca: Any) -> LinearCodec:
    return LinearCodec(pca.mean_, pca.components_, np.sqrt(pca.explained_variance_))


def best_quantised(pca: Any, held_out: np.ndarray, bits: float) -> tuple[LinearCodec, list[dict[str, Any]]]:
    """The codec of at most so many bits a picture that errs least on held-out pictures, and all that were tried: of
    each number of bits a component its best range. pca: of at least `bits` components where there are so many."""
    whole = linear_codec(pca)
    numbers = whole.numbers(held_out)
    power = np.square(values(held_out) - whole.mean).sum(1)  # (n,)
    size = held_out[0].size
    found: list[tuple[float, LinearCodec]] = []
    tried = []
    for each in range(1, MOST_BITS + 1):
        count = min(int(bits // each), len(whole.axes))
        if not count:
            continue
        kept = numbers[:, :count]
        left = power - np.square(kept).sum(1)  # in the components that are left out
        options = [
            LinearCodec(whole.mean, whole.axes[:count], whole.deviations[:count], each, reach) for reach in RANGES
        ]
        errors = [float((left + np.square(kept - one.cut(kept)).sum(1)).mean() / size) for one in options]
        best = int(np.argmin(errors))
        found.append((errors[best], options[best]))
        tried.append({"bits a component": each, "components": count, "range": RANGES[best], "error": errors[best]})
    return min(found, key=lambda one: one[0])[1], tried
