"""Distillation of a text classifier: a student with every second layer learns the answers of a trained one.

Paper: Sanh et al., "DistilBERT, a distilled version of BERT", NeurIPS EMC2 workshop 2019, §2-3: the student begins with
every second layer; its loss is that of the labels, the cross-entropy with the teacher's answers at a temperature T
(Hinton et al., 2015, §2: its gradient scaled by T^2) and the cosine between the two's last hidden states.
How ours differs: the task is classification, and not masked language modelling; the soft loss is the KL divergence, so
that a student who answers as the teacher has none; the weights are those of the paper's published training code.
Command: slipway train emotion-distilled
         slipway train emotion-distilled --set alpha_soft=0 --set alpha_hidden=0    (the same student, untaught)
Hardware and time: not yet measured: slipway recipes verify --text.
Expected: 97 % of the teacher's score with half its layers (the paper: 97 % of BERT's on GLUE, 60 % faster).
"""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch.nn import functional

from infra.errors import WrongInput
from training import task
from training.recipes import text_classifier
from training.recipes.text_classifier import Settings as ClassifierSettings
from training.speed import texts_per_second
from training.text import by_length, encode_packed, load_tokenizer, pack

TIMED_TEXTS = 256


class Settings(ClassifierSettings):
    roles: ClassVar[dict[str, str]] = {
        "teacher": "required: the trained text_classifier that is learned from",
        "base": "the encoder whose layers the student begins with; without it, the teacher's",
    }
    prepare_reads: ClassVar[dict[str, tuple[str, ...]]] = {"teacher": ("tokenizer.json",), "base": ("tokenizer.json",)}
    example_sources: ClassVar[dict[str, str]] = {"teacher": "text_classifier"}
    keep_every: int = Field(2, ge=1, le=96)
    """One in so many of the layers that the student begins with is kept, the first among them: 2 keeps every second."""
    temperature: float = Field(2.0, gt=0)
    """By which both's logits are divided in the soft loss: the higher, the more the unlikely labels tell."""
    alpha_hard: float = Field(2.0, ge=0)
    """Weight of the cross-entropy with the labels."""
    alpha_soft: float = Field(5.0, ge=0)
    """Weight of T^2 x the KL divergence from the teacher's answers; with alpha_hidden 0 too, nothing is distilled."""
    alpha_hidden: float = Field(1.0, ge=0)
    """Weight of 1 - cosine between the last hidden states of both, for each token."""

    @model_validator(mode="after")
    def _the_student_learns(self) -> Self:
        if self.freeze_encoder:
            raise ValueError("freeze_encoder: a student of fewer layers has to learn; leave it out")
        return self


