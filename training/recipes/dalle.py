"""Pictures from captions: one GPT-2 reads a caption's tokens, then the codes of a dvae, and draws by going on.

Paper: Ramesh et al., "Zero-shot text-to-image generation" (DALL-E), ICML 2021, §2.2-2.3 and §2.6: both parts are
foretold, the picture's loss weighs 7/8 and the caption's 1/8; many pictures are drawn and CLIP keeps the best.
Classifier-free guidance: Ho & Salimans, 2022 (§3.1: captions left out by chance in training).
How ours differs: dense attention; one learned position a token, and not one a row and a column; captions are as long
as they are, no padding is learned; sizes are settings (256 + 1,024 tokens in the paper: the preset `base`).
Command: slipway train digits-dalle && slipway predict digits-dalle "a handwritten three" --out grid.png
Hardware and time: the record of digits-dalle; three minutes on a core.
Expected: a classifier trained apart names the asked digit in 99 % of the pictures that are drawn.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from infra.errors import WrongInput
from training import task
from training.columns import image_and_caption
from training.drawing import chances
from training.image_tokens import ImageLanguageModel, as_tokens, build_model
from training.randomness import SampleKeys
from training.recipe import prepared_by
from training.recipes import image_gpt
from training.recipes.image_gpt import Settings as ImageGptSettings
from training.text import Tokens, load_tokenizer
from training.vocabulary import END, train_bpe

PARAMS = ("temperature", "top_k", "top_p", "guidance", "candidates", "samples", "answer_seed")
"""Settings that a request may set for itself."""
MOST_CANDIDATES = 4096


class Settings(ImageGptSettings):
    roles: ClassVar[dict[str, str]] = {
        "dvae": "required: the trained dvae whose codes are learned",
        "tokenizer": "a tokenizer of byte pairs to read captions with; without it, one is trained",
        "clip": "a trained clip that orders what is drawn, the best first",
        "judge": "a classifier that says in evaluations what the pictures show",
    }
    prepare_reads: ClassVar[dict[str, tuple[str, ...]]] = {
        **ImageGptSettings.prepare_reads,
        "tokenizer": ("tokenizer.json",),
    }
    reads: ClassVar[str] = "image-caption"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {**ImageGptSettings.presets["tiny"], "vocab_size": 280, "text_length": 24},
        "base": {**ImageGptSettings.presets["base"], "vocab_size": 16384, "text_length": 256},
    }

    @staticmethod
    def check_columns(contract: Any) -> None:
        image_and_caption(contract)

    vocab_size: int = prepared_by(1024, ge=260, le=1_000_000)
    """Entries of the vocabulary of byte pairs trained here; unused with `from.tokenizer`."""
    text_length: int = prepared_by(32, ge=4, le=1024)
    """Tokens of a caption, the two around it included; longer ones are cut in training and refused in a request."""
    text_weight: float = Field(0.125, ge=0, lt=1)
    """Weight of the caption's loss; the picture's has the rest."""
    drop_caption: float = Field(0.1, ge=0, lt=1)
    """Share of captions that are left out in training; guidance needs some."""
    guidance: float = Field(1.0, ge=0, le=20)
    """How often what the caption changes counts (classifier-free guidance); 1: as learned, 0: it is unheard."""
    candidates: int = Field(1, ge=1, le=4096)
    """Pictures drawn for an answer, of which `from.clip` keeps the best `samples`; unused without it."""


class Recipe(image_gpt.Recipe):
    settings: Settings
    name = "dalle"

    def captions(
        self, splits: Mapping[str, Any], contract: Any, folder: Path, say: Callable[[str], None]
    ) -> tuple[dict[str, Tokens], dict[str, Any]]:
        _, column = image_and_caption(contract)
        texts = {
            name: [normalised(text or "") for text in splits[name][column].to_pylist()] for name in image_gpt.SPLITS
        }
        if "tokenizer" in self.sources:
            tokenizer = load_tokenizer(self.sources["tokenizer"])
        else:
            say(f"training a tokenizer on {len(texts['train']):,} captions")
            tokenizer = train_bpe(texts["train"], self.settings.vocab_size)
        end = tokenizer.token_to_id(END)
        if end is None:
            raise WrongInput(
                f"from.tokenizer {self.sources['tokenizer']}: has no {END}; give one of byte pairs or unigrams"
            )
        tokenizer.save(str(folder / "tokenizer.json"))
        encoded, told = {}, {}
        for name, captions in texts.items():
            ids = [caption_ids(tokenizer, end, caption) for caption in captions]
            cut = [shortened(one, self.settings.text_length) for one in ids]
            encoded[name] = as_tokens(cut)
            told[name] = {
                "captions": len(ids),
                "cut": sum(len(short) < len(one) for short, one in zip(cut, ids, strict=True)),
                "empty": sum(not text for text in captions),
            }
            if shortening := told[name]["cut"]:
                say(f"{shortening:,} of {len(ids):,} {name} captions cut to {self.settings.text_length} tokens")
        layout = {"text_vocabulary": tokenizer.get_vocab_size(), "text_length": self.settings.text_length, "end": end}
        words = sorted({word for text in texts["train"] for word in words_of(text)})
        return encoded, {"layout": layout, "caption": column, "words": words, **told}

    def batch(self, split: str, index: np.ndarray, keys: SampleKeys) -> task.Batch:
        chance = keys.uniform("caption left out", np.ones_like(index))
        dropped = (chance < self.settings.drop_caption) & (split == "train")
        return self.layout.pack(self.files[split].tokens, index, self.codes[split][index], dropped)

    def build(self) -> ImageLanguageModel:
        return ImageLanguageModel(build_model(self.layout, self.settings), self.layout, self.settings.text_weight)

    def save(self, trained: Any, folder: Path) -> task.ModelFiles:
        files = super().save(trained, folder)
        (folder / "tokenizer.json").write_bytes((self.folder / "tokenizer.json").read_bytes())
        return files

    def params(self) -> tuple[str, ...]:
        return PARAMS

    def kept(self) -> dict[str, Any]:
        return {**super().kept(), "caption": self.report["caption"], "words": self.report["words"]}

    def example(self) -> tuple[tuple[str, ...], dict[str, Any]]:
        tokens, words = self.files["train"].tokens, load_tokenizer(self.folder)
        caption = words.decode(tokens.ids[: int(tokens.lengths[0])].tolist()) if len(tokens) else "a picture"
        return (self.report["caption"],), {self.report["caption"]: caption.strip() or "a picture"}


class Painter(image_gpt.Completer):
    """Draws what captions say. Beside a `Completer`'s answers: `unseen_words`, those of the caption that no caption of
    the training split holds, where there are any."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.tokenizer, self.known_words = load_tokenizer(folder), set(self.facts["words"])
        self.caption = self.facts["caption"]
        self.clip = image_gpt.companion(folder / "clip")

    def __call__(self, rows: list[dict[str, Any]], **params: Any) -> list[dict[str, Any]]:
        """params: of PARAMS, in place of the settings."""
        asked = self.asked(params)
        if not 1 <= asked["candidates"] <= MOST_CANDIDATES:
            raise WrongInput(f"candidates: {asked['candidates']}; give 1 to {MOST_CANDIDATES:,}")
        if not 0 <= asked["guidance"] <= 20:
            raise WrongInput(f"guidance: {asked['guidance']}; give 0 to 20")
        captions = [str(row[self.caption] or "") for row in rows]
        count = max(asked["candidates"], asked["samples"]) if self.clip else asked["samples"]
        every = [caption for caption in captions for _ in range(count)]
        names = [f"{normalised(caption)}/{number}" for caption in captions for number in range(count)]
        pictures, codes, shares = self.draw(self.read(every), names, asked)
        answers = []
        for number, caption in enumerate(captions):
            own = np.arange(number * count, (number + 1) * count)
            kept = own[self.best_first(caption, pictures[own])[: asked["samples"]]]
            unseen = self.unseen(caption)
            more: dict[str, Any] = {"unseen_words": unseen} if unseen else {}
            answers.append(image_gpt.answer(pictures[kept], codes[kept], shares[kept], **more))
        return answers

    def draw(
        self, texts: Sequence[np.ndarray], names: Sequence[str], asked: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A picture for each caption, given as token ids: (N, H, W, C), its codes and the model's shares of them.
        names: decide what is drawn."""
        codes, shares = self.drawer.draw(
            texts,
            chances(asked["answer_seed"], names, self.layout.image_tokens),
            image_gpt.sampling_of(asked),
            guidance=asked["guidance"],
        )
        return self.decode(codes), codes, shares

    def tokens(self, captions: Sequence[str]) -> list[np.ndarray]:
        return [
            shortened(caption_ids(self.tokenizer, self.layout.end, normalised(caption)), self.layout.text_length)
            for caption in captions
        ]

    def read(self, captions: Sequence[str]) -> list[np.ndarray]:
        """Token ids of captions. Raises WrongInput for an empty one, and one that is too long."""
        return [self._read(caption) for caption in captions]

    def _read(self, caption: str) -> np.ndarray:
        said = f"input {caption[:40]!r}{'…' if len(caption) > 40 else ''}"
        if not words_of(caption):
            raise WrongInput(f"{said}: holds no word; say what to draw")
        ids = caption_ids(self.tokenizer, self.layout.end, normalised(caption))
        if len(ids) > self.layout.text_length:
            raise WrongInput(
                f"{said}: is {len(ids) - 2} tokens long, the model reads {self.layout.text_length - 2}; shorten it"
            )
        return ids

    def unseen(self, caption: str) -> list[str]:
        return [word for word in dict.fromkeys(words_of(caption)) if word not in self.known_words]

    def best_first(self, caption: str, pictures: np.ndarray) -> np.ndarray:
        """The order in which clip finds that the pictures fit; without it, as they are."""
        if self.clip is None:
            return np.arange(len(pictures))
        fits = self.clip.embed_images(list(pictures)) @ self.clip.embed_texts([caption])[0]
        return np.argsort(-fits, kind="stable")


def load_predictor(folder: Path) -> Painter:
    return Painter(folder)


def normalised(caption: str) -> str:
    """As captions are read: in lower case (§2.2), composed, without spaces around."""
    return unicodedata.normalize("NFC", caption).lower().strip()


def words_of(caption: str) -> list[str]:
    return re.findall(r"\w+", normalised(caption))


def caption_ids(tokenizer: Any, end: int, caption: str) -> np.ndarray:
    """END, the tokens of a normalised caption, END."""
    return np.array([end, *tokenizer.encode(caption, add_special_tokens=False).ids, end], np.int32)


def shortened(ids: np.ndarray, length: int) -> np.ndarray:
    """At most so many of a caption's tokens, its END among them."""
    return ids if len(ids) <= length else np.append(ids[: length - 1], ids[-1])
