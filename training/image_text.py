"""What CLIP is trained by: a tower for pictures, one for texts, and the loss over both of every worker.

Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021, §2.3.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from training import task
from training.convolutions import ResidualBlock, blocks_of
from training.images import to_tensor
from training.siamese import gather
from training.text import encode_packed, mean_pool

IMAGES_AT_ONCE = 256
GROUP = 64
"""Rows of a held-out split that compete in its loss: which rows meet must not depend on the number of workers."""
MAX_SCALE = 100.0
"""Of the cosines (§2.5): more made training unstable."""
PLACES = 2
"""Places of the last feature map, each way, that are told apart."""


class ImageTower(torch.nn.Module):
    def __init__(self, channels: int, width: int, stages: int, blocks: int):
        """width: channels of the first stage; each other has half the side and twice the channels."""
        super().__init__()
        layers: list[torch.nn.Module] = [torch.nn.Conv2d(channels, width, 3, padding=1)]
        for stage in range(stages):
            if stage:
                layers.append(torch.nn.Conv2d(width, 2 * width, 3, stride=2, padding=1))
                width *= 2
            layers += [ResidualBlock(width) for _ in range(blocks)]
        self.width = width * PLACES**2
        self.layers, self.norm = torch.nn.Sequential(*layers), torch.nn.LayerNorm(self.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, width), the means over the four quarters: captions tell where things are."""
        return self.norm(functional.adaptive_avg_pool2d(self.layers(x), PLACES).flatten(1))


class Clip(task.Task):
    additive = False
    text: Any  # a transformers model: its attributes are its own

    def __init__(self, image: ImageTower, text: Any, size: int, temperature: float, frozen: bool = False):
        """size: of the space that both are projected into; frozen: whether the text tower is."""
        super().__init__()
        self.image, self.text, self.frozen = image, text, frozen
        self.image_projection = torch.nn.Linear(image.width, size, bias=False)
        self.text_projection = torch.nn.Linear(text.config.hidden_size, size, bias=False)
        self.log_scale = torch.nn.Parameter(torch.tensor([-math.log(temperature)]))
        self.chance = 0.0
        """What a guess among the candidates of the batch last seen loses."""

    def train(self, mode: bool = True) -> "Clip":
        """A frozen text tower drops nothing out."""
        super().train(mode)
        if self.frozen:
            self.text.eval()
        return self

    @property
    def scale(self) -> torch.Tensor:
        return self.log_scale.exp().clamp(max=MAX_SCALE)

    def embed_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) in [-1, 1] -> (N, D) float32, each of length 1"""
        return functional.normalize(self.image_projection(self.image(pixels)).float(), dim=-1)

    def embed_texts(self, states: torch.Tensor) -> torch.Tensor:
        """(N, width of the text tower), its pooled states -> (N, D) float32, each of length 1"""
        return functional.normalize(self.text_projection(states).float(), dim=-1)

    def embed(self, batch: task.Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures and captions, (N, D) each."""
        if "states" in batch:
            states = batch["states"]
        else:
            states = mean_pool(encode_packed(self.text, batch), batch["lengths"])
        return self.embed_images(batch["pixels"]), self.embed_texts(states)

    def forward(self, batch: task.Batch, phase: str = "all") -> dict[str, torch.Tensor]:
        images, texts = self.embed(batch)
        both, before = gather(torch.cat([images, texts], -1))  # (M, 2 D): of every worker
        every_image, every_text = both.chunk(2, -1)
        numbers = gather(batch["captions"])[0]
        own = before + torch.arange(len(images), device=images.device)  # (N,)
        barred = numbers == batch["captions"][:, None]  # (N, M): says the same, and is no negative
        barred = barred.scatter(1, own[:, None], False)
        self.chance = float((~barred).sum(1).double().log().mean())
        scale = self.scale
        to_texts = (scale * images @ every_text.T).masked_fill(barred, -math.inf)
        to_images = (scale * texts @ every_image.T).masked_fill(barred, -math.inf)
        losses = [functional.cross_entropy(logits, own, reduction="sum") for logits in (to_texts, to_images)]
        return {"loss": (losses[0] + losses[1]) / 2}

    def counts(self, batch: task.Batch) -> dict[str, float]:
        return {"loss": len(batch["captions"])}

    def measure(self, batch: task.Batch) -> dict[str, tuple[float, float]]:
        """Of rows of a held-out split, each among its group; `asked` says which rows of the batch are meant."""
        images, texts = self.embed(batch)
        captions, groups, asked = batch["captions"], batch["groups"], batch["asked"]
        own = torch.arange(len(captions), device=captions.device)
        barred = (groups != groups[:, None]) | (captions == captions[:, None])
        barred = barred.scatter(1, own[:, None], False)
        logits = (self.scale * images @ texts.T).masked_fill(barred, -math.inf)
        loss, right = 0.0, 0.0
        for scores in (logits[asked], logits.T[asked]):  # `barred` is symmetric
            loss += float(functional.cross_entropy(scores, own[asked], reduction="sum")) / 2
            right += float((scores.argmax(-1) == own[asked]).sum()) / 2
        return {"loss": (loss, len(asked)), f"recall_at_1_of_{GROUP}": (right, len(asked))}

    def initial_losses(self) -> dict[str, float]:
        return {"loss": self.chance}

    def shards(self) -> list[torch.nn.Module]:
        return [*blocks_of(self.image), *self.text.encoder.layer]


@torch.inference_mode()
def embed_pictures(model: Clip, count: int, pixels: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """pixels: index (n,) -> (n, H, W, C) uint8. Returns (count, D) float32, each of length 1."""
    device = model.log_scale.device
    out = np.empty((count, model.image_projection.out_features), np.float32)
    for begin in range(0, count, IMAGES_AT_ONCE):
        index = np.arange(begin, min(begin + IMAGES_AT_ONCE, count))
        out[index] = model.embed_images(to_tensor(pixels(index)).to(device)).cpu().numpy()
    return out


@torch.inference_mode()
def project(model: Clip, states: np.ndarray) -> np.ndarray:
    """The text tower's pooled states (N, width) -> (N, D) float32, each of length 1."""
    return model.embed_texts(torch.from_numpy(states).to(model.log_scale.device)).cpu().numpy()
