"""A convolutional autoencoder of images, and with `variational: true` a VAE: each picture as a few numbers.

Paper: Hinton & Salakhutdinov, Science 313, 2006 (the autoencoder); Kingma & Welling, "Auto-encoding variational Bayes",
ICLR 2014, §2.3 and appendix B (the VAE); Rybkin et al., "Simple and effective VAE training with calibrated decoders",
ICML 2021, §4 (one learned deviation of the pixels, so that nothing has to weigh the two losses).
How ours differs: convolutions with group norm; pixels are Gaussian around what the decoder says, so that the bound can
be held against the likelihood under probabilistic PCA, the linear model of the same kind.
Command: slipway train digits-autoencoder ; slipway train digits-vae
Hardware and time: three minutes for digits on a core, fourteen for fashion_mnist (docs/pictures.md).
Expected: less error than PCA of the same width, half of it or less; of a VAE a higher bound than PCA's likelihood: of
clothes 704 nats against 455.
"""

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import nn

from training import task
from training.convolutions import blocks_of, decoder, encoder
from training.evaluation import Picture
from training.images import to_pixels, to_tensor
from training.picture_grid import png_grid
from training.randomness import SampleKeys, stream_seed
from training.recipe import CodecSettings
from training.reconstruction import PICTURES_AT_ONCE, Codec, ReconstructionTask, Reconstructor
from training.reconstruction import Recipe as ReconstructionRecipe

DRAWS = 16
"""Of the latents of a picture, over which its bound is averaged."""
NATS = 0.5 * math.log(2 * math.pi)
STEPS = 9
"""Of a latent walk."""
REACH = 2.5
"""How far a walk goes along one latent, in standard deviations of the prior."""


class Settings(CodecSettings):
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {"image_size": 8, "halvings": 1, "hidden_size": 16, "latent_size": 16}
    }
    latent_size: int = Field(16, ge=1, le=4096)
    """Numbers that a picture becomes."""
    variational: bool = False
    """A VAE: the numbers are random, and near a standard normal over all pictures; it has a bound of the likelihood
    (ELBO), and pictures can be drawn from it."""
    kl_weight: float = Field(1.0, ge=0)
    """Of the KL divergence in what a VAE minimises; 1 is the bound itself (Higgins et al., ICLR 2017, for others)."""


class LatentCodec(Codec):
    """Encoder, latents and decoder; of a VAE the mean and log variance of each latent, and the pixels' deviation."""

    def __init__(self, settings: dict[str, Any], mean: torch.Tensor, scale: float):
        super().__init__(mean, scale)
        self.variational, self.latents = settings["variational"], settings["latent_size"]
        width = settings["hidden_size"]
        shape, depth = (settings["channels"], width), (settings["halvings"], settings["num_blocks"])
        grid = settings["image_size"] >> settings["halvings"]
        self.encoder = nn.Sequential(encoder(*shape, width, *depth), nn.Flatten())
        self.to_latents = nn.Linear(width * grid**2, self.latents * (2 if self.variational else 1))
        self.from_latents = nn.Sequential(
            nn.Linear(self.latents, width * grid**2), nn.Unflatten(1, (width, grid, grid))
        )
        self.decoder = decoder(*shape, width, *depth)
        if self.variational:
            self.log_deviation = nn.Parameter(torch.zeros(1))  # of what the decoder says; FSDP2 shards no scalar

    def posterior(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, C, H, W) -> mean and log variance of the latents, (N, L) each; the latter (N, 0) where it is no VAE."""
        said = self.to_latents(self.encoder(self.read(pixels))).float()
        mean, log_variance = said.tensor_split([self.latents], dim=1)
        return mean, log_variance

    def said(self, latents: torch.Tensor) -> torch.Tensor:
        """(N, L) -> (N, C, H, W), as `read` has pictures"""
        return self.decoder(self.from_latents(latents)).float()

    def nats(self, pixels: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        """-log p(picture | latents) of each value, (N, C, H, W), as a density of values from 0 to 1."""
        apart = (self.read(pixels) - said) / self.log_deviation.exp()
        return 0.5 * apart.square() + self.log_deviation + torch.log(self.scale / 2) + NATS


def divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """KL(N(mean, variance) || N(0, 1)) of each latent."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1)


class Autoencoder(ReconstructionTask):
    """Losses per value of a pixel: of a plain one the squared error, of a VAE both parts of the negative bound, in
    nats."""

    model: LatentCodec

    def __init__(self, settings: Settings, mean: torch.Tensor, scale: float):
        super().__init__()
        self.model = LatentCodec(settings.model_dump(), mean, scale)
        self.kl_weight = settings.kl_weight

    def forward(self, batch: task.Batch, phase: str = "all") -> dict[str, torch.Tensor]:
        pixels, model = batch["pixels"], self.model
        mean, log_variance = model.posterior(pixels)
        if not model.variational:
            return {"reconstruction_loss": (model.said(mean) - model.read(pixels)).square().sum()}
        latents = mean + (0.5 * log_variance).exp() * batch["noise"]
        return {
            "reconstruction_loss": model.nats(pixels, model.said(latents)).sum(),
            "kl_loss": divergence(mean, log_variance).sum(),
        }

    def counts(self, batch: task.Batch) -> dict[str, float]:
        values = float(batch["pixels"].numel())
        return {"reconstruction_loss": values, **({"kl_loss": values} if self.model.variational else {})}

    def measure(self, batch: task.Batch) -> dict[str, tuple[float, float]]:
        """Of a VAE also `loss`, the negative bound."""
        found = super().measure(batch)
        if self.model.variational:
            found["loss"] = (sum(total for total, _ in found.values()), float(batch["pixels"].numel()))
        return found

    def loss_weight(self, name: str) -> float:
        return self.kl_weight if name == "kl_loss" else 1.0

    def initial_losses(self) -> dict[str, float]:
        if not self.model.variational:
            return super().initial_losses()
        return {"reconstruction_loss": 0.5 + math.log(float(self.model.scale) / 2) + NATS}

    def shards(self) -> list[nn.Module]:
        return blocks_of(self)


