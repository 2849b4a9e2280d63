"""What autoencoders of images share: their data, the average picture they begin from, the loss, and their answers."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from infra.errors import WrongInput
from training import task
from training.columns import one_image
from training.evaluation import Picture
from training.images import ImageFile, png_text, read_image, table_images, to_pixels, to_tensor, write_images
from training.recipe import CodecSettings
from training.text import read_json, write_json

SPLITS = ("train", "validation", "test")
PICTURES_AT_ONCE = 256
"""Of a forward pass when many are answered."""


class Codec(nn.Module):
    """Pictures as an encoder reads them and a decoder writes them: centred on the average picture of the training split
    and scaled, so that a decoder that says 0 gives the average picture and errs by 1."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, mean: torch.Tensor, scale: float):
        """mean: (C, H, W) and scale, the deviation from it, as `images.to_tensor` has pixels."""
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", torch.tensor(scale))

    def read(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels - self.mean) / self.scale

    def write(self, said: torch.Tensor) -> torch.Tensor:
        return said * self.scale + self.mean


class Recipe(task.Recipe):
    """A recipe whose samples are the pictures of one column, and nothing else of a row."""

    settings: CodecSettings

    def prepare(self, splits: Mapping[str, Any], contract: Any, folder: Path, say: Callable[[str], None]) -> None:
        image = one_image(contract)
        size, channels = self.settings.image_size, self.settings.channels
        pixels = {name: table_images(splits[name], image, size, channels) for name in SPLITS}
        for name in SPLITS:
            write_images(folder / f"{name}.arrow", pixels[name], {"row_id": splits[name]["row_id"]})
        mean, scale = _centre(pixels["train"])
        np.save(folder / "mean.npy", mean)
        write_json(folder / "report.json", {"input": image, "scale": scale})

    def open(self, folder: Path) -> None:
        self.folder = folder
        self.report = read_json(folder / "report.json")
        self.files = {name: ImageFile.open(folder / f"{name}.arrow") for name in SPLITS}

    def num_samples(self, split: str) -> int:
        return len(self.files[split])

    def row_ids(self, split: str, index: np.ndarray) -> list[str]:
        return self.files[split].row_ids(index)

    def pixels(self, split: str, index: np.ndarray) -> torch.Tensor:
        """(n, C, H, W)"""
        return to_tensor(self.files[split].pixels(index))

    def centre(self) -> tuple[torch.Tensor, float]:
        """What `Codec` begins from."""
        return torch.from_numpy(np.load(self.folder / "mean.npy")), self.report["scale"]

    def save(self, trained: Any, folder: Path) -> task.ModelFiles:
        from safetensors.torch import save_file

        weights = {name: value.contiguous() for name, value in trained.model.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        column, settings = self.report["input"], self.settings.model_dump(mode="json")
        recipe = type(self).__module__.rpartition(".")[2]
        write_json(folder / "recipe.json", {"recipe": recipe, "settings": settings, "input": column})
        average = to_pixels(self.centre()[0][None])[0]
        return task.ModelFiles(
            loader=f"{type(self).__module__}:load_predictor",
            input_columns=(column,),
            input_example=({column: png_text(average)},),
            outputs=(("label", "string"), ("confidence", "double"), ("image", "string")),
            libraries=("torch", "pillow", "safetensors"),
        )


class ReconstructionTask(task.Task):
    """Counts and the start of the loss that all have, the squared error of a value of a pixel where the average picture
    errs by 1; and what else an own loss is summed over."""

    model: Codec

    def initial_losses(self) -> dict[str, float]:
        return {"reconstruction_loss": 1.0}


class Reconstructor(task.Predictor):
    """Answers a picture with its code as text (`label`), what is left of it (`image`, the base64 text of a PNG) and how
    near that is: `confidence` is 1 minus the root of the mean squared error of pixels from 0 to 1."""

    model: Any

    def __init__(self, folder: Path):
        facts = read_json(folder / "recipe.json")
        self.column, self.settings = facts["input"], facts["settings"]
        self.image_size, self.channels = self.settings["image_size"], self.settings["channels"]

    def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [self.answer(read_image(row[self.column], self.image_size, self.channels)) for row in rows]

    def answer(self, pixels: np.ndarray) -> dict[str, Any]:
        """pixels: (H, W, C) uint8. One picture at a time: in other company sums change in their last bits."""
        code = self.encode(pixels[None])
        image = self.decode(code)[0]
        error = float(squared_errors(pixels[None], image[None])[0])
        return {"label": self.text(code[0]), "confidence": 1 - error**0.5, "image": png_text(image)}

    @abstractmethod
    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """(n, H, W, C) uint8 -> one code each"""

    @abstractmethod
    def decode(self, codes: np.ndarray) -> np.ndarray:
        """The inverse, as near as it gets: (n, H, W, C) uint8."""

    @abstractmethod
    def text(self, code: np.ndarray) -> str:
        """The code, as an answer says it."""

    def bound(self, pixels: np.ndarray) -> np.ndarray | None:
        """The ELBO of each picture in nats, (n,); None where there is none."""
        return None

    def pictures(self, pixels: np.ndarray) -> list[Picture]:
        """What there is to see of the model beside reconstructions. pixels: (n, H, W, C), of the judged split."""
        return []

    def reconstruct(self, pixels: np.ndarray) -> np.ndarray:
        return self.decode(self.encode(pixels))


def squared_errors(pixels: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Mean squared error of each picture, of values from 0 to 1. Both (n, H, W, C), of uint8. Returns (n,)."""
    apart = (pixels.astype(np.float32) - other.astype(np.float32)) / 255
    return np.square(apart).reshape(len(pixels), -1).mean(1).astype(np.float64)


def _centre(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """The average of (N, H, W, C) uint8 pictures, as (C, H, W), and the root of the mean square apart from it, both as
    `to_tensor` has pixels."""
    if not len(pixels):
        raise WrongInput("the training split has no picture")
    whole = np.zeros((2, *pixels.shape[1:]))
    for begin in range(0, len(pixels), PICTURES_AT_ONCE):
        part = pixels[begin : begin + PICTURES_AT_ONCE].astype(np.float64) / 127.5 - 1
        whole += part.sum(0), np.square(part).sum(0)
    mean, square = whole / len(pixels)
    scale = float(np.maximum(square - mean**2, 0).mean() ** 0.5)
    return mean.transpose(2, 0, 1).astype(np.float32), scale or 1.0
