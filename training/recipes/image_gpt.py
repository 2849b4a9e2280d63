"""Images without text: a GPT-2 over the codes of a dvae, row by row; it completes a picture from its upper rows.

Paper: Chen et al., "Generative pretraining from pixels", ICML 2020, §2.1 (the autoregressive objective) and §3.
How ours differs: tokens are the codes of a `dvae` trained before (`from: dvae`) and not clustered colours, so a picture
is 16 to 256 tokens long and not 1,024 and more; positions are learned one by one.
Command: slipway train digits-image-gpt
Hardware and time: the record of digits-image-gpt; two minutes on a core.
Expected: of digits completed from the upper half a classifier names 66 % as what they were (by chance 10 %).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from infra.digests import digest_bytes
from infra.errors import WrongInput
from training import task
from training.codebook import Codebook
from training.columns import one_image
from training.drawing import Drawer, answer_of, chances
from training.generation import Sampling
from training.image_tokens import (
    ImageLanguageModel,
    Layout,
    as_tokens,
    build_model,
    copy_model,
    encode_pictures,
    load_model,
    refuse_other_codebook,
    save_model,
)
from training.images import png_text, read_image, table_images
from training.randomness import SampleKeys
from training.recipe import RecipeSettings, check_heads, load_recipe
from training.text import TokenFile, Tokens, read_json, write_json, write_tokens

SPLITS = ("train", "validation", "test")
PARAMS = ("temperature", "top_k", "top_p", "samples", "answer_seed")
"""Settings that a request may set for itself."""
MOST_SAMPLES = 256
LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "pillow")
"""What answering needs."""


class Settings(RecipeSettings):
    roles: ClassVar[dict[str, str]] = {
        "dvae": "required: the trained dvae whose codes are learned",
        "judge": "a classifier that says in evaluations what completed pictures show",
    }
    prepare_reads: ClassVar[dict[str, tuple[str, ...]]] = {"dvae": ("model.safetensors", "recipe.json")}
    example_sources: ClassVar[dict[str, str]] = {"dvae": "dvae"}
    reads: ClassVar[str] = "image"
    evaluates: ClassVar[str] = "image_generation"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "dropout": 0.1},
        "base": {"hidden_size": 512, "num_layers": 24, "num_heads": 8},
    }

    @staticmethod
    def check_columns(contract: Any) -> None:
        one_image(contract)

    hidden_size: int = Field(128, ge=8, le=8192)
    """Width of the model."""
    num_layers: int = Field(4, ge=1, le=96)
    num_heads: int = Field(4, ge=1, le=128)
    dropout: float = Field(0.1, ge=0, lt=1)
    """On embeddings, attention and the outputs of both halves of a layer."""
    kept_share: float = Field(0.5, gt=0, lt=1)
    """Of a picture's height, from the top: what a completion is given."""
    temperature: float = Field(1.0, ge=0, le=10)
    """Of an answer: below 1 likelier codes are favoured, 0 always takes the likeliest."""
    top_k: int = Field(0, ge=0)
    """Only the k likeliest codes are drawn from; 0: all."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Only the likeliest codes that together have this probability are drawn from."""
    samples: int = Field(1, ge=1, le=256)
    """Pictures that an answer holds."""
    answer_seed: int = Field(0, ge=0, lt=2**31)
    """The same question has the same answer; another seed gives another one."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        check_heads(self.hidden_size, self.num_heads)
        return self


class Recipe(task.Recipe):
    settings: Any
    name = "image_gpt"

    def __init__(self, settings: Any, sources: Mapping[str, Path]):
        super().__init__(settings, sources)
        if "dvae" not in sources:
            raise WrongInput(f"from.dvae: is missing; {self.name} learns the codes of a trained dvae")

    def prepare(self, splits: Mapping[str, Any], contract: Any, folder: Path, say: Callable[[str], None]) -> None:
        image = one_image(contract)
        codebook = Codebook.load(self.sources["dvae"])
        texts, told = self.captions(splits, contract, folder, say)
        for name in SPLITS:
            say(f"encoding the pictures of {name}")
            pixels = table_images(splits[name], image, codebook.image_size, codebook.channels)
            codes = encode_pictures(codebook, pixels)
            write_tokens(
                folder / f"{name}.arrow", texts[name], {"row_id": splits[name]["row_id"], "codes": _column(codes)}
            )
        layout = {"codes": codebook.codes, "grid": codebook.grid, **told.pop("layout")}
        body = {"image": image, "codebook": codebook.digest, "layout": layout, **told}
        write_json(folder / "report.json", body)

    def captions(
        self, splits: Mapping[str, Any], contract: Any, folder: Path, say: Callable[[str], None]
    ) -> tuple[dict[str, Tokens], dict[str, Any]]:
        """What stands before each picture; and what the report says of it, `layout` among that."""
        texts = {name: as_tokens([np.zeros(1, np.int32)] * splits[name].num_rows) for name in SPLITS}
        return texts, {"layout": {"text_vocabulary": 1, "text_length": 1}}

    def open(self, folder: Path) -> None:
        self.folder, self.report = folder, read_json(folder / "report.json")
        self.layout = Layout(**self.report["layout"])
        self.files = {name: TokenFile.open(folder / f"{name}.arrow") for name in SPLITS}
        self.codes = {name: _codes(file, self.layout) for name, file in self.files.items()}
        found = Codebook.load(self.sources["dvae"]).digest
        refuse_other_codebook(f"from.dvae {self.sources['dvae']}", found, self.report["codebook"])

    def num_samples(self, split: str) -> int:
        return len(self.files[split])

    def num_tokens(self, split: str) -> int:
        return int(self.files[split].tokens.lengths.sum()) + self.num_samples(split) * (self.layout.image_tokens - 1)

    def row_ids(self, split: str, index: np.ndarray) -> list[str]:
        return self.files[split].row_ids(index)

    def batch(self, split: str, index: np.ndarray, keys: SampleKeys) -> task.Batch:
        return self.layout.pack(self.files[split].tokens, index, self.codes[split][index])

    def build(self) -> ImageLanguageModel:
        return ImageLanguageModel(build_model(self.layout, self.settings), self.layout)

    def save(self, trained: Any, folder: Path) -> task.ModelFiles:
        settings = self.settings.model_dump(mode="json")
        kept = save_model(trained.model, self.layout, self.sources["dvae"], folder)
        for role in sorted(self.sources.keys() & {"judge", "clip"}):
            copy_model(self.sources[role], folder / role)
        facts = {"recipe": self.name, "settings": settings, **kept, **self.kept()}
        write_json(folder / "recipe.json", facts)
        columns, example = self.example()
        return task.ModelFiles(
            loader=f"training.recipes.{self.name}:load_predictor",
            input_columns=columns,
            input_example=(example,),
            outputs=(("label", "string"), ("confidence", "double"), ("image", "string")),
            libraries=LIBRARIES + (("faiss-cpu",) if "clip" in self.sources else ()),
            params={name: settings[name] for name in self.params()},
        )

    def params(self) -> tuple[str, ...]:
        return PARAMS

    def kept(self) -> dict[str, Any]:
        """What the predictor needs of the report."""
        return {"image": self.report["image"]}

    def example(self) -> tuple[tuple[str, ...], dict[str, Any]]:
        """The columns that the model is asked by, and a row of them."""
        picture = Codebook.load(self.sources["dvae"]).decode(self._first_codes())[0]
        return (self.report["image"],), {self.report["image"]: png_text(picture)}

    def _first_codes(self) -> np.ndarray:
        """(1, grid, grid) of a training picture, or zeros."""
        shape = (1, self.layout.grid, self.layout.grid)
        return self.codes["train"][:1].reshape(shape) if self.num_samples("train") else np.zeros(shape, np.int64)


class Completer(task.Predictor):
    """Goes on from the upper rows of a picture. An answer's `image` is the base64 text of a PNG file, its `label` the
    digest of its codes, `confidence` the geometric mean of what the model gave each code that it drew."""

    caption = ""
    """The column of captions; empty: it reads none."""
    clip: Any = None

    def __init__(self, folder: Path):
        self.facts = read_json(folder / "recipe.json")
        self.settings = self.facts["settings"]
        self.task, self.codebook = load_model(folder, self.facts)
        self.model, self.layout = self.task.model, self.task.layout
        self.drawer = Drawer(self.model, self.layout)
        self.judge = companion(folder / "judge")

    def __call__(self, rows: list[dict[str, Any]], **params: Any) -> list[dict[str, Any]]:
        """params: of PARAMS, in place of the settings."""
        asked = self.asked(params)
        column, size, channels = self.facts["image"], self.codebook.image_size, self.codebook.channels
        given = [read_image(row[column], size, channels) for row in rows]
        answers = []
        for picture in given:
            name = digest_bytes(picture.tobytes())
            names = [f"{name}/{number}" for number in range(asked["samples"])]
            copies = np.repeat(picture[None], len(names), axis=0)
            pictures, codes, shares = self.complete(copies, names, asked)
            answers.append(answer(pictures, codes, shares, [self.given(picture[None])[0]]))
        return answers

    def asked(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The settings, those of the request before the model's own. Raises WrongInput."""
        asked = {**self.settings, **params}
        if not 1 <= asked["samples"] <= MOST_SAMPLES:
            raise WrongInput(f"samples: {asked['samples']}; give 1 to {MOST_SAMPLES}")
        return asked

    def complete(
        self, pixels: np.ndarray, names: Sequence[str], asked: Mapping[str, Any], texts: Sequence[np.ndarray] = ()
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pictures (N, H, W, C) whose upper rows are those of pixels, their codes and the model's shares of them.

        What is below is hidden before the picture is encoded: a code sees its surroundings. names: of each picture,
        which decide what is drawn; texts: captions as token ids, without them none."""
        rows = self.kept_rows
        known = encode_pictures(self.codebook, self.hidden(pixels))[:, : rows * self.layout.grid]
        codes, shares = self.drawer.draw(
            texts or [self.layout.no_caption] * len(pixels),
            chances(asked["answer_seed"], names, self.layout.image_tokens),
            sampling_of(asked),
            guidance=asked.get("guidance", 1.0) if len(texts) else 1.0,
            known=known,
        )
        pictures = self.decode(codes)
        pictures[:, : self.cut] = pixels[:, : self.cut]
        return pictures, codes, shares

    def tokens(self, captions: Sequence[str]) -> list[np.ndarray]:
        """What stands before the codes of pictures with these captions, as in training."""
        return [self.layout.no_caption] * len(captions)

    @property
    def kept_rows(self) -> int:
        """Of codes."""
        return min(max(1, round(self.settings["kept_share"] * self.layout.grid)), self.layout.grid - 1)

    @property
    def cut(self) -> int:
        """The pixel row where what is given ends."""
        return self.kept_rows * self.codebook.image_size // self.layout.grid

    def hidden(self, pixels: np.ndarray) -> np.ndarray:
        """Below the cut the last row that is given, again and again. pixels: (N, H, W, C)."""
        below = np.repeat(pixels[:, self.cut - 1 : self.cut], pixels.shape[1] - self.cut, axis=1)
        return np.concatenate([pixels[:, : self.cut], below], axis=1)

    def given(self, pixels: np.ndarray) -> np.ndarray:
        """As a page shows what is given: grey below the cut. pixels: (N, H, W, C)."""
        shown = pixels.copy()
        shown[:, self.cut :] = 127
        return shown

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """(N, image_tokens) -> (N, H, W, C) uint8."""
        return np.array(self.codebook.decode(codes.reshape(-1, self.layout.grid, self.layout.grid)))


def answer(
    pictures: np.ndarray, codes: np.ndarray, shares: np.ndarray, before: Sequence[np.ndarray] = (), **more: Any
) -> dict[str, Any]:
    """before: what a page of pictures shows ahead of them."""
    return {
        **answer_of(codes[0], shares[0]),
        "image": png_text(pictures[0]),
        "images": [png_text(one) for one in (*before, *pictures)],
        **more,
    }


def sampling_of(asked: Mapping[str, Any]) -> Sampling:
    return Sampling(**{name: asked[name] for name in ("temperature", "top_k", "top_p")})


def load_predictor(folder: Path) -> Completer:
    return Completer(folder)


def companion(folder: Path) -> Any:
    """The predictor of another model that travels inside this one's folder; None where there is none."""
    if not folder.is_dir():
        return None
    return load_recipe(read_json(folder / "recipe.json")["recipe"]).load_predictor(folder)


def _column(codes: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(codes.astype(np.int32).reshape(-1)), codes.shape[1])


def _codes(file: TokenFile, layout: Layout) -> np.ndarray:
    """(N, image_tokens) int64."""
    if not len(file):
        return np.empty((0, layout.image_tokens), np.int64)
    values = file.columns["codes"].combine_chunks().values.to_numpy()
    return values.reshape(-1, layout.image_tokens).astype(np.int64)
