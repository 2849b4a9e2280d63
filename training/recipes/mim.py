"""Masked image modelling: a vision transformer that guesses hidden patches from the others; `vit` begins from it.

Paper: He et al., "Masked autoencoders are scalable vision learners", CVPR 2022, §3: the encoder sees the patches that
are not hidden alone, a small decoder guesses the pixels of the others.
How ours differs: sizes for small pictures; masks are drawn from (seed, epoch, sample).
Command: slipway train digits-mim
Hardware and time: four minutes for digits on a core.
Expected: a validation loss well below the one it starts with. With ten labels a class `vit` tells 0.91 of the digits
from it and 0.86 from random weights (digits-few, digits-few-random); a support vector machine 0.93.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from training import task
from training.columns import image_alone
from training.image_classifier import AT_ONCE, LIBRARIES, SPLITS, example_text
from training.images import ImageFile, augment, read_image, table_images, to_tensor, write_images
from training.randomness import SampleKeys
from training.recipe import Augmentation, PatchSettings
from training.text import read_json, write_json
from training.vision import draw_weights, quiet, vit_sizes


class Settings(PatchSettings):
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            **PatchSettings.presets["tiny"],
            "masking_rate": 0.5,
            "normalise_patches": False,
            "decoder_size": 32,
            "decoder_layers": 1,
        }
    }
    masking_rate: float = Field(0.75, gt=0, lt=1)
    """Share of the patches that are hidden."""
    normalise_patches: bool = True
    """Guess each patch less its mean, over its deviation (§4.1); else its pixels, from -1 to 1."""
    decoder_size: int = Field(64, ge=8, le=8192)
    """Width of the decoder, a multiple of 4 times `num_heads`; it is not kept for what begins from the model."""
    decoder_layers: int = Field(2, ge=1, le=32)
    augmentation: Augmentation = Augmentation()


class MaskedAutoencoder(task.Task):
    model: Any  # a transformers model: its attributes are its own

    def __init__(self, model: Any, start: float):
        """start: the mean square of what is to be guessed."""
        super().__init__()
        self.model, self.start = model, start

    def forward(self, batch: task.Batch, phase: str = "all") -> dict[str, torch.Tensor]:
        found = self.model(batch["pixels"], noise=batch["noise"])
        return {"mim_loss": found.loss * found.mask.sum()}  # transformers' is the mean over the hidden patches

    def counts(self, batch: task.Batch) -> dict[str, float]:
        pictures, patches = batch["noise"].shape
        return {"mim_loss": pictures * (patches - int(patches * (1 - self.model.config.mask_ratio)))}

    def initial_losses(self) -> dict[str, float]:
        return {"mim_loss": self.start}  # nothing is guessed yet

    def shards(self) -> list[torch.nn.Module]:
        return [*self.model.vit.layers, *self.model.decoder.decoder_layers]


class Recipe(task.Recipe):
    settings: Settings

    def prepare(self, splits: Mapping[str, Any], contract: Any, folder: Path, say: Callable[[str], None]) -> None:
        image = image_alone(contract)
        for name in SPLITS:
            say(f"{splits[name].num_rows:,} {name} pictures")
            pixels = table_images(splits[name], image, self.settings.image_size, self.settings.channels)
            write_images(folder / f"{name}.arrow", pixels, {"row_id": splits[name]["row_id"]})
        write_json(folder / "report.json", {"image": image})

    def open(self, folder: Path) -> None:
        self.report = read_json(folder / "report.json")
        self.files = {name: ImageFile.open(folder / f"{name}.arrow") for name in SPLITS}

    def num_samples(self, split: str) -> int:
        return len(self.files[split])

    def row_ids(self, split: str, index: np.ndarray) -> list[str]:
        return self.files[split].row_ids(index)

    def batch(self, split: str, index: np.ndarray, keys: SampleKeys) -> task.Batch:
        pixels = self.files[split].pixels(index)
        if split == "train":
            pixels = augment(pixels, keys, **self.settings.augmentation.model_dump())
        patches = (self.settings.image_size // self.settings.patch_size) ** 2
        noise = keys.uniform("mask", np.full(len(index), patches)).reshape(len(index), patches)
        return {"pixels": to_tensor(pixels), "noise": torch.from_numpy(noise)}

    def build(self) -> MaskedAutoencoder:
        from transformers import ViTMAEConfig, ViTMAEForPreTraining

        settings = self.settings
        config = ViTMAEConfig(
            **vit_sizes(settings),
            mask_ratio=settings.masking_rate,
            norm_pix_loss=settings.normalise_patches,
            decoder_hidden_size=settings.decoder_size,
            decoder_num_hidden_layers=settings.decoder_layers,
            decoder_num_attention_heads=settings.num_heads,
            decoder_intermediate_size=4 * settings.decoder_size,
        )
        model = ViTMAEForPreTraining(config)
        # transformers 5.23 leaves both tables of positions of a fresh model at 0, and a patch is then anywhere.
        embeddings = model.vit.embeddings
        embeddings.patch_embeddings.projection._is_hf_initialized = False
        embeddings.initialize_weights()
        model.decoder.initialize_weights(embeddings.patch_embeddings.num_patches)
        draw_weights(model)
        torch.nn.init.zeros_(model.decoder.decoder_pred.weight)  # the loss begins where nothing is guessed
        return MaskedAutoencoder(model, self._start(model))

    @torch.no_grad()
    def _start(self, model: Any) -> float:
        """The mean square of what is to be guessed: what a model leaves that guesses 0 everywhere."""
        some = self.files["train"].pixels(np.arange(min(len(self.files["train"]), AT_ONCE)))
        patches = model.patchify(to_tensor(some))
        if not self.settings.normalise_patches:
            return float(patches.square().mean())
        variance, size = patches.var(-1), patches.shape[-1]  # of a flat patch nothing is left
        return float((variance / (variance + 1e-6)).mean() * (size - 1) / size)

    def save(self, trained: Any, folder: Path) -> task.ModelFiles:
        quiet()
        trained.model.save_pretrained(folder)
        image = self.report["image"]
        facts = {"recipe": "mim", "settings": self.settings.model_dump(mode="json"), "image": image}
        write_json(folder / "recipe.json", facts)
        return task.ModelFiles(
            loader="training.recipes.mim:load_predictor",
            input_columns=(image,),
            input_example=({image: example_text(self.settings.image_size)},),
            outputs=(("error", "double"),),
            libraries=LIBRARIES,
        )


class PatchGuesser(task.Predictor):
    """How far the guesses at hidden patches are from a picture: the loss, under one and the same mask."""

    def __init__(self, folder: Path):
        from transformers import ViTMAEForPreTraining

        quiet()
        facts = read_json(folder / "recipe.json")
        self.settings, self.image = facts["settings"], facts["image"]
        self.model = ViTMAEForPreTraining.from_pretrained(folder, use_safetensors=True, local_files_only=True).eval()
        patches = (self.settings["image_size"] // self.settings["patch_size"]) ** 2
        keys = SampleKeys.of(0, np.zeros(1, int), np.zeros(1, int))
        self.noise = torch.from_numpy(keys.uniform("mask", np.array([patches]))[None])

    @torch.inference_mode()
    def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        size, channels = self.settings["image_size"], self.settings["channels"]
        pictures = (to_tensor(read_image(row[self.image], size, channels)[None]) for row in rows)
        return [{"error": float(self.model(pixels, noise=self.noise).loss)} for pixels in pictures]


def load_predictor(folder: Path) -> PatchGuesser:
    return PatchGuesser(folder)
