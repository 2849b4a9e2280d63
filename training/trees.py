"""Boosted trees as arrays: saved without a pickle, and walked by all rows and trees at once.

One entry a node: the question it asks, where to go from there, and what a leaf adds. Whoever has numpy can answer; the
library that grew the trees may be another version, or absent.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

AT_ONCE = 2_000_000
"""Places in trees that are walked at once: rows x trees."""


@dataclass(frozen=True, kw_only=True)
class Trees:
    feature: np.ndarray
    """(nodes,) int32: the column that is asked about."""
    threshold: np.ndarray
    """(nodes,) float64: what is not above it goes left."""
    missing_left: np.ndarray
    """(nodes,) uint8: where NaN goes."""
    bitset: np.ndarray
    """(nodes,) int32: the row of `bitsets` with the categories that go left; -1 for a question about a number."""
    bitsets: np.ndarray
    """(sets, 8) uint32: one bit a category."""
    left: np.ndarray
    right: np.ndarray
    """(nodes,) int32: the next node; a leaf's is itself."""
    value: np.ndarray
    """(nodes,) float64: what a leaf adds."""
    roots: np.ndarray
    """(rounds, outputs) int32: the first node of each tree."""
    start: np.ndarray
    """(outputs,) float64: the answer before the first tree."""
    depth: np.ndarray
    """(1,) int32: of the deepest tree."""

    @classmethod
    def of(cls, model: Any, rounds: int) -> "Trees":
        """The first rounds of a fitted scikit-learn HistGradientBoostingClassifier. It has no public way to its nodes;
        that they are read rightly is tested against its own answers."""
        grown = [tree for trees in model._predictors[:rounds] for tree in trees]
        nodes = np.concatenate([tree.nodes for tree in grown])
        sizes, sets = [len(tree.nodes) for tree in grown], [len(tree.raw_left_cat_bitsets) for tree in grown]
        first, first_set = (np.cumsum([0, *counts[:-1]]) for counts in (sizes, sets))
        leaf, itself, offset = nodes["is_leaf"] == 1, np.arange(len(nodes)), np.repeat(first, sizes)
        among = ~leaf & (nodes["is_categorical"] == 1)
        start = np.ravel(model._baseline_prediction)
        # NOTE it moves the columns of categories before the others.
        categorical = np.zeros(model.n_features_in_, bool) if model.is_categorical_ is None else model.is_categorical_
        column = np.argsort(~categorical, kind="stable")
        return cls(
            feature=column[np.where(leaf, 0, nodes["feature_idx"])].astype(np.int32),
            threshold=nodes["num_threshold"].astype(np.float64),
            missing_left=nodes["missing_go_to_left"].astype(np.uint8),
            bitset=np.where(among, nodes["bitset_idx"] + np.repeat(first_set, sizes), -1).astype(np.int32),
            bitsets=np.concatenate([tree.raw_left_cat_bitsets for tree in grown]).astype(np.uint32),
            left=np.where(leaf, itself, nodes["left"] + offset).astype(np.int32),
            right=np.where(leaf, itself, nodes["right"] + offset).astype(np.int32),
            value=np.where(leaf, nodes["value"], 0.0).astype(np.float64),
            roots=first.reshape(rounds, len(start)).astype(np.int32),
            start=start.astype(np.float64),
            depth=np.array([nodes["depth"].max()], np.int32),
        )

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(N, labels) of (N, features), up to a constant a row."""
        found = np.tile(self.start, (len(features), 1))
        size = max(1, AT_ONCE // self.roots.size)
        for begin in range(0, len(features), size):
            leaves = self._leaves(features[begin : begin + size])
            found[begin : begin + size] += self.value[leaves].reshape(-1, *self.roots.shape).sum(1)
        # One output is the log odds of the second of two classes: the first one's logit is 0.
        return np.pad(found, ((0, 0), (1, 0))) if len(self.start) == 1 else found

    def _leaves(self, features: np.ndarray) -> np.ndarray:
        """(N, trees) the leaf that each row comes to in each tree."""
        node = np.tile(self.roots.reshape(-1), (len(features), 1))
        rows = np.arange(len(features))[:, None]
        for _ in range(int(self.depth[0])):
            value = features[rows, self.feature[node]]
            missing = np.isnan(value)
            left = value <= self.threshold[node]
            if len(self.bitsets):
                asked, code = self.bitset[node], np.where(missing, 0, value).clip(0, 255).astype(np.int64)
                within = (self.bitsets[asked, code >> 5] >> (code & 31).astype(np.uint32)) & 1
                left = np.where(asked < 0, left, within == 1)
            left = np.where(missing, self.missing_left[node] == 1, left)
            node = np.where(left, self.left[node], self.right[node])
        return node
