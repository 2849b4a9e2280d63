"""Causal language modelling: a GPT-2 from random weights, on characters or byte pairs; it goes on from a prompt.

Paper: Radford et al., "Language models are unsupervised multitask learners", 2019, §2; weights, configuration and
initialisation are transformers' GPT2LMHeadModel's, so what is saved opens there.
How ours differs: texts are read in pieces of at most `block_size` tokens, packed without padding; a long text's pieces
begin at other places each epoch, drawn from (seed, epoch, sample); GELU by its fused kernel.
Command: slipway train tinyshakespeare
Hardware and time: the experiment's header says what was measured.
Expected: 1.88 nats a character on the end of tinyshakespeare (nanoGPT's README: 4 layers, width 128, 2,000 steps).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch.nn import functional

from infra.errors import WrongInput
from training import task
from training.attention import Boundaries, use_packed_attention
from training.columns import one_text
from training.encoders import load_pretrained, save_pretrained
from training.generation import Sampling, go_on
from training.randomness import SampleKeys, stream_seed
from training.recipe import RecipeSettings, check_heads, prepared_by
from training.text import (
    TokenFile,
    Tokens,
    by_length,
    encode_packed,
    load_tokenizer,
    read_json,
    write_json,
    write_tokens,
)
from training.vocabulary import END, UNKNOWN, train_bpe, train_characters

SPLITS = ("train", "validation", "test")
PARAMS = ("new_tokens", "temperature", "top_k", "top_p", "answer_seed")
"""Settings that a request may set for itself."""
MOST_NEW_TOKENS = 8192
TOKENS_AT_ONCE = 8192
"""Of a forward pass when texts are judged."""
TRIED_CHARACTERS = 10_000
"""Of the training split, by which a tokenizer shows that it gives texts back."""


class Settings(RecipeSettings):
    roles: ClassVar[dict[str, str]] = {
        "base": "weights and tokenizer of a GPT-2 to go on from; without it, random weights",
        "tokenizer": "from random weights: a tokenizer to read with; without it, one is trained",
    }
    prepare_reads: ClassVar[dict[str, tuple[str, ...]]] = {
        "base": ("tokenizer.json",),
        "tokenizer": ("tokenizer.json",),
    }
    evaluates: ClassVar[str] = "language_modelling"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {"tokens": "characters", "block_size": 24, "hidden_size": 32, "num_layers": 2, "new_tokens": 30}
    }

    @staticmethod
    def check_columns(contract: Any) -> None:
        one_text(contract)

    tokens: Literal["bpe", "characters"] = prepared_by("bpe")
    """What a token is where the tokenizer is trained here; unused with one that is given, as is the next."""
    vocab_size: int = prepared_by(4096, ge=260, le=1_000_000)
    """Entries of a vocabulary of byte pairs."""
    block_size: int = Field(128, ge=8, le=8192)
    """Tokens that the model sees at once."""
    hidden_size: int = Field(128, ge=8, le=8192)
    """Width of the model; unused with `from.base`, as are the next three."""
    num_layers: int = Field(4, ge=1, le=96)
    num_heads: int = Field(4, ge=1, le=128)
    dropout: float = Field(0.0, ge=0, lt=1)
    """On embeddings, attention and the outputs of both halves of a layer."""
    new_tokens: int = Field(100, ge=1, le=8192)
    """How far an answer goes on."""
    temperature: float = Field(0.8, ge=0, le=10)
    """Of an answer: below 1 likelier tokens are favoured, 0 always takes the likeliest."""
    top_k: int = Field(0, ge=0)
    """Only the k likeliest tokens are drawn from; 0: all."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Only the likeliest tokens that together have this probability are drawn from."""
    answer_seed: int = Field(0, ge=0, lt=2**31)
    """The same prompt has the same answer; another seed gives another one."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        check_heads(self.hidden_size, self.num_heads)
        return self


class LanguageModel(task.Task):
    model: Any  # a transformers model: its attributes are its own

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, batch: task.Batch, phase: str = "all") -> dict[str, torch.Tensor]:
        logits = self.model.lm_head(encode_packed(self.model.transformer, batch))  # (tokens, V)
        return {"loss": functional.cross_entropy(logits.float(), batch["targets"], reduction="sum")}

    def counts(self, batch: task.Batch) -> dict[str, float]:
        return {"loss": len(batch["targets"])}

    def initial_losses(self) -> dict[str, float]:
        return {"loss": math.log(self.model.config.vocab_size)}  # no token likelier than another

    def shards(self) -> list[torch.nn.Module]:
        return list(self.model.transformer.h)


class Recipe(task.Recipe):
    settings: Settings

    def prepare(self, splits: Mapping[str, Any], contract: Any, folder: Path, say: Callable[[str], None]) -> None:
        column = one_text(contract)
        texts = {name: [text or "" for text in splits[name][column].to_pylist()] for name in SPLITS}
        tokenizer = self.tokenizer(texts["train"], say)
        tokenizer.save(str(folder / "tokenizer.json"))
        report: dict[str, Any] = {"vocabulary": tokenizer.get_vocab_size(), "input": column}
        for name in SPLITS:
            say(f"tokenising {name}")
            encoded = [ids for ids, _ in encode(tokenizer, texts[name])]
            ids = np.concatenate([np.empty(0, np.int32), *encoded]).astype(np.int32)
            offsets = np.concatenate([[0], np.cumsum([len(one) for one in encoded], dtype=np.int64)])
            write_tokens(folder / f"{name}.arrow", Tokens(ids, offsets), {"row_id": splits[name]["row_id"]})
            unknown = (
                int((ids == tokenizer.token_to_id(UNKNOWN)).sum()) if tokenizer.token_to_id(UNKNOWN) is not None else 0
            )
            report[name] = {"texts": len(encoded), "tokens": len(ids), "unknown": unknown}
        if not any(len(text) > 1 for text in texts["train"]):
            raise WrongInput(
                f"dataset {contract.name}: no training text in '{column}' has two characters to learn from"
            )
        write_json(folder / "report.json", report)

    def tokenizer(self, texts: Sequence[str], say: Callable[[str], None]) -> Any:
        """The given tokenizer, once it has shown that it gives texts back, or one trained here."""
        given = [role for role in ("base", "tokenizer") if role in self.sources]
        if len(given) == 2:
            raise WrongInput("from.tokenizer: the base brings its own; leave one of the two out")
        if not given:
            say(f"training a tokenizer ({self.settings.tokens}) on {len(texts):,} texts")
            if self.settings.tokens == "characters":
                return train_characters(texts)
            return train_bpe(texts, self.settings.vocab_size)
        where = f"from.{given[0]} {self.sources[given[0]]}"
        tokenizer = load_tokenizer(self.sources[given[0]])
        tried = "".join(texts)[:TRIED_CHARACTERS]
        back = tokenizer.decode(tokenizer.encode(tried, add_special_tokens=False).ids, skip_special_tokens=False)
        if back != tried:
            place = next(
                (at for at, pair in enumerate(zip(tried, back, strict=False)) if pair[0] != pair[1]), len(back)
            )
            raise WrongInput(
                f"{where}: its tokenizer does not give texts back: {tried[place : place + 20]!r} "
                f"became {back[place : place + 20]!r}; a model that writes needs byte pairs, unigrams or characters"
            )
        return tokenizer

    def open(self, folder: Path) -> None:
        self.folder = folder
        self.report = read_json(folder / "report.json")
        self.files = {name: TokenFile.open(folder / f"{name}.arrow") for name in SPLITS}
        self.pieces = {name: Pieces(self.files[name].tokens, self.settings.block_size) for name in SPLITS}

    def num_samples(self, split: str) -> int:
        return len(self.pieces[split].text)

    def num_tokens(self, split: str) -> int:
        return int(self.pieces[split].lengths.sum())

    def row_ids(self, split: str, index: np.ndarray) -> list[str]:
        return self.files[split].row_ids(self.pieces[split].text[index])

    def batch(self, split: str, index: np.ndarray, keys: SampleKeys) -> task.Batch:
        chance = keys.uniform("where a piece begins", np.ones_like(index)) if split == "train" else None
        return self.pieces[split].batch(index, chance)

    def build(self) -> LanguageModel:
        from transformers import GPT2Config, GPT2LMHeadModel

        if "base" in self.sources:
            return LanguageModel(self.given(self.sources["base"]))
        settings = self.settings
        end = load_tokenizer(self.folder).token_to_id(END)
        config = GPT2Config(
            vocab_size=self.report["vocabulary"],
            n_positions=settings.block_size,
            n_embd=settings.hidden_size,
            n_layer=settings.num_layers,
            n_head=settings.num_heads,
            activation_function="gelu_pytorch_tanh",  # GPT-2's gelu_new in one kernel
            resid_pdrop=settings.dropout,
            embd_pdrop=settings.dropout,
            attn_pdrop=settings.dropout,
            bos_token_id=end,
            eos_token_id=end,
        )
        model: Any = GPT2LMHeadModel(config)
        use_packed_attention(model)
        return LanguageModel(model)

    def given(self, base: Path) -> Any:
        """The base's model. Raises WrongInput where it is no GPT-2, or has no room for the tokens or for a block."""
        from transformers import AutoModelForCausalLM, GPT2LMHeadModel

        model = load_pretrained(AutoModelForCausalLM, base)
        if not isinstance(model, GPT2LMHeadModel):
            raise WrongInput(f"from.base {base}: holds a {type(model).__name__}, not a GPT-2")
        entries, room = self.report["vocabulary"], model.config.vocab_size
        if entries > room:
            raise WrongInput(f"from.base {base}: its tokenizer has {entries} entries, its model {room}; "
                             "give a folder whose two fit")  # fmt: skip
        if self.settings.block_size > model.config.n_positions:
            raise WrongInput(f"settings.block_size: {self.settings.block_size} tokens, the base takes "
                             f"{model.config.n_positions} (n_positions); lower it")  # fmt: skip
        return model

    def save(self, trained: Any, folder: Path) -> task.ModelFiles:
        save_pretrained(trained.model, self.folder, folder)
        column, settings = self.report["input"], self.settings.model_dump(mode="json")
        write_json(folder / "recipe.json", {"recipe": "gpt", "settings": settings, "input": column})
        # Characters of the training split, whichever language it is in.
        ids = self.files["train"].tokens.ids[: self.settings.block_size // 2]
        example = load_tokenizer(self.folder).decode(ids.tolist())
        return task.ModelFiles(
            loader="training.recipes.gpt:load_predictor",
            input_columns=(column,),
            input_example=({column: example},),
            params={name: settings[name] for name in PARAMS},
        )


class Pieces:
    """What a model of that block size reads of texts: pieces of at most so many tokens, each with a token after it."""

    def __init__(self, tokens: Tokens, block_size: int):
        self.ids, self.block_size = tokens.ids, block_size
        foretold = np.maximum(tokens.lengths - 1, 0)  # a text's first token is not
        counts = -(-foretold // block_size)
        self.text = np.repeat(np.arange(len(tokens)), counts)
        """(pieces,) the text of each."""
        place = np.arange(len(self.text)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.lengths = np.minimum(block_size, foretold[self.text] - place * block_size)
        self.begins = tokens.offsets[:-1][self.text] + place * block_size
        self.long = foretold[self.text] > block_size
        self.last = tokens.offsets[:-1][self.text] + foretold[self.text] - block_size
        """(pieces,) where the last whole piece of a long text begins."""

    def batch(self, index: np.ndarray, chance: np.ndarray | None = None) -> task.Batch:
        """The pieces of index (N,), end to end. With chance (N,) in [0, 1), those of texts longer than a block begin
        later by that share of a block, and are whole."""
        begins, lengths = self.begins[index], self.lengths[index]
        if chance is not None:
            later = np.minimum(begins + (chance * self.block_size).astype(np.int64), self.last[index])
            begins = np.where(self.long[index], later, begins)
            lengths = np.where(self.long[index], self.block_size, lengths)
        flat = np.repeat(begins - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
        long = torch.from_numpy(lengths)
        return {
            "input_ids": torch.from_numpy(self.ids[flat].astype(np.int64))[None],
            "targets": torch.from_numpy(self.ids[flat + 1].astype(np.int64)),
            "lengths": long,
            "boundaries": Boundaries.of(long),
        }


class Writer(task.Predictor):
    """Goes on from a prompt. `confidence` is the geometric mean of what the model gave each token it wrote."""

    def __init__(self, folder: Path):
        from transformers import AutoModelForCausalLM

        facts = read_json(folder / "recipe.json")
        self.column, self.settings = facts["input"], facts["settings"]
        self.tokenizer = load_tokenizer(folder)
        self.end_id, self.unknown_id = (self.tokenizer.token_to_id(token) for token in (END, UNKNOWN))
        self.model = load_pretrained(AutoModelForCausalLM, folder).eval()
        self.vocabulary = self.tokenizer.get_vocab_size()
        self.longest_prompt = self.model.config.n_positions
        room = self.model.config.vocab_size
        if self.vocabulary > room:
            raise WrongInput(
                f"model folder {folder}: its tokenizer has {self.vocabulary} entries, its model {room}; they do not fit"
            )

    def __call__(self, rows: list[dict[str, Any]], **params: Any) -> list[dict[str, Any]]:
        """params: of PARAMS, in place of the settings."""
        settings = {**self.settings, **params}
        sampling = Sampling(**{name: settings[name] for name in ("temperature", "top_k", "top_p")})
        return [
            self.write(str(row[self.column]), settings["new_tokens"], sampling, settings["answer_seed"]) for row in rows
        ]

    def write(self, prompt: str, new_tokens: int, sampling: Sampling, seed: int = 0) -> dict[str, Any]:
        """The same prompt, settings and seed have the same answer, whatever is asked beside it. Raises WrongInput."""
        if not 1 <= new_tokens <= MOST_NEW_TOKENS:
            raise WrongInput(f"new_tokens: {new_tokens}; give 1 to {MOST_NEW_TOKENS:,}")
        ids = self.read(prompt)
        written, shares = go_on(
            self.model, ids, new_tokens, sampling, stream_seed(seed, "generation", prompt), self.end_id
        )
        confidence = float(np.exp(np.log(shares).mean())) if len(shares) else 0.0
        # Decoded with what was read before it: a character may be of several tokens, some of them the prompt's.
        whole = self.tokenizer.decode([*ids.tolist(), *written.tolist()])
        return {"label": whole[len(self.tokenizer.decode(ids.tolist())) :], "confidence": confidence}

    def read(self, prompt: str) -> np.ndarray:
        """A prompt's tokens (n,). Raises WrongInput for one that this model cannot go on from."""
        said = f"input {prompt[:40]!r}{'…' if len(prompt) > 40 else ''}"
        ids = encode(self.tokenizer, [prompt])[0][0]
        ids = ids[:-1] if self.end_id is not None else ids
        if not len(ids):
            raise WrongInput(f"{said}: is empty; give at least one character to go on from")
        if self.unknown_id is not None and (ids == self.unknown_id).any():
            known = self.tokenizer.get_vocab()
            strange = ", ".join(repr(one) for one in sorted(set(prompt) - known.keys())) or "something"
            raise WrongInput(f"{said}: holds {strange}, which its model never saw in training; leave that out")
        if len(ids) > self.longest_prompt:
            raise WrongInput(
                f"{said}: is {len(ids)} tokens long, its model sees {self.longest_prompt} at once; give the end of it"
            )
        return ids

    # What training.evaluations.language_modelling asks:

    def encode(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        return encode(self.tokenizer, texts)

    def answerable(self, prompt: str) -> bool:
        try:
            return bool(len(self.read(prompt)))
        except WrongInput:
            return False

    @torch.inference_mode()
    def surprisals(self, ids: Sequence[np.ndarray]) -> list[np.ndarray]:
        offsets = np.concatenate([[0], np.cumsum([len(one) for one in ids], dtype=np.int64)])
        pieces = Pieces(Tokens(np.concatenate([np.empty(0, np.int64), *ids]), offsets), self.longest_prompt)
        ends = np.cumsum(pieces.lengths)
        nats = np.empty(int(pieces.lengths.sum()))
        for index in by_length(pieces.lengths, TOKENS_AT_ONCE):
            batch = task.to_device(pieces.batch(index), self.model.device)
            logits = self.model.lm_head(encode_packed(self.model.transformer, batch)).double()
            cost = functional.cross_entropy(logits, batch["targets"], reduction="none").cpu().numpy()
            for piece, part in zip(index, np.split(cost, np.cumsum(pieces.lengths[index])[:-1]), strict=True):
                nats[ends[piece] - len(part) : ends[piece]] = part
        return np.split(nats, np.cumsum([max(len(one) - 1, 0) for one in ids])[:-1])


def load_predictor(folder: Path) -> Writer:
    return Writer(folder)


def encode(tokenizer: Any, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each text its tokens (n,) and the character at which each begins (n,); END around them where there is one."""
    end = tokenizer.token_to_id(END)
    found = []
    for text, one in zip(texts, tokenizer.encode_batch(list(texts), add_special_tokens=False), strict=True):
        ids, starts = list(one.ids), [begin for begin, _ in one.offsets]
        if end is not None:
            ids, starts = [end, *ids, end], [0, *starts, max(len(text) - 1, 0)]
        found.append((np.array(ids, np.int64), np.array(starts, np.int64)))
    return found
