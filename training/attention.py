"""Attention over packed sequences: no padding token is ever computed.

A batch is its samples end to end, one row of `tokens`; `Boundaries` says where each lies. Embeddings, linear layers,
norms and activations see real tokens only; attention runs inside each sample: on CUDA in bf16 or float16 by torch's
variable-length kernel, as long as no attention weight is dropped (the kernel cannot); otherwise the samples of one
length go together through scaled_dot_product_attention.

Plugged into transformers through its `AttentionInterface`, whose functions receive q, k, v of shape
(1, heads, tokens, width) and every extra keyword that the model's forward was given.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

from infra.errors import WrongInput

NAME = "slipway_packed"
UNKNOWN = ("position_bias", "sliding_window", "softcap", "s_aux")  # what some of transformers' models add to attention


@dataclass(frozen=True)
class Boundaries:
    """Where the samples of a packed batch lie. Built once a batch on the CPU, used by every layer."""

    ends: torch.Tensor
    """(N + 1,) int32: 0, and where each sample ends (what kernels call `cu_seqlens`)."""
    longest: int
    position_ids: torch.Tensor
    """(1, tokens): each token's position inside its own sample."""
    sorting: torch.Tensor | None
    """(tokens,): the tokens with their samples sorted by length; None where they are."""
    groups: tuple[tuple[int, int], ...]
    """(samples, length) of the samples of one length, the shortest first. Groups of nearly one length, padded and
    masked, cost more than they saved: lengths within 7, 15 and 30 % were no faster on emotion's texts, or slower."""

    @classmethod
    def of(cls, lengths: torch.Tensor, offset: int = 0) -> "Boundaries":
        """lengths: (N,) integers >= 1, on the CPU. `offset` is the first position id (RoBERTa counts from 2)."""
        ends = torch.cumsum(lengths, 0)
        starts = ends - lengths
        tokens = torch.arange(int(lengths.sum()))
        position_ids = (tokens - torch.repeat_interleave(starts, lengths) + offset)[None]
        order = torch.argsort(lengths, stable=True)
        ordered = lengths[order]
        shift = starts[order] - (torch.cumsum(ordered, 0) - ordered)  # from a sample's sorted place to its own
        sorting = tokens + torch.repeat_interleave(shift, ordered) if shift.any() else None
        known, counts = torch.unique_consecutive(ordered, return_counts=True)
        groups = tuple(zip(counts.tolist(), known.tolist(), strict=True))
        return cls(functional.pad(ends, (1, 0)).int(), int(ordered[-1]), position_ids, sorting, groups)

    def sorted(self) -> "Boundaries":
        """The boundaries of the same samples, their tokens taken in the order of `sorting`."""
        if self.sorting is None:
            return self
        lengths = torch.diff(self.ends).sort().values
        ends = functional.pad(torch.cumsum(lengths, 0), (1, 0)).int()
        return replace(self, ends=ends, position_ids=self.position_ids[:, self.sorting], sorting=None)

    def to(self, device: torch.device) -> "Boundaries":
        sorting = None if self.sorting is None else self.sorting.to(device)
        position_ids = self.position_ids.to(device)
        return replace(self, ends=self.ends.to(device), position_ids=position_ids, sorting=sorting)


@torch.compiler.disable  # lengths differ in every batch: what is around it is compiled, for any number of tokens
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
    **extra: object,
) -> tuple[torch.Tensor, None]:
    """query: (1, H, tokens, D), key and value too, or with fewer heads. Returns (1, tokens, H, D), as transformers'
    attention functions do. Raises WrongInput for attention of a kind that this is not."""
    if boundaries is None:
        raise ValueError("packed attention was called without boundaries: pass boundaries=Boundaries.of(lengths)")
    for name in UNKNOWN:
        if extra.get(name) is not None:
            kind = type(module).__name__
            raise WrongInput(f"model: its attention ({kind}) has a {name}, which packed attention lacks; give another")
    grouped = key.shape[1] != query.shape[1]
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))  # (tokens, H, D)
    if kernel_fits(query, dropout):
        from torch.nn.attention.varlen import varlen_attn

        ends, longest = boundaries.ends, boundaries.longest
        window = (-1, 0) if causal else (-1, -1)
        out: Any = varlen_attn(
            q, k, v, ends, ends, longest, longest, scale=scaling, window_size=window, enable_gqa=grouped
        )
        return out.unsqueeze(0), None
    if boundaries.sorting is not None:
        q, k, v = (part.index_select(0, boundaries.sorting) for part in (q, k, v))
    # One split and one cat, not a slice a group: a slice's gradient is a tensor as large as the whole.
    sizes = [count * length for count, length in boundaries.groups]
    mixed = []
    for group, *parts in zip(boundaries.groups, q.split(sizes), k.split(sizes), v.split(sizes), strict=True):
        rows = [part.unflatten(0, group).transpose(1, 2) for part in parts]  # (samples, H, length, D)
        out = functional.scaled_dot_product_attention(
            rows[0], rows[1], rows[2], dropout_p=dropout, scale=scaling, is_causal=causal, enable_gqa=grouped
        )
        mixed.append(out.transpose(1, 2).flatten(0, 1))
    out = torch.cat(mixed)
    if boundaries.sorting is not None:
        out = torch.empty_like(out).index_copy(0, boundaries.sorting, out)
    return out.unsqueeze(0), None


def kernel_fits(query: torch.Tensor, dropout: float) -> bool:
    """Whether torch's variable-length kernel (flash attention) takes these. query: (1, H, tokens, D)."""
    half = query.dtype in (torch.bfloat16, torch.float16)
    return query.is_cuda and half and dropout == 0 and query.shape[-1] % 8 == 0 and query.shape[-1] <= 256


def use_packed_attention(model: Any) -> None:
    """Make a transformers model attend within boundaries; call it with `position_ids` and `boundaries`."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)  # boundaries say it all
    model.set_attn_implementation(NAME)
