"""What sentence embeddings are trained by: one encoder for all texts of a sample, and a loss over their embeddings.

The objectives of Reimers & Gurevych, "Sentence-BERT", EMNLP 2019, §3, and in-batch negatives: Henderson et al.,
"Efficient natural language response suggestion for smart reply", 2017, §4.4.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional

from training import task
from training.text import Tokens, by_length, encode_packed, mean_pool, pack

TOKENS_AT_ONCE = 8192
"""Of a forward pass when many texts are embedded."""


class SumOverWorkers(torch.autograd.Function):
    """all_reduce whose gradient is the sum of the workers' gradients. torch.distributed.nn.functional has one, which
    warns that it will go."""

    @staticmethod
    def forward(context: Any, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def gather(rows: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The rows (N, ...) of all workers, each with its own N, by rank; and how many come before this worker's. The
    gradient goes back to the worker that each row is from."""
    if not dist.is_initialized():
        return rows, 0
    counts = torch.zeros(dist.get_world_size(), dtype=torch.long, device=rows.device)
    counts[dist.get_rank()] = len(rows)
    dist.all_reduce(counts)
    before, total = int(counts[: dist.get_rank()].sum()), int(counts.sum())
    spread = [rows.new_zeros(count, *rows.shape[1:]) for count in (before, total - before - len(rows))]
    return SumOverWorkers.apply(torch.cat([spread[0], rows, spread[1]])), before


class Siamese(task.Task):
    """One encoder for all texts of a sample, which lie in the batch one after another."""

    encoder: Any  # a transformers model: its attributes are its own

    def __init__(self, encoder: Any):
        super().__init__()
        self.encoder = encoder

    def embed(self, batch: task.Batch) -> torch.Tensor:
        """(N, texts of a sample, D) float32"""
        hidden = encode_packed(self.encoder, batch)  # (tokens, D)
        pooled = mean_pool(hidden, batch["lengths"]).float()
        return pooled.unflatten(0, (-1, batch["texts"].shape[1]))

    def counts(self, batch: task.Batch) -> dict[str, float]:
        return {"loss": len(batch["texts"])}

    def shards(self) -> list[torch.nn.Module]:
        return list(self.encoder.encoder.layer)


class CosineRegression(Siamese):
    def __init__(self, encoder: Any, targets: Mapping[str, float]):
        super().__init__(encoder)
        self.targets = targets

    def forward(self, batch: task.Batch, phase: str = "all") -> dict[str, torch.Tensor]:
        u, v = self.embed(batch).unbind(1)
        return {"loss": functional.mse_loss(functional.cosine_similarity(u, v), batch["target"], reduction="sum")}

    def initial_losses(self) -> dict[str, float]:
        # Random states of one network point the same way: the cosines are near 1, the scores vary around their mean.
        return {"loss": self.targets["variance"] + (1 - self.targets["mean"]) ** 2}


