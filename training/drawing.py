"""Drawing with a model of codes: code by code, many pictures at once, keys and values of what was read kept.

Classifier-free guidance (Ho & Salimans, 2022, §3.2, on logits): the model reads every picture twice, behind its caption
and behind none, and what the caption changes counts `guidance` times. Completion: the upper rows' codes are given.
Every code of every picture has a random number of its own, so a picture does not depend on those drawn beside it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from infra.digests import digest_bytes
from training.generation import Sampling, sample
from training.image_tokens import Layout
from training.randomness import stream_seed

PICTURES_AT_ONCE = 64


def answer_of(codes: np.ndarray, shares: np.ndarray) -> dict[str, Any]:
    """What names a picture: label and confidence. codes, shares: (n,)."""
    label = digest_bytes(codes.astype("<i8").tobytes())[:16]
    return {"label": label, "confidence": float(np.exp(np.log(np.maximum(shares, 1e-300)).mean()))}


def chances(seed: int, names: Sequence[str], image_tokens: int) -> np.ndarray:
    """(N, image_tokens) in [0, 1), those of a picture a function of (seed, its name)."""
    return np.stack([np.random.default_rng(stream_seed(seed, "drawing", name)).random(image_tokens) for name in names])


class Reader:
    """A GPT-2 that has read the same number of tokens of several sequences."""

    def __init__(self, model: Any, rows: int):
        config = model.config
        self.model = model
        shape = (config.n_layer, 2, rows, config.n_head, config.n_positions, config.n_embd // config.n_head)
        self.cache = torch.empty(shape, dtype=model.dtype, device=model.device)
        self.length = 0

    @torch.inference_mode()
    def read(self, ids: np.ndarray, positions: np.ndarray) -> torch.Tensor:
        """Read ids (rows, n) at positions (n,), after what was read; the last states, (rows, D)."""
        body, begin, end = self.model.transformer, self.length, self.length + ids.shape[1]
        device = self.cache.device
        states = body.wte(torch.as_tensor(ids, device=device)) + body.wpe(torch.as_tensor(positions, device=device))
        seen = torch.ones(end - begin, end, dtype=torch.bool, device=device).tril(begin)
        for layer, block in enumerate(body.h):
            parts = block.attn.c_attn(block.ln_1(states)).unflatten(-1, (3, self.cache.shape[3], -1))
            query, key, value = parts.permute(2, 0, 3, 1, 4)  # (rows, H, n, D / H)
            keys, values = self.cache[layer]
            keys[:, :, begin:end], values[:, :, begin:end] = key, value
            mixed = functional.scaled_dot_product_attention(
                query, keys[:, :, :end], values[:, :, :end], attn_mask=None if len(seen) == 1 else seen
            )
            states = states + block.attn.c_proj(mixed.transpose(1, 2).flatten(2))
            states = states + block.mlp(block.ln_2(states))
        self.length = end
        return body.ln_f(states[:, -1])


class Drawer:
    def __init__(self, model: Any, layout: Layout, *, cached: bool = True):
        """cached: whether what was read is kept; without, each code reads everything before it again."""
        self.model, self.layout, self.cached = model, layout, cached

    def draw(
        self,
        texts: Sequence[np.ndarray],
        chances: np.ndarray,
        sampling: Sampling,
        *,
        guidance: float = 1.0,
        known: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Codes (N, image_tokens) behind texts, N captions as token ids; and the model's own probability of each code
        that it drew, before temperature, cuts and guidance.

        chances (N, image_tokens) in [0, 1): what decides each code. known (N, k): the first k codes, given.
        """
        lengths = np.array([len(one) for one in texts], np.int64)
        codes = np.empty((len(texts), self.layout.image_tokens), np.int64)
        given = 0 if known is None else known.shape[1]
        shares = np.empty((len(texts), self.layout.image_tokens - given))
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            for begin in range(0, len(rows), PICTURES_AT_ONCE):
                part = rows[begin : begin + PICTURES_AT_ONCE]
                start = np.stack([texts[row] for row in part]).astype(np.int64)
                given_codes = np.empty((len(part), 0), np.int64) if known is None else known[part]
                codes[part], shares[part] = self._group(start, chances[part], sampling, guidance, given_codes)
        return codes, shares

    @torch.inference_mode()
    def _group(
        self, texts: np.ndarray, chances: np.ndarray, sampling: Sampling, guidance: float, known: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Captions of one length, (rows, n)."""
        streams = [_Stream(self.model, self.layout, texts, self.cached)]
        if guidance != 1:
            none = np.tile(self.layout.no_caption, (len(texts), 1))
            streams.append(_Stream(self.model, self.layout, none, self.cached))
        codes, shares = known, []
        head = self.model.lm_head.weight[self.layout.text_vocabulary :]
        while codes.shape[1] < self.layout.image_tokens:
            logits = [functional.linear(stream.read(codes), head).double().cpu() for stream in streams]
            guided = logits[0] if guidance == 1 else logits[1] + guidance * (logits[0] - logits[1])
            place = codes.shape[1]
            drawn = [
                sample(row, sampling, chance) for row, chance in zip(guided.numpy(), chances[:, place], strict=True)
            ]
            shares.append(logits[0].softmax(-1).numpy()[np.arange(len(drawn)), drawn])
            codes = np.concatenate([codes, np.array(drawn)[:, None]], axis=1)
        return codes, np.stack(shares, axis=1) if shares else np.empty((len(texts), 0))


class _Stream:
    """Pictures that grow behind their captions."""

    def __init__(self, model: Any, layout: Layout, texts: np.ndarray, cached: bool):
        self.layout, self.texts, self.cached = layout, texts, cached
        self.reader = Reader(model, len(texts))
        self.positions = np.append(
            layout.text_positions(texts.shape[1]), layout.text_length + np.arange(layout.grid**2)
        )

    def read(self, codes: np.ndarray) -> torch.Tensor:
        """The states that foretell the code after codes (rows, k)."""
        if not self.cached:
            self.reader.length = 0
        ids = np.concatenate([self.texts, self.layout.image_ids(codes)], axis=1)
        return self.reader.read(ids[:, self.reader.length :], self.positions[self.reader.length : ids.shape[1]])
