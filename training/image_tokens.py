"""A picture as tokens behind its caption's: the sequence, the network that foretells it and its two losses.

    END  caption ...  END  code 0  code 1  ...  code N - 1        (row by row; the last is foretold and never read)

Ramesh et al., "Zero-shot text-to-image generation", ICML 2021, §2.2-2.3. Text and codes share one table, codes behind
the text's tokens, but each part is foretold among its own kind alone. A code's position does not depend on how long the
caption is: texts end at position `text_length` - 1. Without captions the sequence begins with its second END.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from infra.errors import WrongInput
from training import task
from training.attention import Boundaries, use_packed_attention
from training.codebook import Codebook
from training.encoders import load_pretrained, save_weights
from training.text import Tokens, by_length, encode_packed

TOKENS_AT_ONCE = 16384
"""Of a forward pass when pictures are judged."""


@dataclass(frozen=True)
class Layout:
    """The sizes of a sequence."""

    text_vocabulary: int
    text_length: int
    """Positions of a caption, both its ENDs included; 1: there are no captions, only the END before the codes."""
    codes: int
    """Entries of the codebook."""
    grid: int
    """Codes in a row, and rows."""
    end: int = 0
    """END's number among the text's tokens."""

    @property
    def no_caption(self) -> np.ndarray:
        """The tokens before a picture of which nothing is said."""
        return np.full(min(2, self.text_length), self.end, np.int32)

    @property
    def captioned(self) -> bool:
        return self.text_length > 1

    @property
    def image_tokens(self) -> int:
        return self.grid**2

    @property
    def positions(self) -> int:
        return self.text_length + self.image_tokens - 1

    def image_ids(self, codes: np.ndarray) -> np.ndarray:
        return codes + self.text_vocabulary

    def text_positions(self, length: int) -> np.ndarray:
        """(length,) of a caption of so many tokens: its END stands where every caption's does."""
        return np.append(np.arange(length - 1), self.text_length - 1)

    def pack(
        self, texts: Tokens, index: np.ndarray, codes: np.ndarray, dropped: np.ndarray | None = None
    ) -> task.Batch:
        """Sequences end to end. index (N,): the caption of each; codes (N, image_tokens); dropped (N,) bool: captions
        that are left out, and not foretold."""
        hidden = np.zeros(len(index), bool) if dropped is None else dropped
        text_lengths = np.where(hidden, 2, texts.lengths[index])
        lengths = text_lengths + self.image_tokens - 1
        starts = np.cumsum(lengths) - lengths
        owner = np.repeat(np.arange(len(index)), text_lengths)
        within = np.arange(int(text_lengths.sum())) - np.repeat(np.cumsum(text_lengths) - text_lengths, text_lengths)
        last = within == text_lengths[owner] - 1
        place = starts[owner] + within
        image_at = (starts + text_lengths - 1)[:, None] + np.arange(self.image_tokens)  # each foretells its code
        ids, positions = (np.empty(int(lengths.sum()), np.int64) for _ in range(2))
        read = texts.ids[texts.offsets[:-1][index][owner] + np.where(hidden[owner], 0, within)]  # 0: its first END
        ids[place], positions[place] = read, np.where(last, self.text_length - 1, within)
        ids[image_at[:, 1:]] = self.image_ids(codes[:, :-1])
        positions[image_at[:, 1:]] = self.text_length + np.arange(self.image_tokens - 1)
        foretells = ~last & ~hidden[owner]
        follows = np.append(read[1:], self.end)
        boundaries = Boundaries.of(torch.from_numpy(lengths))
        return {
            "input_ids": torch.from_numpy(ids)[None],
            "lengths": torch.from_numpy(lengths),
            "boundaries": replace(boundaries, position_ids=torch.from_numpy(positions)[None]),
            "text_at": torch.from_numpy(place[foretells]),
            "text_targets": torch.from_numpy(follows[foretells].astype(np.int64)),
            "image_at": torch.from_numpy(image_at.reshape(-1)),
            "image_targets": torch.from_numpy(codes.reshape(-1).astype(np.int64)),
        }


