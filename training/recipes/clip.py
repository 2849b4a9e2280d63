"""CLIP: pictures and texts in one space; classes without training on them, search and captions by what lies nearest.

Paper: Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021, §2.3 (both
towers, one linear projection each, symmetric cross-entropy, learned temperature), §3.1.4 (prompts and their ensemble).
How ours differs: the image tower is a small residual network (He et al., ECCV 2016) with group norms; the text tower is
a BERT, or a published encoder (`from.base`), its tokens' mean pooled; pairs with the same caption are no negatives of
each other, for data where many pictures share one. Negatives are those of the whole batch, gathered with gradient.
Command: slipway train digits-clip
Hardware and time: a minute for digits on a core, ten for fashion_mnist or emoji (docs/pictures.md).
Expected: where captions restate labels, zero-shot accuracy near a classifier's; elsewhere recall well above chance: of
new emoji 0.70 are found by their names among the first ten of some 400.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, field_validator
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor

from infra.errors import WrongInput
from training import task
from training.columns import image_and_caption
from training.encoders import build_encoder, load_pretrained, save_pretrained
from training.image_classifier import example_text
from training.image_text import GROUP, Clip, ImageTower, embed_pictures, project
from training.images import ImageFile, augment, read_image, table_images, to_tensor, write_images
from training.model import label_answers
from training.randomness import SampleKeys
from training.recipe import Augmentation, EncoderSettings, ImageSettings
from training.siamese import embed_texts, unit_length
from training.text import (
    TokenFile,
    load_tokenizer,
    pack,
    read_json,
    settle_tokenizer,
    tokenize,
    write_json,
    write_tokens,
)
from training.text_index import TextIndex

SPLITS = ("train", "validation", "test")
NEAREST = 5
"""Captions, or pictures, that a search answers."""
PICTURES, CAPTIONS = "pictures", "captions"
"""Folders of the model's two indexes."""


