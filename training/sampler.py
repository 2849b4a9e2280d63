"""The order of samples as arithmetic: position -> (epoch, index) in O(1), with no stored permutation.

An epoch's order is a keyed permutation of range(n): a balanced Feistel network over the next even power of two, walked
until it lands inside the range (Black & Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, §4). Positions
run on through epochs, so a global batch may straddle two of them and no sample is ever dropped or repeated within one.
"""

from dataclasses import dataclass

import numpy as np

from training.randomness import mix, stream_seed

ROUNDS = 6


@dataclass(frozen=True)
class SampleOrder:
    seed: int
    num_samples: int

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """positions: (N,) integers >= 0, in the order of training. Returns epoch (N,) and index (N,), both int64."""
        positions = np.asarray(positions, dtype=np.int64)
        epoch, rank = np.divmod(positions, self.num_samples)
        index = np.empty_like(rank)
        for one in np.unique(epoch):
            chosen = epoch == one
            index[chosen] = self._permute(rank[chosen], int(one))
        return epoch, index

    def _permute(self, rank: np.ndarray, epoch: int) -> np.ndarray:
        half, keys = self._rounds(epoch)
        value = rank.astype(np.uint64)
        walking = np.ones(value.shape, dtype=bool)
        while walking.any():  # at most 4x the range: 2 walks on average at worst
            value[walking] = self._feistel(value[walking], half, keys)
            walking = value >= self.num_samples
        return value.astype(np.int64)

    def _rounds(self, epoch: int) -> tuple[int, list[np.uint64]]:
        """Bits of half a value, and the keys of the rounds."""
        half = max(1, (max(self.num_samples - 1, 1).bit_length() + 1) // 2)
        return half, [np.uint64(stream_seed(self.seed, "order", epoch, number)) for number in range(ROUNDS)]

    def positions(self, index: int, epochs: int) -> np.ndarray:
        """The inverse of `at`: where a sample stands in each of the first `epochs` epochs, (epochs,) int64."""
        return np.array(
            [epoch * self.num_samples + self._rank(index, epoch) for epoch in range(epochs)], dtype=np.int64
        )

    def _rank(self, index: int, epoch: int) -> int:
        half, keys = self._rounds(epoch)
        value = np.array([index], dtype=np.uint64)
        while True:  # the walk of `_permute`, backwards
            value = self._unfeistel(value, half, keys)
            if value[0] < self.num_samples:
                return int(value[0])

    @staticmethod
    def _feistel(value: np.ndarray, half: int, keys: list[np.uint64]) -> np.ndarray:
        bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
        left, right = value >> bits, value & mask
        for key in keys:
            left, right = right, left ^ (mix(right ^ key) & mask)
        return (left << bits) | right

    @staticmethod
    def _unfeistel(value: np.ndarray, half: int, keys: list[np.uint64]) -> np.ndarray:
        bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
        left, right = value >> bits, value & mask
        for key in reversed(keys):
            left, right = right ^ (mix(left ^ key) & mask), left
        return (left << bits) | right


def batch_positions(step: int, batch_size: int, rank: int, world_size: int) -> np.ndarray:
    """The positions of a step's global batch that fall to one worker: every `world_size`-th, from `rank`."""
    return np.arange(step * batch_size + rank, (step + 1) * batch_size, world_size)
