"""The convolutions of image codecs: pictures down to a small grid of vectors, and back.

Residual blocks with group norm (Wu & He, ECCV 2018: it knows no other sample, so the number of workers changes nothing)
and SiLU, strided convolutions down, nearest neighbours and a convolution up (Odena, Dumoulin & Olah, "Deconvolution and
checkerboard artifacts", Distill 2016).
"""

import torch
from torch import nn
from torch.nn import functional

GROUP = 8
"""Channels that are normalised together; a width that is no multiple of it is one group."""


class ResidualBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.first_norm, self.second_norm = _norm(width), _norm(width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(N, width, H, W) -> the same shape"""
        inner = self.first(functional.silu(self.first_norm(hidden)))
        return hidden + self.second(functional.silu(self.second_norm(inner)))


def encoder(channels: int, width: int, out: int, halvings: int, blocks: int) -> nn.Sequential:
    """(N, channels, H, W) -> (N, out, H / 2^halvings, W / 2^halvings). blocks: residual blocks at each size."""
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1)]
    for _ in range(halvings):
        layers += [ResidualBlock(width) for _ in range(blocks)]
        layers.append(nn.Conv2d(width, width, 4, stride=2, padding=1))
    layers += [ResidualBlock(width) for _ in range(blocks)]
    return nn.Sequential(*layers, _norm(width), nn.SiLU(), nn.Conv2d(width, out, 1))


def decoder(channels: int, width: int, into: int, halvings: int, blocks: int) -> nn.Sequential:
    """(N, into, h, w) -> (N, channels, h 2^halvings, w 2^halvings), near 0 before it has learned."""
    layers: list[nn.Module] = [nn.Conv2d(into, width, 3, padding=1)]
    layers += [ResidualBlock(width) for _ in range(blocks)]
    for _ in range(halvings):
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1)]
        layers += [ResidualBlock(width) for _ in range(blocks)]
    last = nn.Conv2d(width, channels, 3, padding=1)
    nn.init.normal_(last.weight, std=1e-3)
    last.bias = nn.Parameter(torch.zeros(channels))
    return nn.Sequential(*layers, _norm(width), nn.SiLU(), last)


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """What FSDP2 shards one by one, and what may be computed again in the backward pass."""
    return [part for part in module.modules() if isinstance(part, ResidualBlock)]


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(width // GROUP if width % GROUP == 0 else 1, width)
