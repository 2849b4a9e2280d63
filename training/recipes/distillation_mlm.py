"""Distillation of a masked language model: a student with every second layer learns to fill masks as a trained BERT.

Paper: Sanh et al., "DistilBERT, a distilled version of BERT", NeurIPS EMC2 workshop 2019, §2-3.
How ours differs: the soft loss is the KL divergence, and at the predicted tokens alone (in the paper's published code
an option, restrict_ce_to_mask); masks, text and tokenizer as in recipe bert_mlm; the weights are those of that code.
Command: slipway train library-docs-mlm-distilled
         slipway train library-docs-mlm-distilled --set alpha_soft=0 --set alpha_hidden=0   (the same student, untaught)
Hardware and time: not yet measured.
Expected: not yet measured; held-out loss between the teacher's and that of the same student untaught.
"""

from pathlib import Path
from typing import ClassVar

import torch
from safetensors import safe_open

from infra.errors import WrongInput
from training import task
from training.distilled import Distilled
from training.encoders import load_pretrained
from training.recipe import DistillationSettings
from training.recipes import bert_mlm
from training.recipes.bert_mlm import Settings as MaskedSettings


class Settings(DistillationSettings, MaskedSettings):
    roles: ClassVar[dict[str, str]] = {
        "teacher": "required: the trained bert_mlm, or a published BERT, that is learned from",
        "base": "the BERT whose layers the student begins with; without it, the teacher's",
    }
    example_sources: ClassVar[dict[str, str]] = {"teacher": "bert_mlm"}


class Recipe(Distilled, bert_mlm.Recipe):
    settings: Settings
    targets = "targets"

    @staticmethod
    def states(model: bert_mlm.MaskedLanguageModel, batch: task.Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return model.states(batch)

    def taught_by(self, folder: Path, where: str) -> torch.nn.Module:
        from transformers import AutoModelForMaskedLM

        model = load_pretrained(AutoModelForMaskedLM, folder)
        names = [name for path in folder.glob("*.safetensors") for name in safe_open(path, "pt").keys()]  # noqa: SIM118
        if not any(name.startswith("cls.") for name in names):  # transformers would draw one
            raise WrongInput(f"{where}: has no head that names masked tokens; name a bert_mlm, or a BERT that has one")
        if not hasattr(model, "bert"):
            raise WrongInput(f"{where}: holds a {type(model).__name__}, not a BERT that fills masks")
        return bert_mlm.MaskedLanguageModel(model)