def pair_features(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """u, v: (N, D). Returns (N, 3 D): the best of the combinations tried in table 6 of the paper."""
    return torch.cat([u, v, (u - v).abs()], -1)


class PairClassification(Siamese):
    def __init__(self, encoder: Any, num_labels: int):
        super().__init__(encoder)
        self.head = torch.nn.Linear(3 * encoder.config.hidden_size, num_labels)

    def logits(self, embedded: torch.Tensor) -> torch.Tensor:
        """embedded: (N, 2, D). Returns (N, labels)."""
        return self.head(pair_features(*embedded.unbind(1))).float()

    def forward(self, batch: task.Batch, phase: str = "all") -> dict[str, torch.Tensor]:
        return {"loss": functional.cross_entropy(self.logits(self.embed(batch)), batch["target"], reduction="sum")}

    def measure(self, batch: task.Batch) -> dict[str, tuple[float, float]]:
        logits, labels = self.logits(self.embed(batch)), batch["target"]
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        right = (logits.argmax(-1) == labels).sum()
        return {"loss": (float(loss), len(labels)), "accuracy": (float(right), len(labels))}

    def initial_losses(self) -> dict[str, float]:
        return {"loss": math.log(self.head.out_features)}


class TripletMargin(Siamese):
    def __init__(self, encoder: Any, margin: float):
        super().__init__(encoder)
        self.margin = margin

    def forward(self, batch: task.Batch, phase: str = "all") -> dict[str, torch.Tensor]:
        anchor, near, far = self.embed(batch).unbind(1)
        return {"loss": functional.triplet_margin_loss(anchor, near, far, margin=self.margin, reduction="sum")}

    def measure(self, batch: task.Batch) -> dict[str, tuple[float, float]]:
        anchor, near, far = self.embed(batch).unbind(1)
        loss = functional.triplet_margin_loss(anchor, near, far, margin=self.margin, reduction="sum")
        right = ((anchor - near).norm(dim=-1) < (anchor - far).norm(dim=-1)).sum()
        return {"loss": (float(loss), len(anchor)), "triplet_accuracy": (float(right), len(anchor))}

    def initial_losses(self) -> dict[str, float]:
        return {"loss": self.margin}


class InBatchNegatives(Siamese):
    additive = False

    def __init__(self, encoder: Any, scale: float):
        super().__init__(encoder)
        self.scale = scale
        self.candidates = 1  # of the batch last seen

    def forward(self, batch: task.Batch, phase: str = "all") -> dict[str, torch.Tensor]:
        embedded = functional.normalize(self.embed(batch), dim=-1)  # (N, texts of a sample, D)
        texts, others = batch["texts"], embedded.shape[1] - 1
        candidates, before = gather(embedded[:, 1:].flatten(0, 1))  # (M, D): of every worker
        own = (before + torch.arange(0, len(texts) * others, others, device=texts.device))[:, None]  # (N, 1)
        firsts = torch.full_like(texts[:, 1:], -1)
        firsts[:, 0] = texts[:, 0]  # whose second text a candidate is, where it is one
        numbers, firsts = gather(texts[:, 1:].flatten())[0], gather(firsts.flatten())[0]
        # The anchor itself, its second text again, and what another pair gives the same anchor are no negatives.
        belongs = (numbers == texts[:, :1]) | (numbers == texts[:, 1:2]) | (firsts == texts[:, :1])  # (N, M)
        logits = self.scale * embedded[:, 0] @ candidates.T  # (N, M)
        logits = logits.masked_fill(belongs.scatter(1, own, False), -math.inf)
        self.candidates = logits.shape[1]
        return {"loss": functional.cross_entropy(logits, own[:, 0], reduction="sum")}

    def measure(self, batch: task.Batch) -> dict[str, tuple[float, float]]:
        # With one other text a pair: which texts meet in a batch of the loss depends on the number of workers.
        anchor, near, far = functional.normalize(self.embed(batch), dim=-1).unbind(1)
        logits = self.scale * torch.stack([(anchor * near).sum(-1), (anchor * far).sum(-1)], 1)  # (N, 2)
        loss = functional.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long), reduction="sum")
        right = (logits[:, 0] > logits[:, 1]).sum()
        return {"loss": (float(loss), len(logits)), "triplet_accuracy": (float(right), len(logits))}

    def initial_losses(self) -> dict[str, float]:
        return {"loss": math.log(self.candidates)}


@torch.inference_mode()
def embed_texts(encoder: Any, tokens: Tokens, rows: np.ndarray | None = None) -> np.ndarray:
    """(N, D) float32, of all texts or of these rows (N,), by an encoder in `eval()`."""
    device = encoder.get_input_embeddings().weight.device
    rows = np.arange(len(tokens)) if rows is None else rows
    out = np.empty((len(rows), encoder.config.hidden_size), np.float32)
    for index in by_length(tokens.lengths[rows], TOKENS_AT_ONCE):
        batch = task.to_device(pack(tokens, rows[index]), device)
        out[index] = mean_pool(encode_packed(encoder, batch), batch["lengths"]).float().cpu().numpy()
    return out


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """(N, D), each divided by its length; a text without a token stays 0."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
