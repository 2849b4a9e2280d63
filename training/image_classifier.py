"""What recipes that tell what a picture shows have in common: data, losses, answers. The network is the recipe's."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional

from infra.errors import WrongInput
from training import task
from training.columns import image_alone
from training.images import ImageFile, augment, png_text, read_image, table_images, to_tensor, write_images
from training.model import label_answers
from training.randomness import SampleKeys
from training.recipe import ImageClassifierSettings
from training.temperature import fit_temperature
from training.text import read_json, write_json

SPLITS = ("train", "validation", "test")
AT_ONCE = 256
"""Pictures of a forward pass when many are answered."""


class ImageClassifier(task.Task):
    """`body` makes of pixels (N, C, H, W) one row (N, D) each, `head` of these the logits."""

    def __init__(self, body: Any, width: int, num_labels: int, dropout: float = 0.0, label_smoothing: float = 0.0):
        super().__init__()
        self.body, self.dropout, self.label_smoothing = body, dropout, label_smoothing
        self.head = torch.nn.Linear(width, num_labels)
        torch.nn.init.normal_(self.head.weight, std=0.01)  # no label likelier than another at the start
        torch.nn.init.zeros_(self.head.bias)

    def logits(self, batch: task.Batch) -> torch.Tensor:
        """(N, labels)"""
        pooled = self.body(batch["pixels"])
        return self.head(functional.dropout(pooled, self.dropout, self.training)).float()

    def forward(self, batch: task.Batch, phase: str = "all") -> dict[str, torch.Tensor]:
        smoothing = self.label_smoothing if self.training else 0.0
        logits = self.logits(batch)
        return {"loss": functional.cross_entropy(logits, batch["labels"], reduction="sum", label_smoothing=smoothing)}

    def counts(self, batch: task.Batch) -> dict[str, float]:
        return {"loss": len(batch["labels"])}

    def measure(self, batch: task.Batch) -> dict[str, tuple[float, float]]:
        logits, labels = self.logits(batch), batch["labels"]
        loss, right = functional.cross_entropy(logits, labels, reduction="sum"), (logits.argmax(-1) == labels).sum()
        return {"loss": (float(loss), float(len(labels))), "accuracy": (float(right), float(len(labels)))}

    def initial_losses(self) -> dict[str, float]:
        return {"loss": math.log(self.head.out_features)}

    def shards(self) -> list[torch.nn.Module]:
        return self.body.shards()


class ImageClassifierRecipe(task.Recipe):
    settings: ImageClassifierSettings

    def prepare(self, splits: Mapping[str, Any], contract: Any, folder: Path, say: Callable[[str], None]) -> None:
        if contract.label is None:
            raise WrongInput(f"contract {contract.name}: names no slipway.label; telling pictures apart needs one")
        image = image_alone(contract)
        labels = sorted({str(value) for value in splits["train"][contract.label].to_pylist() if value is not None})
        if len(labels) < 2:
            raise WrongInput(f"dataset {contract.name}: column '{contract.label}' has {len(labels)} value; 2 needed")
        number = {label: position for position, label in enumerate(labels)}
        report: dict[str, Any] = {"labels": labels, "image": image}
        for name in SPLITS:
            say(f"{splits[name].num_rows:,} {name} pictures")
            pixels = table_images(splits[name], image, self.settings.image_size, self.settings.channels)
            values = splits[name][contract.label].to_pylist()
            known = np.array([number.get(str(value), -1) for value in values], np.int32)
            write_images(folder / f"{name}.arrow", pixels, {"row_id": splits[name]["row_id"], "label": known})
            report[name] = {"pictures": len(pixels), "unseen_labels": int((known < 0).sum())}
        write_json(folder / "report.json", report)

    def open(self, folder: Path) -> None:
        self.report = read_json(folder / "report.json")
        self.files = {name: ImageFile.open(folder / f"{name}.arrow") for name in SPLITS}
        self.labels = {name: file.columns["label"].to_numpy() for name, file in self.files.items()}
        # A label unseen in training has no output to be right with: evaluation counts it as wrong, the loss cannot.
        self.rows = {name: np.flatnonzero(labels >= 0) for name, labels in self.labels.items()}

    def num_samples(self, split: str) -> int:
        return len(self.rows[split])

    def row_ids(self, split: str, index: np.ndarray) -> list[str]:
        return self.files[split].row_ids(self.rows[split][index])

    def batch(self, split: str, index: np.ndarray, keys: SampleKeys) -> task.Batch:
        rows = self.rows[split][index]
        pixels = self.files[split].pixels(rows)
        if split == "train":
            pixels = augment(pixels, keys, **self.settings.augmentation.model_dump())
        return {"pixels": to_tensor(pixels), "labels": torch.from_numpy(self.labels[split][rows].astype(np.int64))}

    def save_facts(self, trained: ImageClassifier, recipe: str, folder: Path) -> task.ModelFiles:
        """Write what a predictor reads beside the weights: settings, labels, temperature."""
        facts: dict[str, Any] = {"recipe": recipe, "settings": self.settings.model_dump(mode="json")}
        if self.settings.calibrate == "temperature":
            facts["temperature"] = self._temperature(trained)
        image = self.report["image"]
        write_json(folder / "recipe.json", {**facts, "labels": self.report["labels"], "image": image})
        return task.ModelFiles(
            loader=f"training.recipes.{recipe}:load_predictor",
            input_columns=(image,),
            input_example=({image: example_text(self.settings.image_size)},),
            libraries=LIBRARIES,
        )

    @torch.inference_mode()
    def _temperature(self, trained: ImageClassifier) -> float:
        if not self.num_samples("validation"):
            raise WrongInput("settings.calibrate: there is no validation split to fit it to; give the contract one")
        trained.eval()
        device, rows = trained.head.weight.device, self.rows["validation"]
        logits = [
            trained.logits({"pixels": to_tensor(self.files["validation"].pixels(part)).to(device)}).double().cpu()
            for part in _parts(rows)
        ]
        return fit_temperature(torch.cat(logits).numpy(), self.labels["validation"][rows])


LIBRARIES = ("torch", "transformers", "safetensors", "pillow")
"""What answering needs."""


def example_text(size: int) -> str:
    """A picture as a request writes it: base64 text of a PNG."""
    return png_text(np.linspace(0, 255, size * size).reshape(size, size).astype(np.uint8))


def _parts(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[begin : begin + AT_ONCE] for begin in range(0, len(rows), AT_ONCE))


class ImageLabelPredictor(task.Predictor):
    """Label, its probability, and every label's, the likeliest first."""

    def __init__(self, folder: Path, load: Callable[[Path, Any], tuple[Any, int]]):
        """load: makes of the folder and the settings the body and its width."""
        facts = read_json(folder / "recipe.json")
        self.labels, self.image, self.settings = facts["labels"], facts["image"], facts["settings"]
        self.temperature = facts.get("temperature", 1.0)
        body, width = load(folder, self.settings)
        self.model = ImageClassifier(body, width, len(self.labels))
        self.model.head.load_state_dict(load_file(folder / "head.safetensors"))
        self.model.eval()

    @torch.inference_mode()
    def probabilities(self, rows: list[dict[str, Any]]) -> np.ndarray:
        """(N, labels) float64, each row summing to 1."""
        size, channels = self.settings["image_size"], self.settings["channels"]
        device = self.model.head.weight.device
        out = np.empty((len(rows), len(self.labels)))
        for part in _parts(np.arange(len(rows))):
            pixels = np.stack([read_image(rows[row][self.image], size, channels) for row in part])
            logits = self.model.logits({"pixels": to_tensor(pixels).to(device)}).double().cpu()
            out[part] = (logits / self.temperature).softmax(-1).numpy()
        return out

    def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return label_answers(self.labels, self.probabilities(rows))
