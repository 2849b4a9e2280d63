"""Distillation of what any recipe trains: a student with some of the layers learns what a trained model answers.

Paper: Sanh et al., "DistilBERT, a distilled version of BERT", NeurIPS EMC2 workshop 2019, §2-3: the student begins with
every second layer; its loss is that of the data's own answers, the cross-entropy with the teacher's at a temperature T
(Hinton et al., 2015, §2: its gradient scaled by T^2) and the cosine between the two's last hidden states. The soft loss
here is the KL divergence, so that a student who answers as the teacher has none.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional

from infra.errors import WrongInput
from training import task
from training.encoders import body
from training.randomness import SampleKeys
from training.speed import texts_per_second
from training.text import by_length, load_tokenizer

TIMED_TEXTS = 256
TOKENS_AT_ONCE = 8192
"""Of a forward pass that is timed."""
States = Callable[[Any, task.Batch], tuple[torch.Tensor, torch.Tensor]]
"""(model, batch) -> the last hidden states (tokens, D) and the logits (answers, K)."""


class Teacher:
    """A trained model that answers and never learns. No module of the task's, so that no optimiser, no other worker and
    no checkpoint holds it, and `train()` cannot turn its dropout on."""

    def __init__(self, model: torch.nn.Module, states: States):
        self.model, self.states = model.requires_grad_(False).eval(), states

    @torch.no_grad()
    def __call__(self, batch: task.Batch) -> tuple[torch.Tensor, torch.Tensor]:
        self.model.to(batch["input_ids"].device)
        return self.states(self.model, batch)


class Distillation(task.Task):
    """A student, which is another recipe's task with a method `losses(logits, batch)`, and its teacher."""

    model: Any

    def __init__(self, student: task.Task, teacher: Teacher, settings: Any, targets: str):
        """settings: `training.recipe.DistillationSettings`. targets: what a batch calls the data's own answers."""
        super().__init__()
        self.model, self.teacher, self.temperature, self.targets = student, teacher, settings.temperature, targets
        self.hard = settings.alpha_hard
        weights = {"soft_loss": settings.alpha_soft, "hidden_loss": settings.alpha_hidden}
        self.weights = {name: value for name, value in weights.items() if value}

    def forward(self, batch: task.Batch, phase: str = "all") -> dict[str, torch.Tensor]:
        hidden, logits = self.teacher.states(self.model, batch)
        losses = self.model.losses(logits, batch)
        if not self.weights:
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
        sizes = {"soft_loss": len(batch[self.targets]), "hidden_loss": batch["input_ids"].shape[1]}
        return {**self.model.counts(batch), **{name: sizes[name] for name in self.weights}}

    def loss_weight(self, name: str) -> float:
        return self.weights.get(name, self.hard)

    def measure(self, batch: task.Batch) -> dict[str, tuple[float, float]]:
        """Those of the student alone, and how often it says what the teacher says."""
        same = (self.teacher.states(self.model, batch)[1].argmax(-1) == self.teacher(batch)[1].argmax(-1)).sum()
        return {**self.model.measure(batch), "agreement": (float(same), len(batch[self.targets]))}

    def initial_losses(self) -> dict[str, float]:
        return self.model.initial_losses()

    def shards(self) -> list[torch.nn.Module]:
        return self.model.shards()


class Distilled(task.Recipe):
    """Before the recipe that the student is of, in a recipe's bases; its settings are `DistillationSettings` too."""

    settings: Any
    folder: Path
    targets: ClassVar[str]
    """What a batch calls the data's own answers."""

    def __init__(self, settings: Any, sources: Mapping[str, Path]):
        if "teacher" not in sources:
            raise WrongInput("from.teacher: is missing; a student learns from a trained model")
        self.teacher_folder = sources["teacher"]
        super().__init__(settings, {"base": sources.get("base", self.teacher_folder)})

    @staticmethod
    @abstractmethod
    def states(model: Any, batch: task.Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """As `States` says, of the student's task and of the teacher's."""

    @abstractmethod
    def taught_by(self, folder: Path, where: str) -> torch.nn.Module:
        """The teacher's task. Raises WrongInput, which begins with `where`, for one that this student cannot have."""

    @cached_property
    def teacher(self) -> Teacher:
        """Raises WrongInput where it reads other tokens than the student is to."""
        where = f"from.teacher {self.teacher_folder}"
        model = self.taught_by(self.teacher_folder, where)
        if load_tokenizer(self.teacher_folder).get_vocab() != load_tokenizer(self.folder).get_vocab():
            raise WrongInput(f"{where}: has another vocabulary than from.base; both read the same tokens here")
        return Teacher(model, self.states)

    def build(self) -> Any:
        """A `Distillation`."""
        student, teacher = super().build(), self.teacher  # type: ignore[safe-super]  # of the recipe named after this
        own, teachers = body(student), body(teacher.model)
        if self.settings.alpha_hidden and own.config.hidden_size != teachers.config.hidden_size:
            raise WrongInput(
                f"settings.alpha_hidden: from.base is {own.config.hidden_size} wide, the teacher "
                f"{teachers.config.hidden_size}; write alpha_hidden: 0"
            )
        encoder = own.base_model.encoder
        encoder.layer = encoder.layer[:: self.settings.keep_every]
        own.config.num_hidden_layers = len(encoder.layer)
        return Distillation(student, teacher, self.settings, self.targets)

    def save(self, trained: Any, folder: Path) -> task.ModelFiles:
        files = super().save(trained.model, folder)  # type: ignore[safe-super]
        models = {"student": trained.model.cpu().eval(), "teacher": self.teacher.model.cpu()}
        index = np.arange(min(TIMED_TEXTS, self.num_samples("train")))
        keys = SampleKeys.of(0, np.zeros_like(index), index)
        lengths = self.batch("train", index, keys)["lengths"].numpy()
        groups = by_length(lengths, TOKENS_AT_ONCE)
        batches = [self.batch("train", index[group], SampleKeys(keys.keys[group])) for group in groups]
        speed = texts_per_second(models, batches, ask=self.states)
        sizes = {name: _body_parameters(model) for name, model in models.items()}
        figures = {
            "texts_per_s": speed["student"],
            "teacher_texts_per_s": speed["teacher"],
            "speed_ratio": speed["student"] / speed["teacher"],
            "body_parameters": sizes["student"],
            "body_parameters_ratio": sizes["student"] / sizes["teacher"],
        }
        return replace(files, figures={**files.figures, **figures})


def _body_parameters(model: torch.nn.Module) -> int:
    """Parameters outside the embeddings."""
    table = body(model).base_model.embeddings
    every, embedded = (sum(one.numel() for one in part.parameters()) for part in (model, table))
    return every - embedded
