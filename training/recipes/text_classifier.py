"""Text classification: an encoder, its tokens' mean, one linear layer; texts or pairs, two classes, many, or a scale.

Paper: Howard & Ruder, ACL 2018 (fine-tuning a pretrained body); Devlin et al., NAACL 2019, §4 (the encoder); mean
pooling as in Reimers & Gurevych, EMNLP 2019, §3.
How ours differs: the mean of all tokens by default instead of the first one's state; texts are packed without padding.
Command: slipway train library-docs            (from the weights of library-docs-mlm)
         slipway train library-docs --set base=FOLDER     (from a published encoder: safetensors + tokenizer.json)
Hardware and time: the experiment's header says what was measured.
Expected: on library-docs about what a tuned TF-IDF + logistic regression reaches; from a published encoder, more.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor
from torch.nn import functional

from infra.errors import WrongInput
from training import task
from training.encoders import build_encoder, load_pretrained, save_pretrained
from training.model import label_answers
from training.randomness import SampleKeys
from training.recipe import EncoderSettings, FewLabels, prepared_by
from training.temperature import fit_temperature
from training.text import (
    TokenFile,
    by_length,
    encode_packed,
    load_tokenizer,
    mask_id,
    mean_pool,
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
KEPT = ("train", "validation")
TOKENS_AT_ONCE = 8192
"""Of a forward pass when many rows are answered."""
MOST_FEATURES = 250_000_000
"""Numbers, samples x width, that are kept of a frozen encoder: 1 GB."""


class Settings(EncoderSettings, FewLabels):
    roles: ClassVar[dict[str, str]] = {"base": "the encoder's weights and tokenizer; without it, random weights"}
    evaluates: ClassVar[str] = "classification"
    pooling: Literal["mean", "first"] = "mean"
    """How a text's token states become one: their mean, or the first token's."""
    word_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the tokens hidden behind the mask token, anew each epoch, in training only (Iyyer et al., ACL 2015,
    §3.2: on short texts it stops a few words from deciding everything)."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each target spread evenly over all labels (Szegedy et al., CVPR 2016, §7)."""
    class_weight: Literal["none", "balanced"] = "none"
    """`balanced`: in the training loss every class counts alike, however rare."""
    ordinal: bool = prepared_by(False)
    """The labels are numbers on a scale, stars for instance: they are put in its order, and how far answers are off is
    measured too (`absolute_error`, in steps of the scale's own unit)."""
    calibrate: Literal["none", "temperature"] = "none"
    """`temperature`: after training one number is fitted to the validation split and packaged with the model, so that
    it is as sure as it is right (training.temperature)."""
    freeze_encoder: bool = False
    """Train the linear layer alone, on what the encoder makes of each text without dropout, computed once."""


