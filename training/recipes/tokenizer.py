"""A tokenizer trained on a data set: WordPiece, byte pairs or unigrams, with a report of what it does to texts.

Paper: WordPiece: Schuster & Nakajima, ICASSP 2012, as in Devlin et al. 2019; byte pairs: Sennrich, Haddow & Birch, ACL
2016, on bytes as in Radford et al. 2019; unigrams: Kudo, ACL 2018. Trained by the library tokenizers.
How ours differs: the same texts give the same file, byte for byte (training.vocabulary and training.text say how).
Command: slipway train gutenberg-tokenizer; another experiment reads with it by `from: {tokenizer: gutenberg-tokenizer}`
Hardware and time: the experiment's header says what was measured.
Expected: none unknown by byte pairs; how many tokens a word takes is in the report, not yet measured on a shipped set.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from infra.errors import WrongInput
from training import fit
from training.recipe import RecipeSettings
from training.text import load_tokenizer, read_arrow, read_json, text_rows, train_wordpiece, write_arrow, write_json
from training.vocabulary import UNKNOWN, train_bpe, train_unigram

SPLITS = ("train", "validation")
TRAINERS = {"wordpiece": train_wordpiece, "bpe": train_bpe, "unigram": train_unigram}
SHOWN = 20
"""Longest and rarest pieces that the report names."""


class Settings(RecipeSettings):
    trains: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("tokenizers", "numpy")
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"vocab_size": 300}}

    model: Literal["wordpiece", "bpe", "unigram"] = "bpe"
    """wordpiece: for encoders such as BERT, lower-cases; bpe, unigram: for models that write, give texts back."""
    vocab_size: int = Field(8000, ge=100, le=1_000_000)
    """Entries; fewer where the texts do not hold so many pieces."""

    @model_validator(mode="after")
    def _bytes_have_room(self) -> Self:
        if self.model == "bpe" and self.vocab_size < 260:
            raise ValueError(
                f"vocab_size {self.vocab_size} has no room for the 256 bytes of model bpe; write 260 or more"
            )
        return self


class Recipe(fit.Recipe):
    settings: Settings

    def prepare(self, splits: Mapping[str, Any], contract: Any, folder: Path, say: Callable[[str], None]) -> None:
        for name in SPLITS:
            rows = text_rows(splits[name], contract.inputs)
            texts = [joined([row] if isinstance(row, str | None) else row) for row in rows]
            write_arrow(folder / f"{name}.arrow", {"row_id": splits[name]["row_id"], "text": texts})
        write_json(folder / "inputs.json", {"inputs": list(contract.inputs)})
        if not any(read_arrow(folder / "train.arrow")["text"].to_pylist()):
            raise WrongInput(f"dataset {contract.name}: every training text is empty; a tokenizer learns from texts")

    def open(self, folder: Path) -> None:
        self.tables = {name: read_arrow(folder / f"{name}.arrow") for name in SPLITS}
        self.inputs = read_json(folder / "inputs.json")["inputs"]

    def num_samples(self, split: str) -> int:
        return self.tables[split].num_rows if split in self.tables else 0

    def row_ids(self, split: str, index: np.ndarray) -> list[str]:
        return self.tables[split]["row_id"].take(index).to_pylist()

    def fit(self, folder: Path, seed: int, report: fit.Report) -> fit.ModelFiles:
        texts = {name: self.tables[name]["text"].to_pylist() for name in SPLITS}
        report(1, 3, note=f"{self.settings.model} of {len(texts['train']):,} texts")
        tokenizer = TRAINERS[self.settings.model](texts["train"], self.settings.vocab_size)
        tokenizer.save(str(folder / "tokenizer.json"))
        report(2, 3, note="what it does to texts")
        found = describe(tokenizer, texts)
        write_json(folder / "report.json", {"model": self.settings.model, **found})
        settings = self.settings.model_dump(mode="json")
        write_json(folder / "recipe.json", {"recipe": "tokenizer", "settings": settings, "inputs": self.inputs})
        metrics = {"vocabulary": float(found["vocabulary"])}
        for name in SPLITS:
            told = {key: value for key, value in found[name].items() if isinstance(value, float)}
            metrics |= {key if name == "train" else f"validation_{key}": value for key, value in told.items()}
        report(3, 3, metrics=metrics)
        return fit.ModelFiles(
            loader="training.recipes.tokenizer:load_predictor",
            input_columns=tuple(self.inputs),
            input_example=(dict.fromkeys(self.inputs, "what the tokenizer makes of this"),),
            outputs=(("label", "string"), ("tokens", "long")),
            libraries=("tokenizers",),
        )


class Cutter(fit.Predictor):
    """Answers a text with its pieces, a blank between them, and how many they are."""

    def __init__(self, folder: Path):
        self.tokenizer = load_tokenizer(folder)
        self.inputs = read_json(folder / "recipe.json")["inputs"]

    def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        encoded = self.tokenizer.encode_batch([joined([row[name] for name in self.inputs]) for row in rows])
        return [{"label": " ".join(one.tokens), "tokens": len(one.ids)} for one in encoded]


def load_predictor(folder: Path) -> Cutter:
    return Cutter(folder)


def joined(parts: Sequence[str | None]) -> str:
    """The inputs of one row as one text."""
    return " ".join(part for part in parts if part)


def describe(tokenizer: Any, texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What a tokenizer does to the texts of splits, its special tokens left out.

    vocabulary: entries. Of each split texts, words (between white space), tokens, fertility (tokens a word),
    characters_per_token and unknown_rate (share of the tokens). longest: its longest pieces. rarest: those that the
    split `train` uses least, with their counts, and unused how many it never uses.
    """
    unknown = [tokenizer.token_to_id(token) for token in ("[UNK]", UNKNOWN)]
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()} | {UNKNOWN}
    pieces = {token: number for token, number in tokenizer.get_vocab().items() if token not in special}
    found: dict[str, Any] = {"vocabulary": tokenizer.get_vocab_size()}
    used: Counter[int] = Counter()
    for name, part in texts.items():
        ids = [one.ids for one in tokenizer.encode_batch_fast(list(part), add_special_tokens=False)]
        counts = Counter(token for one in ids for token in one)
        words, tokens = sum(len(text.split()) for text in part), counts.total()
        found[name] = {
            "texts": len(part),
            "words": words,
            "tokens": tokens,
            "fertility": tokens / max(words, 1),
            "characters_per_token": sum(map(len, part)) / max(tokens, 1),
            "unknown_rate": sum(counts[token] for token in unknown if token is not None) / max(tokens, 1),
        }
        used = counts if name == "train" else used
    rarest = sorted(pieces, key=lambda token: (used[pieces[token]], token))
    found["longest"] = sorted(pieces, key=lambda token: (-len(token), token))[:SHOWN]
    found["rarest"] = [[token, used[pieces[token]]] for token in rarest if used[pieces[token]]][:SHOWN]
    found["unused"] = sum(not used[number] for number in pieces.values())
    return found
