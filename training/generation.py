"""Going on from a text with a GPT-2, token by token: keys and values of what was read are kept, so each step reads one.

Sampling: temperature; the k likeliest (Fan, Lewis & Dauphin, ACL 2018, §5.1); the smallest set of probability p
(Holtzman et al., "The curious case of neural text degeneration", ICLR 2020, §3.1). transformers' `generate` draws from
torch's one generator for a whole batch, so that an answer would depend on its neighbours; this took 0.6 to 0.9 of its
processor time beside it (4 layers of 128, 100 tokens).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from infra.errors import WrongInput


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Raises WrongInput for values that mean nothing."""

    temperature: float = 1.0
    """0: always the likeliest token."""
    top_k: int = 0
    """0: all."""
    top_p: float = 1.0

    def __post_init__(self) -> None:
        for name, fits, wanted in (
            ("temperature", 0 <= self.temperature <= 100, "0 to 100"),
            ("top_k", self.top_k >= 0, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0, up to 1"),
        ):
            if not fits:
                raise WrongInput(f"{name}: {getattr(self, name)}; give {wanted}")


class Reader:
    """A GPT-2 that has read some tokens of one text, at most its block."""

    def __init__(self, model: Any):
        config = model.config
        self.model, self.block = model, config.n_positions
        shape = (config.n_layer, 2, config.n_head, self.block, config.n_embd // config.n_head)
        self.cache = torch.empty(shape, dtype=model.dtype, device=model.device)
        self.length = 0

    @torch.inference_mode()
    def read(self, ids: np.ndarray) -> torch.Tensor:
        """Read ids (n,) >= 1, after what was read; returns the logits of what follows each of them, (n, V)."""
        body, begin, end = self.model.transformer, self.length, self.length + len(ids)
        tokens = torch.as_tensor(np.asarray(ids, np.int64), device=self.cache.device)
        states = body.wte(tokens) + body.wpe.weight[begin:end]  # (n, D)
        for layer, block in enumerate(body.h):
            parts = block.attn.c_attn(block.ln_1(states)).unflatten(-1, (3, self.cache.shape[2], -1))
            query, key, value = parts.permute(1, 2, 0, 3)  # (H, n, D / H)
            keys, values = self.cache[layer]
            keys[:, begin:end], values[:, begin:end] = key, value
            unseen = torch.ones(end - begin, end, dtype=torch.bool, device=tokens.device).tril(begin)
            mixed = functional.scaled_dot_product_attention(query, keys[:, :end], values[:, :end], attn_mask=unseen)
            states = states + block.attn.c_proj(mixed.transpose(0, 1).flatten(1))
            states = states + block.mlp(block.ln_2(states))
        self.length = end
        return self.model.lm_head(body.ln_f(states)).float()


def go_on(
    model: Any, ids: np.ndarray, new_tokens: int, sampling: Sampling, seed: int, end_id: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """What follows ids (n,), 1 <= n <= the model's block: tokens (m,), m <= new_tokens, and the model's own probability
    of each, before temperature and cuts. It ends before `end_id`. A full block forgets its older half."""
    draw = np.random.default_rng(seed)
    reader = Reader(model)
    logits = reader.read(ids)[-1]
    read = [int(one) for one in ids]
    written: list[int] = []
    shares: list[float] = []
    while len(written) < new_tokens:
        token = sample(logits.double().cpu().numpy(), sampling, draw.random())
        if token == end_id:
            break
        written.append(token)
        shares.append(float(logits.softmax(-1)[token]))
        read.append(token)
        if len(written) == new_tokens:
            break
        if reader.length == reader.block:
            reader.length = 0
            logits = reader.read(np.array(read[-(reader.block // 2) :]))[-1]
        else:
            logits = reader.read(np.array([token]))[-1]
    return np.array(written, np.int64), np.array(shares)


def sample(logits: np.ndarray, sampling: Sampling, chance: float) -> int:
    """One token by its probability. logits: (V,); chance: in [0, 1). Of equals the lower number comes first."""
    order = np.argsort(-logits, kind="stable")
    if sampling.temperature == 0:
        return int(order[0])
    order = order[: sampling.top_k or None]
    shares = np.exp((logits[order] - logits[order[0]]) / sampling.temperature)
    reached = np.cumsum(shares) / shares.sum()
    kept = int(np.searchsorted(reached, sampling.top_p)) + 1
    reached = reached[:kept] / reached[:kept][-1]
    return int(order[np.searchsorted(reached, chance, side="right")])