class Classifier(task.Task):
    encoder: Any  # a transformers model: its attributes are its own
    head: torch.nn.Linear
    class_weights: torch.Tensor | None
    scale: torch.Tensor | None

    def __init__(
        self,
        encoder: Any,
        num_labels: int,
        pooling: str,
        dropout: float,
        label_smoothing: float = 0.0,
        *,
        class_weights: np.ndarray | None = None,
        scale: np.ndarray | None = None,
        frozen: bool = False,
    ):
        """class_weights: (labels,), in the training loss; None: all 1. scale: (labels,) the numbers that they are."""
        super().__init__()
        self.encoder, self.pooling, self.dropout = encoder, pooling, dropout
        self.label_smoothing, self.frozen = label_smoothing, frozen
        self.head = torch.nn.Linear(encoder.config.hidden_size, num_labels)
        self.register_buffer("class_weights", _tensor(class_weights), persistent=False)
        self.register_buffer("scale", _tensor(scale), persistent=False)

    def train(self, mode: bool = True) -> "Classifier":
        """A frozen encoder drops nothing out."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def logits(self, batch: task.Batch) -> torch.Tensor:
        if "features" in batch:
            return self.answers(batch["features"])
        return self.classify(encode_packed(self.encoder, batch), batch["lengths"])

    def classify(self, hidden: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """hidden: (tokens, D), the encoder's last states of a packed batch. Returns (N, labels)."""
        return self.answers(self.pool(hidden, lengths))

    def pool(self, hidden: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(tokens, D) -> (N, D)"""
        if self.pooling == "mean":
            return mean_pool(hidden, lengths)
        return hidden[torch.cumsum(lengths, 0) - lengths]

    def answers(self, pooled: torch.Tensor) -> torch.Tensor:
        """(N, D) -> (N, labels)"""
        return self.head(functional.dropout(pooled, self.dropout, self.training)).float()

    def forward(self, batch: task.Batch, phase: str = "all") -> dict[str, torch.Tensor]:
        return self.losses(self.logits(batch), batch)

    def losses(self, logits: torch.Tensor, batch: task.Batch) -> dict[str, torch.Tensor]:
        smoothing, labels = self.label_smoothing if self.training else 0.0, batch["labels"]
        weights = self.class_weights
        loss = functional.cross_entropy(logits, labels, weight=weights, reduction="sum", label_smoothing=smoothing)
        return {"loss": loss}

    def counts(self, batch: task.Batch) -> dict[str, float]:
        labels, weights = batch["labels"], self.class_weights
        return {"loss": len(labels) if weights is None else float(weights[labels].sum())}

    def measure(self, batch: task.Batch) -> dict[str, tuple[float, float]]:
        logits, labels = self.logits(batch), batch["labels"]
        answers = logits.argmax(-1)
        loss = float(functional.cross_entropy(logits, labels, reduction="sum"))
        found = {"loss": (loss, float(len(labels))), "accuracy": (float((answers == labels).sum()), float(len(labels)))}
        if self.head.out_features == 2:  # F1 of the second label: 2 hits over what is and what is said to be
            hits = float((answers * labels).sum())
            found["f1"] = (2 * hits, float(answers.sum() + labels.sum()))
        if self.scale is not None:
            off = (self.scale[answers] - self.scale[labels]).abs()
            found["absolute_error"] = (float(off.sum()), float(len(labels)))
        return found

    def initial_losses(self) -> dict[str, float]:
        return {"loss": math.log(self.head.out_features)}

    def shards(self) -> list[torch.nn.Module]:
        return list(self.encoder.encoder.layer)


class Recipe(task.Recipe):
    settings: Settings

    def prepare(self, splits: Mapping[str, Any], contract: Any, folder: Path, say: Callable[[str], None]) -> None:
        if contract.label is None:
            raise WrongInput(
                f"contract {contract.name}: names no slipway.label; text_classifier needs the label column"
            )
        rows = {name: text_rows(splits[name], contract.inputs) for name in SPLITS}
        found = {str(value) for value in splits["train"][contract.label].to_pylist()}
        labels = sorted(found, key=partial(_number, contract)) if self.settings.ordinal else sorted(found)
        if len(labels) < 2:
            raise WrongInput(f"dataset {contract.name}: column '{contract.label}' has {len(labels)} value; 2 needed")
        tokenizer = settle_tokenizer(self.sources.get("base"), rows["train"], self.settings.vocab_size, say)
        tokenizer.save(str(folder / "tokenizer.json"))
        number = {label: position for position, label in enumerate(labels)}
        report: dict[str, Any] = {
            "labels": labels,
            "inputs": list(contract.inputs),
            "vocabulary": tokenizer.get_vocab_size(),
        }
        for name in SPLITS:
            say(f"tokenising {name}")
            tokens = tokenize(tokenizer, rows[name], self.settings.max_length)
            values = splits[name][contract.label].to_pylist()
            known = np.array([number.get(str(value), -1) for value in values], np.int32)
            if tokens.truncated:
                say(f"{tokens.truncated:,} of {len(tokens):,} {name} texts cut to {self.settings.max_length} tokens")
            write_tokens(folder / f"{name}.arrow", tokens, {"row_id": splits[name]["row_id"], "label": known})
            report[name] = {
                "texts": len(tokens),
                "tokens": len(tokens.ids),
                "truncated": tokens.truncated,
                "unseen_labels": int((known < 0).sum()),
            }
        write_json(folder / "report.json", report)

    def open(self, folder: Path) -> None:
        self.folder = folder
        self.report = read_json(folder / "report.json")
        tokenizer = load_tokenizer(folder)
        self.mask_id, self.is_special = mask_id(tokenizer), special_ids(tokenizer)
        self.files, self.labels, self.rows = {}, {}, {}
        self.features: dict[str, torch.Tensor] = {}
        for name in SPLITS:
            self.files[name] = file = TokenFile.open(folder / f"{name}.arrow")
            self.labels[name] = file.columns["label"].to_numpy()
            # A label unseen in training has no output to be right with: evaluation counts it as wrong, the loss cannot.
            self.rows[name] = np.flatnonzero(self.labels[name] >= 0)

    def num_samples(self, split: str) -> int:
        return len(self.rows[split])

    def num_tokens(self, split: str) -> int:
        return int(self.files[split].tokens.lengths[self.rows[split]].sum())

    def row_ids(self, split: str, index: np.ndarray) -> list[str]:
        return self.files[split].row_ids(self.rows[split][index])

    def batch(self, split: str, index: np.ndarray, keys: SampleKeys) -> task.Batch:
        rows = self.rows[split][index]
        labels = torch.from_numpy(self.labels[split][rows].astype(np.int64))
        if split in self.features:
            return {"features": self.features[split][torch.from_numpy(index)], "labels": labels}
        batch: dict[str, Any] = {**pack(self.files[split].tokens, rows), "labels": labels}
        if split == "train" and self.settings.word_dropout:
            ids = batch["input_ids"][0].numpy()
            hidden = keys.uniform("word dropout", batch["lengths"].numpy()) < self.settings.word_dropout
            hidden &= ~self.is_special[ids]
            batch["input_ids"] = torch.from_numpy(np.where(hidden, self.mask_id, ids))[None]
        return batch

    @torch.no_grad()
    def refresh(self, task: Any, epoch: int) -> None:
        """What a frozen encoder makes of each text does not change: it is computed before the first epoch."""
        settings, width = self.settings, task.encoder.config.hidden_size
        samples = sum(self.num_samples(split) for split in KEPT)
        sharded = isinstance(next(task.parameters()), DTensor)  # its layers work inside the whole task's forward alone
        if not settings.freeze_encoder or settings.word_dropout or samples * width > MOST_FEATURES or sharded:
            return
        task.eval()
        for split in KEPT:
            if split not in self.features:
                found = torch.empty(self.num_samples(split), width)
                for index, batch in self._batches(split, task.head.weight.device):
                    states = task.pool(encode_packed(task.encoder, batch), batch["lengths"])
                    found[torch.from_numpy(index)] = states.float().cpu()
                self.features[split] = found

    def _batches(self, split: str, device: torch.device) -> Iterator[tuple[np.ndarray, task.Batch]]:
        """(samples, their batch) of a whole split, similar lengths together."""
        rows, tokens = self.rows[split], self.files[split].tokens
        for index in by_length(tokens.lengths[rows], TOKENS_AT_ONCE):
            yield index, task.to_device(pack(tokens, rows[index]), device)

    def build(self) -> Classifier:
        settings = self.settings
        if settings.calibrate != "none" and not self.num_samples("validation"):
            raise WrongInput("settings.calibrate: there is no validation split to fit it to; give the contract one")
        encoder = build_encoder(settings, self.sources.get("base"), self.report["vocabulary"])
        if settings.freeze_encoder:
            encoder.requires_grad_(False)
        labels, weights = self.report["labels"], None
        if settings.class_weight == "balanced":
            counts = np.bincount(self.labels["train"][self.rows["train"]], minlength=len(labels))
            weights = counts.sum() / (len(labels) * counts)
        return Classifier(
            encoder,
            len(labels),
            settings.pooling,
            settings.dropout,
            settings.label_smoothing,
            class_weights=weights,
            scale=np.array([float(label) for label in labels]) if settings.ordinal else None,
            frozen=settings.freeze_encoder,
        )

    def save(self, trained: Any, folder: Path) -> task.ModelFiles:
        save_pretrained(trained.encoder, self.folder, folder)
        head = {name: value.contiguous() for name, value in trained.head.state_dict().items()}
        save_file(head, folder / "head.safetensors")
        facts: dict[str, Any] = {"recipe": "text_classifier", "settings": self.settings.model_dump(mode="json")}
        if self.settings.calibrate == "temperature":
            facts["temperature"] = self.temperature(trained)
        write_json(folder / "recipe.json", {**facts, "labels": self.report["labels"], "inputs": self.report["inputs"]})
        inputs = tuple(self.report["inputs"])
        return task.ModelFiles(
            loader="training.recipes.text_classifier:load_predictor",
            input_columns=inputs,
            input_example=(dict.fromkeys(inputs, "fit a random forest to the training set"),),
        )

    @torch.inference_mode()
    def temperature(self, trained: Classifier) -> float:
        rows = self.rows["validation"]
        trained.eval()
        logits = np.empty((len(rows), trained.head.out_features))
        for index, batch in self._batches("validation", trained.head.weight.device):
            logits[index] = trained.logits(batch).double().cpu().numpy()
        return fit_temperature(logits, self.labels["validation"][rows])


class LabelPredictor(task.Predictor):
    """Label, its probability, and every label's, the likeliest first."""

    def __init__(self, folder: Path, load: Callable[[Path], Any] | None = None):
        """`load`: builds the encoder from the folder, where that is more than transformers' own weights."""
        from transformers import AutoModel

        facts = read_json(folder / "recipe.json")
        self.labels, self.inputs, self.settings = facts["labels"], facts["inputs"], facts["settings"]
        self.temperature, self.ordinal = facts.get("temperature", 1.0), self.settings.get("ordinal", False)
        self.tokenizer = load_tokenizer(folder)
        encoder = load(folder) if load else load_pretrained(AutoModel, folder)
        encoder.pooler = None
        self.model = Classifier(encoder, len(self.labels), self.settings["pooling"], 0.0)
        self.model.head.load_state_dict(load_file(folder / "head.safetensors"))
        self.model.eval()

    @torch.inference_mode()
    def probabilities(self, rows: list[dict[str, Any]]) -> np.ndarray:
        """(N, labels) float64, each row summing to 1."""
        texts: list[Any] = [tuple("" if row[name] is None else str(row[name]) for name in self.inputs) for row in rows]
        if len(self.inputs) == 1:
            texts = [text for (text,) in texts]
        tokens = tokenize(self.tokenizer, texts, self.settings["max_length"])
        self.truncated += tokens.truncated
        out = np.empty((len(rows), len(self.labels)))
        for index in by_length(tokens.lengths, TOKENS_AT_ONCE):
            logits = self.model.logits(pack(tokens, index)).double()
            out[index] = (logits / self.temperature).softmax(-1).numpy()
        return out

    def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return label_answers(self.labels, self.probabilities(rows))


def load_predictor(folder: Path) -> LabelPredictor:
    return LabelPredictor(folder)


def _tensor(values: np.ndarray | None) -> torch.Tensor | None:
    return None if values is None else torch.from_numpy(values).float()


def _number(contract: Any, label: str) -> float:
    """Raises WrongInput for a label that is on no scale."""
    try:
        return float(label)
    except ValueError:
        raise WrongInput(
            f"settings.ordinal: column '{contract.label}' of dataset {contract.name} holds '{label}', which is no "
            "number; leave ordinal out, or make the labels numbers"
        ) from None