class Recipe(ReconstructionRecipe):
    settings: Settings

    def batch(self, split: str, index: np.ndarray, keys: SampleKeys) -> task.Batch:
        batch = {"pixels": self.pixels(split, index)}
        if self.settings.variational:
            batch["noise"] = _normal(keys, self.settings.latent_size)
        return batch

    def build(self) -> Autoencoder:
        return Autoencoder(self.settings, *self.centre())


def _normal(keys: SampleKeys, count: int) -> torch.Tensor:
    """(N, count) of a standard normal, by Box and Muller's transform."""
    first, second = (
        keys.uniform(f"latents {part}", np.full(len(keys.keys), count)).reshape(-1, count) for part in (1, 2)
    )
    drawn = np.sqrt(-2 * np.log1p(-first)) * np.cos(2 * np.pi * second)
    return torch.from_numpy(drawn.astype(np.float32))


class LatentReader(Reconstructor):
    """`label`: the picture's latents (of a VAE their means), two decimals each, parted by spaces."""

    def __init__(self, folder: Path):
        from safetensors.torch import load_file

        super().__init__(folder)
        size = self.image_size
        self.model = LatentCodec(self.settings, torch.zeros(self.channels, size, size), 1.0)
        self.model.load_state_dict(load_file(folder / "model.safetensors"))
        self.model.eval()
        self.width = self.settings["latent_size"]

    @torch.inference_mode()
    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Returns (n, L) float32."""
        return np.concatenate([np.empty((0, self.width), np.float32), *(
            self.model.posterior(to_tensor(part))[0].numpy() for part in _parts(pixels)
        )])  # fmt: skip

    @torch.inference_mode()
    def decode(self, codes: np.ndarray) -> np.ndarray:
        shape = (0, self.image_size, self.image_size, self.channels)
        return np.concatenate([np.empty(shape, np.uint8), *(
            to_pixels(self.model.write(self.model.said(torch.from_numpy(part)))) for part in _parts(codes)
        )])  # fmt: skip

    def text(self, code: np.ndarray) -> str:
        return " ".join(f"{value:.2f}" for value in code.round(2) + 0.0)  # + 0.0: no -0.00

    @torch.inference_mode()
    def bound(self, pixels: np.ndarray) -> np.ndarray | None:
        """The ELBO of each picture in nats, (n,), as a density of pixels from 0 to 1, over DRAWS draws that are the
        same every time; None where it is no VAE."""
        if not self.model.variational:
            return None
        found = []
        for part in _parts(pixels):
            tensor = to_tensor(part)
            mean, log_variance = self.model.posterior(tensor)
            nats = torch.zeros(len(part))
            for draw in range(DRAWS):
                place = np.arange(len(part))
                noise = _normal(SampleKeys.of(stream_seed(0, "bound"), np.full_like(place, draw), place), self.width)
                latents = mean + (0.5 * log_variance).exp() * noise
                nats += self.model.nats(tensor, self.model.said(latents)).flatten(1).sum(1) / DRAWS
            found.append(-(nats + divergence(mean, log_variance).sum(1)).double().numpy())
        return np.concatenate(found) if found else np.empty(0)

    @torch.inference_mode()
    def pictures(self, pixels: np.ndarray) -> list[Picture]:
        """Walks from picture to picture through the latents; of a VAE also along those that say most, and draws from
        its prior."""
        latents = self.encode(pixels[: 2 * (len(pixels[:10]) // 2)])
        share = np.linspace(0, 1, STEPS, dtype=np.float32)[:, None]
        between: list[Any] = [
            self.decode((1 - share) * first + share * last)
            for first, last in zip(latents[::2], latents[1::2], strict=True)
        ]
        found = [Picture("latent_walk", "Walks through the latents, from one picture to another", png_grid(between))]
        if not self.model.variational:
            return found
        said = [divergence(*self.model.posterior(to_tensor(part))) for part in _parts(pixels)]
        nats = torch.cat(said).mean(0).numpy()
        along: list[Any] = []
        titles = []
        for place in np.argsort(-nats, kind="stable")[:8]:
            steps = np.zeros((STEPS, self.width), np.float32)
            steps[:, place] = np.linspace(-REACH, REACH, STEPS)
            along.append(self.decode(steps))
            titles.append(f"latent {place}: {nats[place]:.2f} nats")
        title = f"Along the latents that say most, from -{REACH} to {REACH} standard deviations, the others at 0"
        found.append(Picture("latents", title, png_grid(along, titles=titles)))
        place = np.arange(5 * STEPS)
        drawn = _normal(SampleKeys.of(stream_seed(0, "samples"), np.zeros_like(place), place), self.width).numpy()
        grid = self.decode(drawn).reshape(5, STEPS, self.image_size, self.image_size, self.channels)
        found.append(Picture("samples", "Pictures drawn from the prior", png_grid(list(grid))))
        return found


def load_predictor(folder: Path) -> LatentReader:
    return LatentReader(folder)


def _parts(array: np.ndarray) -> list[np.ndarray]:
    return [array[begin : begin + PICTURES_AT_ONCE] for begin in range(0, len(array), PICTURES_AT_ONCE)]
