"""Distillation of a text classifier: a student with every second layer learns the answers of a trained one.

Paper: Sanh et al., "DistilBERT, a distilled version of BERT", NeurIPS EMC2 workshop 2019, §2-3: the student begins with
every second layer; its loss is that of the labels, the cross-entropy with the teacher's answers at a temperature T
(Hinton et al., 2015, §2: its gradient scaled by T^2) and the cosine between the two's last hidden states.
How ours differs: the task is classification (recipe distillation_mlm has the paper's own); the soft loss is the KL
divergence, so that a student who answers as the teacher has none; the weights are those of the paper's published
training code.
Command: slipway train emotion-distilled
         slipway train emotion-distilled --set alpha_soft=0 --set alpha_hidden=0    (the same student, untaught)
Hardware and time: the records of emotion-distilled and emotion-untaught.
Expected: the teacher's score with half its layers, at 1.9 times its speed (macro-F1 0.896 on emotion, untaught 0.878;
the paper: 97 % of BERT's on GLUE, 60 % faster).
"""

from pathlib import Path
from typing import ClassVar, Self

import torch
from pydantic import model_validator

from infra.errors import WrongInput
from training import task
from training.distilled import Distilled
from training.recipe import DistillationSettings
from training.recipes import text_classifier
from training.recipes.text_classifier import Settings as ClassifierSettings
from training.text import encode_packed


class Settings(DistillationSettings, ClassifierSettings):
    roles: ClassVar[dict[str, str]] = {
        "teacher": "required: the trained text_classifier that is learned from",
        "base": "the encoder whose layers the student begins with; without it, the teacher's",
    }
    example_sources: ClassVar[dict[str, str]] = {"teacher": "text_classifier"}

    @model_validator(mode="after")
    def _the_student_learns(self) -> Self:
        if self.freeze_encoder:
            raise ValueError("freeze_encoder: a student of fewer layers has to learn; leave it out")
        return self


class Recipe(Distilled, text_classifier.Recipe):
    settings: Settings
    targets = "labels"

    @staticmethod
    def states(model: text_classifier.Classifier, batch: task.Batch) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = encode_packed(model.encoder, batch)
        return hidden, model.classify(hidden, batch["lengths"])

    def taught_by(self, folder: Path, where: str) -> torch.nn.Module:
        """Raises WrongInput for a teacher that answers in other words than the student is to."""
        if not (folder / "head.safetensors").is_file():
            raise WrongInput(f"{where}: is no trained text_classifier (no head.safetensors); name one that was trained")
        predictor = text_classifier.load_predictor(folder)
        if predictor.labels != self.report["labels"]:
            told = ", ".join(predictor.labels[:5])
            raise WrongInput(f"{where}: tells {told} apart, the dataset has {', '.join(self.report['labels'][:5])}")
        return predictor.model

    def refresh(self, task: task.Task, epoch: int) -> None:
        """Nothing to compute beforehand: all of the student learns."""
