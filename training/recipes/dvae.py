"""A discrete image codebook: each patch of a picture becomes one of a few codes, from which a decoder draws it again.

Paper: Ramesh et al., "Zero-shot text-to-image generation", ICML 2021, §2.1 and appendix A (`quantizer: gumbel`); van
den Oord et al., "Neural discrete representation learning", NeurIPS 2017, §3 and appendix A.1 (`quantizer: vq`).
How ours differs: the loss is the squared error, in shares of the training pictures' variance, and not the logit-Laplace
likelihood: it is by the squared error that the codebook is compared with PCA at the same number of bits. The codebook
follows moving averages, and dead codes are revived (training.quantizers). Small residual encoders and decoders.
Command: slipway train digits-dvae
Hardware and time: three minutes for digits on a core, sixteen for emoji (docs/pictures.md).
Expected: less error than the best of PCA with 1 to 8 bits a component at as many bits; perplexity of the codes' use at
least half of how many there are. At 64 bits a digit 0.0057 against 0.0086, at 512 bits an emoji 0.0045 against 0.0078.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from training import task
from training.codebook import Codebook, CodeCodec
from training.convolutions import blocks_of
from training.evaluation import Picture
from training.picture_grid import png_grid
from training.randomness import SampleKeys
from training.recipe import CodecSettings
from training.reconstruction import Recipe as ReconstructionRecipe
from training.reconstruction import ReconstructionTask, Reconstructor

MOST_SHOWN = 256
"""Codes that a page shows."""


class Settings(CodecSettings):
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {"image_size": 8, "halvings": 1, "hidden_size": 16, "codes": 16, "code_size": 8}
    }
    quantizer: Literal["vq", "gumbel"] = "vq"
    """vq: the nearest of a codebook that follows moving averages. gumbel: a softmax over the codes, its temperature
    annealed from 1 to 1/16."""
    codes: int = Field(256, ge=2, le=65536)
    """Entries of the codebook: a place of the grid is log2 of that in bits."""
    code_size: int = Field(16, ge=1, le=1024)
    """Numbers that the decoder reads of a code."""
    codebook_decay: float = Field(0.99, ge=0, lt=1)
    """Of the moving averages that a `vq` codebook follows, a step."""
    commitment_weight: float = Field(0.25, ge=0)
    """Of what draws the encoder to its codes (`vq`), beside a reconstruction loss of 1."""
    kl_weight: float = Field(0.001, ge=0)
    """Of KL(codes || uniform), in nats a place (`gumbel`), beside a reconstruction loss of 1."""
    annealed: float = Field(0.75, gt=0, le=1)
    """Share of the run after which the temperature is at its end (`gumbel`)."""


class DiscreteAutoencoder(ReconstructionTask):
    model: CodeCodec

    def __init__(self, settings: Settings, mean: torch.Tensor, scale: float):
        super().__init__()
        self.model = CodeCodec(settings.model_dump(), mean, scale)
        self.places = (settings.image_size >> settings.halvings) ** 2
        self.weights = {"commitment_loss": settings.commitment_weight, "kl_loss": settings.kl_weight}
        self.own = "commitment_loss" if settings.quantizer == "vq" else "kl_loss"

    def forward(self, batch: task.Batch, phase: str = "all") -> dict[str, torch.Tensor]:
        said, losses = self.model(batch["pixels"], batch.get("noise"))
        return {"reconstruction_loss": (said.float() - self.model.read(batch["pixels"])).square().sum(), **losses}

    def counts(self, batch: task.Batch) -> dict[str, float]:
        pixels = batch["pixels"]
        return {"reconstruction_loss": float(pixels.numel()), self.own: float(len(pixels) * self.places)}

    def loss_weight(self, name: str) -> float:
        return self.weights.get(name, 1.0)

    def before_step(self, step: int, num_steps: int) -> None:
        self.model.quantizer.before_step(step, num_steps)

    def after_step(self, step: int, reduce: Any) -> None:
        self.model.quantizer.after_step(step, reduce)

    def shards(self) -> list[torch.nn.Module]:
        return blocks_of(self)


class Recipe(ReconstructionRecipe):
    settings: Settings

    def batch(self, split: str, index: np.ndarray, keys: SampleKeys) -> task.Batch:
        batch = {"pixels": self.pixels(split, index)}
        if split == "train" and self.settings.quantizer == "gumbel":
            codes, grid = self.settings.codes, self.settings.image_size >> self.settings.halvings
            chance = keys.uniform("gumbel", np.full(len(index), codes * grid * grid))
            noise = -np.log(-np.log(np.clip(chance, 1e-20, 1 - 1e-16)))
            batch["noise"] = torch.from_numpy(noise.astype(np.float32).reshape(-1, codes, grid, grid))
        return batch

    def build(self) -> DiscreteAutoencoder:
        return DiscreteAutoencoder(self.settings, *self.centre())


class CodeReader(Reconstructor):
    """`label`: the picture's codes, row by row, parted by spaces."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.codebook = Codebook.load(folder)
        self.model = self.codebook.model
        self.bits = self.codebook.grid**2 * np.log2(self.codebook.codes)
        """Of a picture's code."""

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        return self.codebook.encode(pixels)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return self.codebook.decode(codes)

    def pictures(self, pixels: np.ndarray) -> list[Picture]:
        """Every code alone, all over the grid, the most used first."""
        codes, grid = self.codebook.codes, self.codebook.grid
        uses = np.bincount(self.encode(pixels).reshape(-1), minlength=codes) / max(1, len(pixels) * grid**2)
        shown = np.argsort(-uses, kind="stable")[:MOST_SHOWN]
        drawn = self.decode(np.broadcast_to(shown[:, None, None], (len(shown), grid, grid)).copy())
        rows = range(0, len(shown), 16)
        captions = [[f"{100 * uses[code]:.1f} %" for code in shown[row : row + 16]] for row in rows]
        title = f"The codes, each alone all over the grid, the {len(shown)} most used of {codes}, with their shares"
        return [Picture("codebook", title, png_grid([list(drawn[row : row + 16]) for row in rows], captions))]

    def text(self, code: np.ndarray) -> str:
        return " ".join(map(str, code.reshape(-1)))


def load_predictor(folder: Path) -> CodeReader:
    return CodeReader(folder)
