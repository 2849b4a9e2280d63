"""Image classification by a vision transformer: patches as tokens, their mean, one linear layer.

Paper: Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021, §3.1; from `mim` it is fine-tuned as in He et
al., "Masked autoencoders are scalable vision learners", CVPR 2022, §4 (the mean of the patches, not the first token).
How ours differs: sizes for small pictures (patches of 2 to 4 pixels); shifts, turns and zooms as augmentation.
Command: slipway train digits        (from.base: digits-mim starts from masked image modelling)
Hardware and time: five minutes for digits on a core, 25 for fashion_mnist (docs/pictures.md).
Expected: on little data about what a simple model reaches, which the scorecard shows beside it.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors.torch import save_file

from training import task
from training.image_classifier import ImageClassifier, ImageClassifierRecipe, ImageLabelPredictor
from training.recipe import ImageClassifierSettings, PatchSettings
from training.vision import build_vit, load_vit, quiet


class Settings(PatchSettings, ImageClassifierSettings):
    roles: ClassVar[dict[str, str]] = {"base": "the transformer's weights; without it, random ones"}
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        **PatchSettings.presets,
        "base": {"image_size": 224, "channels": 3, "patch_size": 16, "hidden_size": 768, "num_layers": 12,
                 "num_heads": 12, "intermediate_size": 3072},
    }  # fmt: skip
    pooling: Literal["mean", "first"] = "mean"
    """How the patches' states become one: their mean, or the state of the token before them."""


class Patches(torch.nn.Module):
    def __init__(self, encoder: Any, pooling: str):
        super().__init__()
        self.encoder, self.pooling = encoder, pooling

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, D)"""
        states = self.encoder(pixels).last_hidden_state  # (N, 1 + patches, D)
        return states[:, 1:].mean(1) if self.pooling == "mean" else states[:, 0]

    def shards(self) -> list[torch.nn.Module]:
        return list(self.encoder.layers)


class Recipe(ImageClassifierRecipe):
    settings: Settings

    def build(self) -> ImageClassifier:
        settings = self.settings
        encoder = build_vit(settings, self.sources.get("base"))
        return ImageClassifier(
            Patches(encoder, settings.pooling),
            encoder.config.hidden_size,
            len(self.report["labels"]),
            settings.dropout,
            settings.label_smoothing,
        )

    def save(self, trained: Any, folder: Path) -> task.ModelFiles:
        quiet()
        trained.body.encoder.save_pretrained(folder)
        save_file({name: value.contiguous() for name, value in trained.head.state_dict().items()},
                  folder / "head.safetensors")  # fmt: skip
        return self.save_facts(trained, "vit", folder)


def _load(folder: Path, settings: Any) -> tuple[Patches, int]:
    encoder = load_vit(folder)
    return Patches(encoder, settings["pooling"]), encoder.config.hidden_size


def load_predictor(folder: Path) -> ImageLabelPredictor:
    return ImageLabelPredictor(folder, _load)
