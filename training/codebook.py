"""The image codebook that a `dvae` learns, as other models read it: pictures to a grid of codes and back.

    book = Codebook.load(folder)
    codes = book.encode(pixels)   # (n, H, W, C) uint8 -> (n, grid, grid) int64, each below book.codes
    pixels = book.decode(codes)

`digest` names the weights: codes of one codebook mean nothing to another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from infra.digests import digest_file
from infra.errors import WrongInput
from training.convolutions import decoder, encoder
from training.images import to_pixels, to_tensor
from training.quantizers import GumbelQuantizer, Quantizer, VectorQuantizer
from training.reconstruction import PICTURES_AT_ONCE, Codec
from training.text import read_json

WEIGHTS = "model.safetensors"


class CodeCodec(Codec):
    """Encoder, quantizer and decoder."""

    def __init__(self, settings: Mapping[str, Any], mean: torch.Tensor, scale: float):
        """settings: of the recipe `dvae`."""
        super().__init__(mean, scale)
        codes, width = settings["codes"], settings["code_size"]
        gumbel = settings["quantizer"] == "gumbel"
        shape = settings["channels"], settings["hidden_size"]
        depth = settings["halvings"], settings["num_blocks"]
        self.encoder = encoder(*shape, codes if gumbel else width, *depth)
        self.quantizer: Quantizer = (
            GumbelQuantizer(codes, width, settings["annealed"])
            if gumbel
            else VectorQuantizer(codes, width, settings["codebook_decay"])
        )
        self.decoder = decoder(*shape, width, *depth)

    def forward(
        self, pixels: torch.Tensor, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """pixels: (N, C, H, W). Returns what the decoder says of them, as `read` has pictures, and the quantizer's
        losses."""
        vectors, losses = self.quantizer(self.encoder(self.read(pixels)), noise)
        return self.decoder(vectors), losses

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, G, G) int64"""
        return self.quantizer.codes(self.encoder(self.read(pixels)))

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """(N, G, G) int64 -> (N, C, H, W)"""
        return self.write(self.decoder(self.quantizer.vectors(codes)))


@dataclass(frozen=True)
class Codebook:
    model: CodeCodec
    codes: int
    """How many there are."""
    grid: int
    """Codes along each side of a picture."""
    image_size: int
    channels: int
    digest: str
    """SHA-256 of the weights' file."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The model of a `dvae` in a folder. Raises WrongInput for another recipe's."""
        from safetensors.torch import load_file

        facts = read_json(folder / "recipe.json")
        if facts.get("recipe") != "dvae":
            raise WrongInput(f"model folder {folder}: is of recipe '{facts.get('recipe')}'; a codebook is one of dvae")
        settings = facts["settings"]
        size, channels = settings["image_size"], settings["channels"]
        model = CodeCodec(settings, torch.zeros(channels, size, size), 1.0)
        model.load_state_dict(load_file(folder / WEIGHTS))
        grid = size >> settings["halvings"]
        return cls(model.eval(), settings["codes"], grid, size, channels, digest_file(folder / WEIGHTS))

    @torch.inference_mode()
    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """(n, H, W, C) uint8 -> (n, grid, grid) int64"""
        if pixels.shape[1:] != (self.image_size, self.image_size, self.channels):
            raise ValueError(f"pictures of {pixels.shape[1:]}: the codebook's are {self._shape}")
        found = np.empty((len(pixels), self.grid, self.grid), np.int64)
        for begin in range(0, len(pixels), PICTURES_AT_ONCE):
            part = to_tensor(pixels[begin : begin + PICTURES_AT_ONCE]).to(self.model.mean.device)
            found[begin : begin + len(part)] = self.model.encode(part).cpu().numpy()
        return found

    @torch.inference_mode()
    def decode(self, codes: np.ndarray) -> np.ndarray:
        """(n, grid, grid) int64 -> (n, H, W, C) uint8"""
        if len(codes) and not (codes.min() >= 0 and codes.max() < self.codes):
            raise ValueError(f"codes {codes.min()} to {codes.max()}: the codebook has 0 to {self.codes - 1}")
        found = np.empty((len(codes), *self._shape), np.uint8)
        for begin in range(0, len(codes), PICTURES_AT_ONCE):
            part = torch.from_numpy(codes[begin : begin + PICTURES_AT_ONCE]).to(self.model.mean.device)
            found[begin : begin + len(part)] = to_pixels(self.model.decode(part))
        return found

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.image_size, self.image_size, self.channels
