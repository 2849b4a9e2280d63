"""Image classification by a small convolutional network: the baseline of every image model.

Paper: LeCun et al., "Gradient-based learning applied to document recognition", Proceedings of the IEEE 1998, §II.
How ours differs: two convolutions of 3 x 3 a stage, GELU, maximum pooling, the mean over positions at the end; group
normalisation (Wu & He, ECCV 2018), because batch normalisation's gradients depend on how a batch is split over workers.
Command: slipway train digits-cnn
Hardware and time: a minute for digits on a core, eight for fashion_mnist (docs/pictures.md).
Expected: 0.997 of digits; 0.91 of fashion_mnist, as its own benchmark tells of two convolutions.
"""

from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch.nn import functional

from training import task
from training.image_classifier import ImageClassifier, ImageClassifierRecipe, ImageLabelPredictor
from training.recipe import ImageClassifierSettings

GROUPS = 8


class Settings(ImageClassifierSettings):
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"image_size": 8, "widths": (8, 16)}}
    widths: tuple[int, ...] = Field((32, 64, 128), min_length=1, max_length=8)
    """Channels of each stage, multiples of 8; between two stages the side is halved."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """On what is read off the last stage."""


class Convolutions(torch.nn.Module):
    def __init__(self, channels: int, widths: tuple[int, ...]):
        super().__init__()
        self.stages = torch.nn.ModuleList()
        for width in widths:
            self.stages.append(
                torch.nn.Sequential(
                    torch.nn.Conv2d(channels, width, 3, padding=1),
                    torch.nn.GroupNorm(GROUPS, width),
                    torch.nn.GELU(),
                    torch.nn.Conv2d(width, width, 3, padding=1),
                    torch.nn.GroupNorm(GROUPS, width),
                    torch.nn.GELU(),
                )
            )
            channels = width

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, D)"""
        states = self.stages[0](pixels)
        for stage in list(self.stages)[1:]:
            states = stage(functional.max_pool2d(states, 2, ceil_mode=True))
        return states.mean((2, 3))

    def shards(self) -> list[torch.nn.Module]:
        return list(self.stages)


class Recipe(ImageClassifierRecipe):
    settings: Settings

    def build(self) -> ImageClassifier:
        settings = self.settings
        body = Convolutions(settings.channels, settings.widths)
        labels = len(self.report["labels"])
        return ImageClassifier(body, settings.widths[-1], labels, settings.dropout, settings.label_smoothing)

    def save(self, trained: Any, folder: Path) -> task.ModelFiles:
        for name, part in (("model", trained.body), ("head", trained.head)):
            weights = {key: value.contiguous() for key, value in part.state_dict().items()}
            save_file(weights, folder / f"{name}.safetensors")
        return self.save_facts(trained, "cnn", folder)


def _load(folder: Path, settings: Any) -> tuple[Convolutions, int]:
    body = Convolutions(settings["channels"], tuple(settings["widths"]))
    body.load_state_dict(load_file(folder / "model.safetensors"))
    return body, settings["widths"][-1]


def load_predictor(folder: Path) -> ImageLabelPredictor:
    return ImageLabelPredictor(folder, _load)
