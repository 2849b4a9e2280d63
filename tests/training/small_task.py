"""A task in which all that sharding and checkpoints can get wrong is small: tied weights, parts that do not divide
evenly, a part too small for every worker, a frozen one, a buffer, and state outside the gradient."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from training.recipe import RecipeSettings
from training.task import Batch, ModelFiles, Recipe, Task

TOKENS = 51


class Layer(torch.nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = torch.nn.LayerNorm(width)
        self.inner = torch.nn.Linear(width, 3 * width)
        self.outer = torch.nn.Linear(3 * width, width)
        self.scale = torch.nn.Parameter(torch.ones(1))  # one row: one worker of two holds none of it

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scale * self.outer(functional.gelu(self.inner(self.norm(x))))


class NextToken(Task):
    """Predicts the next number of a sequence; embedding and output are tied."""

    seen: torch.Tensor

    def __init__(self, width: int = 15):
        super().__init__()
        self.embed = torch.nn.Embedding(TOKENS, width)
        self.layers = torch.nn.ModuleList([Layer(width), Layer(width)])
        self.head = torch.nn.Linear(width, TOKENS, bias=False)
        self.head.weight = self.embed.weight
        self.frozen = torch.nn.Linear(width, width).requires_grad_(False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch, phase: str = "all") -> dict[str, torch.Tensor]:
        x = self.frozen(self.embed(batch["x"]))  # (N, D)
        for layer in self.layers:
            x = layer(x)
        return {"loss": functional.cross_entropy(self.head(x), batch["y"], reduction="sum")}

    def measure(self, batch: Batch) -> dict[str, tuple[float, float]]:
        # Not through `forward`: as recipes' own measures do.
        x = self.frozen(self.embed(batch["x"]))
        for layer in self.layers:
            x = layer(x)
        right = float((self.head(x).argmax(-1) == batch["y"]).sum())
        return {"accuracy": (right, len(batch["y"])), "mean": (float(x.double().sum()), x.numel())}

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"loss": len(batch["x"])}

    def after_step(self, step: int, reduce: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.seen += 1

    def initial_losses(self) -> dict[str, float]:
        return {}

    def shards(self) -> list[torch.nn.Module]:
        return list(self.layers)


class Sequences(Recipe):
    """x -> (3 x + 1) mod 51."""

    num_validation = 33

    def __init__(self, width: int = 15) -> None:
        super().__init__(RecipeSettings(), {})
        self.width = width

    def prepare(self, splits: Any, contract: Any, folder: Path, say: Callable[[str], None]) -> None: ...

    def open(self, folder: Path) -> None: ...

    def num_samples(self, split: str) -> int:
        return 200 if split == "train" else self.num_validation

    def batch(self, split: str, index: np.ndarray, keys: Any) -> Batch:
        x = torch.from_numpy(index % TOKENS)
        return {"x": x, "y": (3 * x + 1) % TOKENS}

    def build(self) -> Task:
        return NextToken(self.width)

    def save(self, task: Task, folder: Path) -> ModelFiles:
        raise AssertionError