class Teacher:
    """A trained classifier that answers and never learns. No module of the task's, so that no optimiser, no other
    worker and no checkpoint holds it, and `train()` cannot turn its dropout on."""

    def __init__(self, folder: Path):
        self.predictor = text_classifier.load_predictor(folder)
        self.model = self.predictor.model.requires_grad_(False)

    @torch.no_grad()
    def __call__(self, batch: task.Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The last hidden states (tokens, D) and the logits (N, labels)."""
        self.model.to(batch["input_ids"].device)
        hidden = encode_packed(self.model.encoder, batch)
        return hidden, self.model.classify(hidden, batch["lengths"])


class Distillation(task.Task):
    model: text_classifier.Classifier

    def __init__(self, student: text_classifier.Classifier, teacher: Teacher, settings: Settings):
        super().__init__()
        self.model, self.teacher, self.temperature = student, teacher, settings.temperature
        weights = {"soft_loss": settings.alpha_soft, "hidden_loss": settings.alpha_hidden}
        self.weights = {"loss": settings.alpha_hard, **{name: value for name, value in weights.items() if value}}

    def forward(self, batch: task.Batch, phase: str = "all") -> dict[str, torch.Tensor]:
        hidden = encode_packed(self.model.encoder, batch)  # (tokens, D)
        logits = self.model.classify(hidden, batch["lengths"])  # (N, labels)
        losses = self.model.losses(logits, batch)
        if len(self.weights) == 1:
            return losses
        teacher_hidden, teacher_logits = self.teacher(batch)
        if "soft_loss" in self.weights:
            own, wanted = (functional.log_softmax(one / self.temperature, -1) for one in (logits, teacher_logits))
            divergence = functional.kl_div(own, wanted, reduction="sum", log_target=True)
            losses["soft_loss"] = self.temperature**2 * divergence
        if "hidden_loss" in self.weights:
            losses["hidden_loss"] = (1 - functional.cosine_similarity(hidden, teacher_hidden, dim=-1)).sum()
        return losses

    def counts(self, batch: task.Batch) -> dict[str, float]:
        sizes = {"soft_loss": len(batch["labels"]), "hidden_loss": batch["input_ids"].shape[1]}
        return {**self.model.counts(batch), **{name: size for name, size in sizes.items() if name in self.weights}}

    def loss_weight(self, name: str) -> float:
        return self.weights.get(name, 1.0)

    def measure(self, batch: task.Batch) -> dict[str, tuple[float, float]]:
        """Those of the student alone, and how often it says what the teacher says."""
        same = (self.model.logits(batch).argmax(-1) == self.teacher(batch)[1].argmax(-1)).sum()
        return {**self.model.measure(batch), "agreement": (float(same), len(batch["labels"]))}

    def initial_losses(self) -> dict[str, float]:
        return self.model.initial_losses()

    def shards(self) -> list[torch.nn.Module]:
        return self.model.shards()


class Recipe(text_classifier.Recipe):
    settings: Settings

    def __init__(self, settings: Any, sources: Any):
        if "teacher" not in sources:
            raise WrongInput("from.teacher: is missing; distillation learns from a trained text_classifier")
        self.teacher_folder = sources["teacher"]
        super().__init__(settings, {"base": sources.get("base", self.teacher_folder)})

    @cached_property
    def teacher(self) -> Teacher:
        """Raises WrongInput where it answers in other words than the student is to."""
        where = f"from.teacher {self.teacher_folder}"
        if not (self.teacher_folder / "head.safetensors").is_file():
            raise WrongInput(f"{where}: is no trained text_classifier (no head.safetensors); name one that was trained")
        teacher = Teacher(self.teacher_folder)
        if teacher.predictor.labels != self.report["labels"]:
            told = ", ".join(teacher.predictor.labels[:5])
            raise WrongInput(f"{where}: tells {told} apart, the dataset has {', '.join(self.report['labels'][:5])}")
        if load_tokenizer(self.teacher_folder).get_vocab() != load_tokenizer(self.folder).get_vocab():
            raise WrongInput(f"{where}: has another vocabulary than from.base; both read the same tokens here")
        return teacher

    def build(self) -> Any:
        """A `Distillation`."""
        student, teacher = super().build(), self.teacher
        widths = [model.encoder.config.hidden_size for model in (student, teacher.model)]
        if self.settings.alpha_hidden and widths[0] != widths[1]:
            raise WrongInput(
                f"settings.alpha_hidden: from.base is {widths[0]} wide, the teacher {widths[1]}; write alpha_hidden: 0"
            )
        layers = student.encoder.encoder.layer[:: self.settings.keep_every]
        student.encoder.encoder.layer, student.encoder.config.num_hidden_layers = layers, len(layers)
        return Distillation(student, teacher, self.settings)

    def refresh(self, task: Any, epoch: int) -> None:
        """Nothing to compute beforehand: all of the student learns."""

    def save(self, trained: Any, folder: Path) -> task.ModelFiles:
        files = super().save(trained.model, folder)
        models = {"student": trained.model.cpu().eval(), "teacher": self.teacher.model.cpu()}
        tokens, rows = self.files["train"].tokens, self.rows["train"][:TIMED_TEXTS]
        groups = by_length(tokens.lengths[rows], text_classifier.TOKENS_AT_ONCE)
        batches = [pack(tokens, rows[index]) for index in groups]
        speed = texts_per_second(models, batches)
        layers = {name: _body_parameters(model) for name, model in models.items()}
        figures = {
            "texts_per_s": speed["student"],
            "teacher_texts_per_s": speed["teacher"],
            "speed_ratio": speed["student"] / speed["teacher"],
            "body_parameters": layers["student"],
            "body_parameters_ratio": layers["student"] / layers["teacher"],
        }
        return replace(files, figures=figures)


def _body_parameters(model: text_classifier.Classifier) -> int:
    """Parameters outside the embeddings."""
    every, table = (sum(one.numel() for one in part.parameters()) for part in (model, model.encoder.embeddings))
    return every - table