def build_model(layout: Layout, settings: Any) -> Any:
    """A GPT-2 with random weights that reads such sequences. settings: hidden_size, num_layers, num_heads, dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=layout.text_vocabulary + layout.codes,
        n_positions=layout.positions,
        n_embd=settings.hidden_size,
        n_layer=settings.num_layers,
        n_head=settings.num_heads,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=settings.dropout,
        embd_pdrop=settings.dropout,
        attn_pdrop=settings.dropout,
        bos_token_id=layout.end,
        eos_token_id=layout.end,
    )
    model: Any = GPT2LMHeadModel(config)
    use_packed_attention(model)
    return model


class ImageLanguageModel(task.Task):
    """`loss`: nats a code; `text_loss`: nats a token of the caption, where there are captions."""

    model: Any  # a transformers model: its attributes are its own

    def __init__(self, model: Any, layout: Layout, text_weight: float = 0.0):
        super().__init__()
        self.model, self.layout, self.text_weight = model, layout, text_weight

    def logits(self, batch: task.Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the codes (images x image_tokens, codes), and of the captions' tokens (tokens, text_vocabulary)."""
        states = encode_packed(self.model.transformer, batch)  # (tokens, D)
        text, image = self.model.lm_head.weight.split([self.layout.text_vocabulary, self.layout.codes])
        return functional.linear(states[batch["image_at"]], image), functional.linear(states[batch["text_at"]], text)

    def forward(self, batch: task.Batch, phase: str = "all") -> dict[str, torch.Tensor]:
        image, text = self.logits(batch)
        losses = {"loss": functional.cross_entropy(image.float(), batch["image_targets"], reduction="sum")}
        if self.layout.captioned:
            losses["text_loss"] = functional.cross_entropy(text.float(), batch["text_targets"], reduction="sum")
        return losses

    def counts(self, batch: task.Batch) -> dict[str, float]:
        counts = {"loss": float(len(batch["image_targets"]))}
        return {**counts, "text_loss": float(len(batch["text_targets"]))} if self.layout.captioned else counts

    def loss_weight(self, name: str) -> float:
        return self.text_weight if name == "text_loss" else 1 - self.text_weight

    def initial_losses(self) -> dict[str, float]:
        known = {"loss": math.log(self.layout.codes)}  # no code likelier than another
        return {**known, "text_loss": math.log(self.layout.text_vocabulary)} if self.layout.captioned else known

    def shards(self) -> list[torch.nn.Module]:
        return list(self.model.transformer.h)

    @torch.inference_mode()
    def surprisals(self, texts: Tokens, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What each picture's codes cost, (N, image_tokens) nats, and each caption's tokens together, (N,).

        texts: N captions, or one for all; codes: (N, image_tokens)."""
        index = np.arange(len(codes)) if len(texts) == len(codes) else np.zeros(len(codes), np.int64)
        image, text = np.empty(codes.shape), np.zeros(len(codes))
        for part in by_length(texts.lengths[index] + self.layout.image_tokens, TOKENS_AT_ONCE):
            batch = task.to_device(self.layout.pack(texts, index[part], codes[part]), self.model.device)
            logits, text_logits = self.logits(batch)
            cost = functional.cross_entropy(logits.double(), batch["image_targets"], reduction="none")
            image[part] = cost.view(len(part), -1).cpu().numpy()
            told = functional.cross_entropy(text_logits.double(), batch["text_targets"], reduction="none")
            owner = np.repeat(part, texts.lengths[index[part]] - 1)
            np.add.at(text, owner, told.cpu().numpy())
        return image, text


def encode_pictures(codebook: Codebook, pixels: np.ndarray, at_once: int = 512) -> np.ndarray:
    """(N, H, W, C) uint8 -> (N, grid x grid) int64, row by row."""
    parts = [codebook.encode(pixels[begin : begin + at_once]) for begin in range(0, len(pixels), at_once)]
    return np.concatenate([np.empty((0, codebook.grid**2), np.int64), *(one.reshape(len(one), -1) for one in parts)])


def save_model(model: Any, layout: Layout, codebook_folder: Path, folder: Path) -> Mapping[str, Any]:
    """Weights and configuration in transformers' own layout, and the codebook beside them: without it, codes are no
    picture. Returns what `recipe.json` keeps of both."""
    save_weights(model, folder)
    copy_model(codebook_folder, folder / "dvae")
    return {"layout": asdict(layout), "codebook": Codebook.load(codebook_folder).digest}


def copy_model(source: Path, target: Path) -> None:
    """A model's files, without what the store keeps beside them."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("manifest.json"))


def load_model(folder: Path, facts: Mapping[str, Any]) -> tuple[ImageLanguageModel, Codebook]:
    """What `save_model` wrote. Raises WrongInput where the codebook is another one."""
    from transformers import AutoModelForCausalLM

    codebook = Codebook.load(folder / "dvae")
    refuse_other_codebook(f"model folder {folder}", codebook.digest, facts["codebook"])
    model = load_pretrained(AutoModelForCausalLM, folder).eval()
    return ImageLanguageModel(model, Layout(**facts["layout"])).eval(), codebook


def refuse_other_codebook(where: str, found: str, wanted: str) -> None:
    """Raises WrongInput with both digests where two are not the same."""
    if found != wanted:
        raise WrongInput(
            f"{where}: its codebook is {found[:12]}, the codes were made with {wanted[:12]}: the same numbers are "
            "other pictures there; give the dvae of that digest, or prepare and train again with this one"
        )


def as_tokens(texts: Sequence[np.ndarray]) -> Tokens:
    """Token ids of each text, end to end."""
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in texts], dtype=np.int64)])
    return Tokens(np.concatenate([np.empty(0, np.int32), *texts]).astype(np.int32), offsets)
