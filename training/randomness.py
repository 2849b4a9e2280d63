"""Random numbers that are arithmetic on (seed, stream, sample): the same for any number of workers, after any resume.

Every number is a hash of its coordinates (SplitMix64's finaliser: Steele, Lea & Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014, §5), so nothing has to be stored, replayed or kept in step between processes.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(value: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser over a uint64 array of any shape: a bijection that looks random."""
    with np.errstate(over="ignore"):
        value = value + _GOLDEN
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))


def stream_seed(seed: int, *names: object) -> int:
    """A 63-bit seed for one purpose (`stream_seed(0, "masking")`), independent of every other purpose's."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class SampleKeys:
    """One 64-bit key for each sample of a batch, from (seed, epoch, index). keys: (N,) uint64."""

    keys: np.ndarray

    @classmethod
    def of(cls, seed: int, epoch: np.ndarray, index: np.ndarray) -> "SampleKeys":
        first = mix(np.uint64(seed) ^ mix(epoch.astype(np.uint64)))
        return cls(mix(first ^ mix(index.astype(np.uint64))))

    def uniform(self, stream: str, counts: np.ndarray) -> np.ndarray:
        """`counts[i]` numbers in [0, 1) for sample i, end to end. Returns (sum(counts),) float64."""
        purpose = np.uint64(stream_seed(0, stream))
        total = int(counts.sum())
        starts = np.repeat(np.cumsum(counts) - counts, counts)
        within = (np.arange(total) - starts).astype(np.uint64)
        bits = mix(np.repeat(mix(self.keys ^ purpose), counts) ^ mix(within))
        return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
