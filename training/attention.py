"""Attention over packed sequences: no padding token is ever computed.

A batch is its samples end to end, one row of `tokens`; `lengths` says where each begins. Embeddings, linear layers,
norms and activations see real tokens only; attention is given the boundaries and runs inside each sample:
on CPU by groups of similar length through scaled_dot_product_attention, each group padded to its own longest;
on CUDA by torch's variable-length kernel where the type allows it. Plugged into transformers through its
`AttentionInterface`, whose functions receive q, k, v of shape (1, heads, tokens, width) and every extra keyword that
the model's forward was given.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

NAME = "slipway_packed"
LENGTH_RATIO = 1.3  # a group's longest over its shortest; measured best of 1.15, 1.3, 1.6, 2 on docstring lengths


@dataclass(frozen=True)
class Boundaries:
    """Where the samples of a packed batch lie, grouped by similar length. Built once a batch, used by every layer."""

    groups: tuple[tuple[torch.Tensor, torch.Tensor, torch.Tensor], ...]
    """For each group: token positions (N, T) with padding pointing at 0, mask (N, T) of real tokens, and their
    flat positions (sum of lengths,) in the packed row."""
    position_ids: torch.Tensor
    """(1, tokens): each token's position inside its own sample."""

    @classmethod
    def of(cls, lengths: torch.Tensor, offset: int = 0) -> "Boundaries":
        """lengths: (N,) integers >= 1. `offset` is the first position id (RoBERTa counts from 2)."""
        device = lengths.device
        starts = torch.cumsum(lengths, 0) - lengths
        order = torch.argsort(lengths, stable=True)
        groups, begin = [], 0
        ordered = lengths[order].tolist()
        for end in range(1, len(ordered) + 1):
            if end == len(ordered) or ordered[end] > ordered[begin] * LENGTH_RATIO:
                members = order[begin:end]
                within = torch.arange(ordered[end - 1], device=device)
                mask = within < lengths[members, None]
                positions = torch.where(mask, starts[members, None] + within, 0)
                groups.append((positions, mask, positions[mask]))
                begin = end
        ids = torch.arange(int(lengths.sum()), device=device) - torch.repeat_interleave(starts, lengths)
        return cls(tuple(groups), (ids + offset)[None])


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    boundaries: Boundaries | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """query, key, value: (1, H, tokens, D). Returns (1, tokens, H, D), as transformers' attention functions do."""
    if boundaries is None:
        raise ValueError("packed attention was called without boundaries: pass boundaries=Boundaries.of(lengths)")
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    out = torch.empty_like(query[0].transpose(0, 1))  # (tokens, H, D)
    for positions, mask, flat in boundaries.groups:
        q, k, v = (part[0].transpose(0, 1)[positions].transpose(1, 2) for part in (query, key, value))  # (N, H, T, D)
        whole = bool(mask.all())
        allowed: torch.Tensor | None = None
        if not whole:
            allowed = mask[:, None, None, :]
            if causal:
                allowed = allowed & torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=q.device).tril()
        mixed = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=allowed, dropout_p=dropout, scale=scaling, is_causal=causal and whole
        )
        out = out.index_put((flat,), mixed.transpose(1, 2)[mask])
    return out[None], None


def use_packed_attention(model: Any) -> None:
    """Make a transformers model attend within boundaries; call it with `position_ids` and `boundaries`."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)  # boundaries say it all
    model.set_attn_implementation(NAME)
