"""Masked language modelling: a BERT pretrained from scratch, or continued on new text.

Paper: Devlin et al., "BERT", NAACL 2019, §3.1 (task 1) and appendix A.1: 15 % of the tokens are predicted; of these
80 % are masked, 10 % replaced, 10 % left.
How ours differs: no next-sentence task; texts are packed without padding; masks are drawn anew each epoch from
(seed, epoch, sample), as in RoBERTa (Liu et al. 2019, §4.1); each token is chosen by itself, not exactly 15 % a text.
Command: slipway train library-docs-mlm
Hardware and time: the experiment's header says what was measured.
Expected: held-out loss below the unigram entropy of the same tokens, which is printed beside it.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional

from infra.errors import WrongInput
from training import task
from training.encoders import fresh_bert, load_pretrained, save_pretrained
from training.randomness import SampleKeys
from training.recipe import EncoderSettings
from training.text import (
    TokenFile,
    Tokens,
    encode_packed,
    load_tokenizer,
    mask_id,
    pack,
    read_json,
    settle_tokenizer,
    special_ids,
    text_rows,
    tokenize,
    write_json,
    write_tokens,
)

SPLITS = ("train", "validation", "test")


class Settings(EncoderSettings):
    roles: ClassVar[dict[str, str]] = {
        "base": "weights and tokenizer to continue from; without it, from scratch",
        "tokenizer": "from scratch: a WordPiece tokenizer to read with; without it, one is trained",
    }
    prepare_reads: ClassVar[dict[str, tuple[str, ...]]] = {
        "base": ("tokenizer.json",),
        "tokenizer": ("tokenizer.json",),
    }
    masking_rate: float = Field(0.15, gt=0, le=0.9)
    """Share of the tokens that are predicted."""


class MaskedLanguageModel(task.Task):
    model: Any  # a transformers model: its attributes are its own

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, batch: task.Batch, phase: str = "all") -> dict[str, torch.Tensor]:
        return self.losses(self.states(batch)[1], batch)

    def states(self, batch: task.Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The last hidden states (tokens, D), and the logits (chosen, V): the other tokens' are never computed."""
        hidden = encode_packed(self.model.bert, batch)
        return hidden, self.model.cls(hidden[batch["chosen"]]).float()

    def losses(self, logits: torch.Tensor, batch: task.Batch) -> dict[str, torch.Tensor]:
        return {"mlm_loss": functional.cross_entropy(logits, batch["targets"], reduction="sum")}

    def counts(self, batch: task.Batch) -> dict[str, float]:
        return {"mlm_loss": len(batch["targets"])}

    def initial_losses(self) -> dict[str, float]:
        return {"mlm_loss": math.log(self.model.config.vocab_size)}  # no token likelier than another

    def shards(self) -> list[torch.nn.Module]:
        return list(self.model.bert.encoder.layer)


