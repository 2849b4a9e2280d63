"""What a worker's recipe is asked for on its way through: how many tokens, how much of them padding, and which samples.

In test mode each worker keeps a ledger: `<folder>/<run>/<attempt>-<rank>.jsonl`, a line for each micro-batch it was
given. It is written as it happens, so that what the arithmetic says of the order of samples can be held against it.
"""

import json
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np

from training.randomness import SampleKeys
from training.sampler import batch_positions
from training.task import Batch, Recipe


class Feed:
    """Stands in for a recipe and passes everything on; training batches are counted as they go by."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.tokens = 0
        self.padding = 0
        """Positions of this worker's training batches so far that hold a token, and those that hold padding."""
        self.ledger: Ledger | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.recipe, name)

    def batch(self, split: str, index: np.ndarray, keys: SampleKeys) -> Batch:
        batch = self.recipe.batch(split, index, keys)
        if split == "train":
            real, padding = _positions(batch)
            self.tokens, self.padding = self.tokens + real, self.padding + padding
            if self.ledger:
                self.ledger.write(index)
        return batch


def _positions(batch: Batch) -> tuple[int, int]:
    """(tokens, padding) of a batch of text, packed or padded; zeros for anything else."""
    if "input_ids" not in batch:
        return 0, 0
    size = batch["input_ids"].numel()
    real = int(batch["attention_mask"].sum()) if "attention_mask" in batch else size
    return real, size - real


class Ledger:
    """Which samples of the training split one worker was given in each step."""

    def __init__(self, folder: str, run: str, attempt: int, rank: int, world_size: int, batch_size: int, step: int):
        """step: the steps done when the attempt begins."""
        self.path = Path(folder) / run / f"{attempt}-{rank}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        self.share = lambda one: len(batch_positions(one, batch_size, rank, world_size))
        self.step, self.left = step, self.share(step)
        self._add({"pid": os.getpid(), "host": socket.gethostname()})

    def write(self, index: np.ndarray) -> None:
        if not self.left:
            self.step += 1
            self.left = self.share(self.step)
        self.left -= len(index)
        self._add({"step": self.step + 1, "samples": index.tolist()})

    def _add(self, line: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:  # closed each time: the process may be killed at any time
            file.write(json.dumps(line) + "\n")


def read_ledger(folder: Path, run: str, attempts: list[dict[str, Any]]) -> dict[int, list[int]]:
    """Step -> the samples of its global batch, in order. attempts: their log entries; a later one's steps replace those
    that it trained again."""
    found: dict[int, list[int]] = {}
    for entry in attempts:
        shares: dict[int, dict[int, list[int]]] = {}  # step -> rank -> samples
        for rank in range(entry["workers"]):
            path = folder / run / f"{entry['attempt']}-{rank}.jsonl"
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
            for line in lines:
                said = json.loads(line) if line.endswith("\n") else {}  # it may have been killed in the middle of one
                if "step" in said:
                    shares.setdefault(said["step"], {}).setdefault(rank, []).extend(said["samples"])
        for step, by_rank in shares.items():
            whole: dict[int, int] = {}
            for rank, samples in by_rank.items():
                whole |= {rank + number * entry["workers"]: sample for number, sample in enumerate(samples)}
            found[step] = [whole[position] for position in sorted(whole)]
    return dict(sorted(found.items()))