class Settings(ImageSettings, EncoderSettings):
    roles: ClassVar[dict[str, str]] = {"base": "the text tower's weights and tokenizer; without it, random weights"}
    reads: ClassVar[str] = "image-caption"
    evaluates: ClassVar[str] = "image_retrieval"
    libraries: ClassVar[tuple[str, ...]] = (*EncoderSettings.libraries, "pillow", "faiss-cpu")
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            **EncoderSettings.presets["tiny"],
            "image_size": 8,
            "image_width": 8,
            "embedding_size": 32,
            "temperature": 0.2,
        }
    }

    @staticmethod
    def check_columns(contract: Any) -> None:
        image_and_caption(contract)

    image_width: int = Field(32, ge=4, le=1024)
    """Channels of the image tower's first stage; each stage has half the side and twice the channels."""
    image_stages: int = Field(3, ge=1, le=6)
    image_blocks: int = Field(1, ge=1, le=16)
    """Residual blocks of a stage."""
    embedding_size: int = Field(64, ge=2, le=4096)
    """Width of the space that both towers are projected into."""
    temperature: float = Field(0.07, ge=0.01, le=1)
    """What cosines are divided by at first; it is learned."""
    freeze_text: bool = False
    """Learn from the texts' states as the base gives them: of the text tower the projection alone is trained."""
    augmentation: Augmentation = Augmentation()
    prompts: tuple[str, ...] = ("a photo of a {label}",)
    """What is said of a class where a picture is classified without training on classes: the mean of these texts."""

    @field_validator("prompts")
    @classmethod
    def _prompts_name_the_label(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        for prompt in prompts:
            if "{label}" not in prompt:
                raise ValueError(f"'{prompt}' does not say where the class goes; write {{label}} in it")
        if not prompts:
            raise ValueError("is empty; give at least one text with {label} in it")
        return prompts

    @property
    def additive(self) -> bool:
        return False


class Recipe(task.Recipe):
    settings: Settings

    def prepare(self, splits: Mapping[str, Any], contract: Any, folder: Path, say: Callable[[str], None]) -> None:
        settings = self.settings
        image, caption = image_and_caption(contract)
        known: dict[str, int] = {}
        row_ids: list[str] = []
        report: dict[str, Any] = {"image": image, "caption": caption, "labels": []}
        if contract.label is not None:
            report["labels"] = sorted({str(value) for value in splits["train"][contract.label].to_pylist()})
        for name in SPLITS:
            table = splits[name]
            if name != "train":  # by digest, so that the rows of a group are no neighbours in the dataset
                table = table.sort_by("row_id")
            say(f"reading the pictures of {name}")
            for text, row_id in zip(table[caption].to_pylist(), table["row_id"].to_pylist(), strict=True):
                if not (text or "").strip():
                    raise WrongInput(
                        f"dataset {contract.name}: {name} row {row_id[:12]} has no caption in '{caption}'; make the "
                        "column required, or filter such rows"
                    )
                if known.setdefault(text, len(known)) == len(row_ids):
                    row_ids.append(row_id)
            numbers = np.array([known[text] for text in table[caption].to_pylist()], np.int32)
            pixels = table_images(table, image, settings.image_size, settings.channels)
            write_images(folder / f"{name}.arrow", pixels, {"row_id": table["row_id"], "caption": numbers})
            report[name] = {"pairs": len(numbers), "captions": len(set(numbers.tolist()))}
        if report["train"]["captions"] < 2:
            raise WrongInput(
                f"dataset {contract.name}: '{caption}' says {report['train']['captions']} different thing(s) of its "
                "training pictures, and 2 are needed to tell apart"
            )
        learned = list(known)[: report["train"]["captions"]]
        tokenizer = settle_tokenizer(self.sources.get("base"), learned, settings.vocab_size, say)
        tokenizer.save(str(folder / "tokenizer.json"))
        tokens = tokenize(tokenizer, list(known), settings.max_length)
        if tokens.truncated:
            say(f"{tokens.truncated:,} of {len(tokens):,} captions cut to {settings.max_length} tokens")
        write_tokens(folder / "captions.arrow", tokens, {"row_id": row_ids, "text": list(known)})
        report |= {"vocabulary": tokenizer.get_vocab_size(), "truncated": tokens.truncated}
        write_json(folder / "report.json", report)

    def open(self, folder: Path) -> None:
        self.folder = folder
        self.report = read_json(folder / "report.json")
        self.captions = TokenFile.open(folder / "captions.arrow")
        self.images = {name: ImageFile.open(folder / f"{name}.arrow") for name in SPLITS}
        self.numbers = {name: self.images[name].columns["caption"].to_numpy().astype(np.int64) for name in SPLITS}
        self.states: torch.Tensor | None = None  # (captions, width), of a frozen text tower

    def num_samples(self, split: str) -> int:
        return len(self.images[split])

    def num_tokens(self, split: str) -> int:
        return int(self.captions.tokens.lengths[self.numbers[split]].sum())

    def row_ids(self, split: str, index: np.ndarray) -> list[str]:
        return self.images[split].row_ids(index)

    def batch(self, split: str, index: np.ndarray, keys: SampleKeys) -> task.Batch:
        if split == "train":
            return self.pairs(split, index, keys)
        groups = np.unique(index // GROUP)
        rows = np.concatenate(
            [np.arange(GROUP * group, min(GROUP * (group + 1), self.num_samples(split))) for group in groups]
        )
        asked = np.searchsorted(rows, index)
        more = {"groups": torch.from_numpy(rows // GROUP), "asked": torch.from_numpy(asked)}
        return {**self.pairs(split, rows), **more}

    def pairs(self, split: str, index: np.ndarray, keys: SampleKeys | None = None) -> task.Batch:
        settings, numbers = self.settings, self.numbers[split][index]
        pixels = self.images[split].pixels(index)
        if keys is not None:
            pixels = augment(pixels, keys, **settings.augmentation.model_dump())
        batch: dict[str, Any] = {"pixels": to_tensor(pixels), "captions": torch.from_numpy(numbers)}
        if self.states is not None:
            return {**batch, "states": self.states[batch["captions"]]}
        return {**batch, **pack(self.captions.tokens, numbers)}

    @torch.no_grad()
    def refresh(self, task: Any, epoch: int) -> None:
        """What a frozen text tower makes of each caption does not change: it is computed before the first epoch."""
        sharded = isinstance(next(task.parameters()), DTensor)  # its layers work inside the whole task's forward alone
        if self.settings.freeze_text and self.states is None and not sharded:
            task.text.eval()
            self.states = torch.from_numpy(embed_texts(task.text, self.captions.tokens))

    def build(self) -> Clip:
        text = build_encoder(self.settings, self.sources.get("base"), self.report["vocabulary"])
        if self.settings.freeze_text:
            text.requires_grad_(False)
        return of_settings(self.settings, text)

    def save(self, trained: Any, folder: Path) -> task.ModelFiles:
        trained.eval()
        save_pretrained(trained.text, self.folder, folder)
        rest = {
            name: value.contiguous() for name, value in trained.state_dict().items() if not name.startswith("text.")
        }
        save_file(rest, folder / "model_image.safetensors")
        facts = {name: self.report[name] for name in ("image", "caption", "labels")}
        write_json(
            folder / "recipe.json", {"recipe": "clip", "settings": self.settings.model_dump(mode="json"), **facts}
        )
        figures = {"temperature": 1 / float(trained.scale.detach()), **self.index(trained, folder)}
        return task.ModelFiles(
            loader="training.recipes.clip:load_predictor",
            input_columns=(self.report["image"],),
            input_example=({self.report["image"]: example_text(self.settings.image_size)},),
            outputs=(("label", "string"), ("confidence", "double"), ("caption", "string")),
            libraries=("torch", "transformers", "tokenizers", "safetensors", "faiss-cpu", "pillow"),
            figures=figures,
        )

    def index(self, trained: Clip, folder: Path) -> dict[str, float]:
        """The training split as a library: its pictures for texts to find, its captions for pictures. Returns figures
        of the pictures' index."""
        images, numbers = self.images["train"], self.numbers["train"]
        texts, row_ids = (self.captions.columns[name] for name in ("text", "row_id"))
        captions = np.unique(numbers)
        states = embed_texts(trained.text, self.captions.tokens, captions)
        found = TextIndex.build(
            project(trained, states), texts.take(captions).to_pylist(), row_ids.take(captions).to_pylist()
        )
        found.save(folder / CAPTIONS, folder)
        vectors = embed_pictures(trained, len(images), images.pixels)
        library = TextIndex.build(vectors, texts.take(numbers).to_pylist(), images.columns["row_id"].to_pylist())
        library.save(folder / PICTURES, folder)
        return library.figures()


def of_settings(settings: Settings, text: Any) -> Clip:
    image = ImageTower(settings.channels, settings.image_width, settings.image_stages, settings.image_blocks)
    return Clip(image, text, settings.embedding_size, settings.temperature, settings.freeze_text)


class ClipPredictor(task.Predictor):
    """Answers a picture with its class among the dataset's labels, which were never trained, where it has some; and
    with the caption of the library that is nearest."""

    def __init__(self, folder: Path):
        from transformers import AutoModel

        facts = read_json(folder / "recipe.json")
        self.settings = Settings(**facts["settings"])
        self.image, self.caption, self.labels = (facts[name] for name in ("image", "caption", "labels"))
        self.tokenizer = load_tokenizer(folder)
        text = load_pretrained(AutoModel, folder)
        text.pooler = None
        self.model = of_settings(self.settings, text)
        states = {f"text.{name}": value for name, value in text.state_dict().items()}
        self.model.load_state_dict({**states, **load_file(folder / "model_image.safetensors")})
        self.model.eval()
        self.pictures, self.captions = (TextIndex.open(folder / name, folder) for name in (PICTURES, CAPTIONS))

    def embed_images(self, images: Sequence[Any]) -> np.ndarray:
        """Pictures as `training.images.read_image` takes them. Returns (N, D) float32, each of length 1."""
        size, channels = self.settings.image_size, self.settings.channels
        return embed_pictures(
            self.model, len(images), lambda index: np.stack([read_image(images[i], size, channels) for i in index])
        )

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) float32, each of length 1."""
        tokens = tokenize(self.tokenizer, list(texts), self.settings.max_length)
        return project(self.model, embed_texts(self.model.text, tokens))

    def embed_labels(self, labels: Sequence[str]) -> np.ndarray:
        """(labels, D): of each the mean of its prompts' embeddings, of length 1 again (§3.1.4)."""
        prompts = [prompt.replace("{label}", label) for label in labels for prompt in self.settings.prompts]
        return unit_length(self.embed_texts(prompts).reshape(len(labels), len(self.settings.prompts), -1).mean(1))

    def shares(self, vectors: np.ndarray, labels: Sequence[str]) -> np.ndarray:
        """How sure the model is of each label: (N, labels) float64, rows summing to 1. vectors: of pictures, (N, D)."""
        logits = float(self.model.scale.detach()) * vectors @ self.embed_labels(labels).T
        return torch.from_numpy(logits).double().softmax(-1).numpy()

    def classify(self, images: Sequence[Any], labels: Sequence[str]) -> list[dict[str, Any]]:
        """Zero-shot: as a classifier answers, of any labels."""
        return label_answers(labels, self.shares(self.embed_images(images), labels))

    def search(self, queries: Sequence[Any], count: int = NEAREST) -> list[list[dict[str, Any]]]:
        """Of each text the library's nearest pictures, of each picture its nearest captions: row_id, text, score."""
        return [
            self.pictures.search(self.embed_texts([query]), count)[0]
            if isinstance(query, str)
            else self.captions.search(self.embed_images([query]), count)[0]
            for query in queries
        ]

    def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        vectors = self.embed_images([row[self.image] for row in rows])
        nearest = self.captions.search(vectors, NEAREST)
        answers = [{"label": one[0]["text"], "confidence": one[0]["score"]} for one in nearest]
        if self.labels:
            answers = label_answers(self.labels, self.shares(vectors, self.labels))
        return [
            {**answer, "caption": one[0]["text"], "nearest": one} for answer, one in zip(answers, nearest, strict=True)
        ]


def load_predictor(folder: Path) -> ClipPredictor:
    return ClipPredictor(folder)