class Recipe(task.Recipe):
    settings: Settings

    def prepare(self, splits: Mapping[str, Any], contract: Any, folder: Path, say: Callable[[str], None]) -> None:
        rows = {name: text_rows(splits[name], contract.inputs) for name in SPLITS}
        if {"base", "tokenizer"} <= self.sources.keys():
            raise WrongInput("from.tokenizer: the base brings its own; leave one of the two out")
        given = self.sources.get("base") or self.sources.get("tokenizer")
        tokenizer = settle_tokenizer(given, rows["train"], self.settings.vocab_size, say)
        mask_id(tokenizer)  # one without is refused before it is used
        tokenizer.save(str(folder / "tokenizer.json"))
        report: dict[str, Any] = {"vocabulary": tokenizer.get_vocab_size()}
        for name in SPLITS:
            say(f"tokenising {name}")
            tokens = tokenize(tokenizer, rows[name], self.settings.max_length)
            write_tokens(folder / f"{name}.arrow", tokens, {"row_id": splits[name]["row_id"]})
            report[name] = {"texts": len(tokens), "tokens": len(tokens.ids), "truncated": tokens.truncated}
        report["unigram_entropy"] = unigram_entropy(tokenizer, folder)
        write_json(folder / "report.json", report)

    def open(self, folder: Path) -> None:
        self.folder = folder
        self.files = {name: TokenFile.open(folder / f"{name}.arrow") for name in SPLITS}
        tokenizer = load_tokenizer(folder)
        self.mask_id, self.is_special = mask_id(tokenizer), special_ids(tokenizer)
        self.ordinary_ids = np.flatnonzero(~self.is_special)

    def num_samples(self, split: str) -> int:
        return len(self.files[split])

    def num_tokens(self, split: str) -> int:
        return int(self.files[split].tokens.lengths.sum())

    def row_ids(self, split: str, index: np.ndarray) -> list[str]:
        return self.files[split].row_ids(index)

    def batch(self, split: str, index: np.ndarray, keys: SampleKeys) -> task.Batch:
        tokens: Tokens = self.files[split].tokens
        batch = pack(tokens, index)
        ids = batch["input_ids"][0].numpy()  # (tokens,)
        lengths = tokens.lengths[index]
        chosen = (keys.uniform("choose", lengths) < self.settings.masking_rate) & ~self.is_special[ids]
        how = keys.uniform("how", lengths)
        random_ids = self.ordinary_ids[(keys.uniform("replace", lengths) * len(self.ordinary_ids)).astype(np.int64)]
        seen = np.where(how < 0.8, self.mask_id, np.where(how < 0.9, random_ids, ids))
        batch["targets"] = torch.from_numpy(ids[chosen])
        batch["chosen"] = torch.from_numpy(np.flatnonzero(chosen))
        batch["input_ids"] = torch.from_numpy(np.where(chosen, seen, ids))[None]
        return batch

    def build(self) -> MaskedLanguageModel:
        from transformers import AutoModelForMaskedLM, BertForMaskedLM

        if "base" in self.sources:
            model = load_pretrained(AutoModelForMaskedLM, self.sources["base"])
            if not hasattr(model, "bert"):
                raise WrongInput(f"from.base {self.sources['base']}: holds a {type(model).__name__}, not a BERT")
        else:
            vocabulary = read_json(self.folder / "report.json")["vocabulary"]
            model = fresh_bert(BertForMaskedLM, self.settings, vocabulary)
        return MaskedLanguageModel(model)

    def save(self, trained: Any, folder: Path) -> task.ModelFiles:
        save_pretrained(trained.model, self.folder, folder)
        write_json(folder / "recipe.json", {"recipe": "bert_mlm", "settings": self.settings.model_dump(mode="json")})
        example = "this function returns the [MASK] of the array"
        return task.ModelFiles(
            loader="training.recipes.bert_mlm:load_predictor",
            input_columns=("text",),
            input_example=({"text": example},),
        )


class FillMask(task.Predictor):
    """Names the likeliest tokens for the first mask of each text."""

    def __init__(self, folder: Path):
        from transformers import AutoModelForMaskedLM

        self.tokenizer = load_tokenizer(folder)
        self.mask_id = mask_id(self.tokenizer)
        self.max_length = read_json(folder / "recipe.json")["settings"]["max_length"]
        self.model = load_pretrained(AutoModelForMaskedLM, folder).eval()

    @torch.inference_mode()
    def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        answers = []
        for row in rows:
            tokens = tokenize(self.tokenizer, [str(row["text"])], self.max_length)
            self.truncated += tokens.truncated
            where = np.flatnonzero(tokens.ids == self.mask_id)
            if not len(where):
                raise WrongInput(f"input {row['text']!r}: holds no [MASK] within {self.max_length} tokens; add one")
            hidden = encode_packed(self.model.bert, pack(tokens, np.array([0])))
            shares = self.model.cls(hidden[where[:1]])[0].softmax(-1)
            top = shares.topk(5)
            scores = {
                self.tokenizer.id_to_token(int(token)): float(share)
                for share, token in zip(top.values, top.indices, strict=True)
            }
            answers.append({"label": next(iter(scores)), "confidence": max(scores.values()), "scores": scores})
        return answers


def load_predictor(folder: Path) -> FillMask:
    return FillMask(folder)


def unigram_entropy(tokenizer: Any, folder: Path) -> dict[str, float]:
    """Entropy in nats of the held-out ordinary tokens: what a model that knows only frequencies can reach at best."""
    special = np.flatnonzero(special_ids(tokenizer))
    entropy = {}
    for name in ("validation", "test"):
        ids = TokenFile.open(folder / f"{name}.arrow").tokens.ids
        _, counts = np.unique(ids[~np.isin(ids, special)], return_counts=True)
        shares = counts / max(counts.sum(), 1)
        entropy[name] = float(-(shares * np.log(shares)).sum())
    return entropy
