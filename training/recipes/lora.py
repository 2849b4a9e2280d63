"""Low-rank adaptation of a text classifier: the encoder's weights stay, small matrices beside them are trained.

Paper: Hu et al., "LoRA: Low-rank adaptation of large language models", ICLR 2022, §4.1: W + (alpha / rank) B A, A drawn
at random, B zero, so that training begins with the encoder as it was given.
How ours differs: by peft, into a BERT's body; the linear layer on top is trained whole. What is packaged is the encoder
with the products added to its weights, so that answering costs what it did, and the small matrices alone beside it.
Command: slipway train emotion-lora
Hardware and time: not yet measured.
Expected: within a point of training every weight, by 1.5 % of them; not yet measured: slipway recipes verify --text.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from safetensors.torch import save_file

from infra.errors import WrongInput, choices
from training import task
from training.recipes import text_classifier
from training.recipes.text_classifier import Settings as ClassifierSettings

ADAPTER = "adapter"
"""The folder of the package with the small matrices alone, as peft's `PeftModel.from_pretrained` reads them."""


class Settings(ClassifierSettings):
    libraries: ClassVar[tuple[str, ...]] = (*ClassifierSettings.libraries, "peft")
    rank: int = Field(8, ge=1, le=1024)
    """Columns of B and rows of A."""
    alpha: int = Field(16, ge=1)
    """The products count alpha / rank times."""
    target_layers: tuple[str, ...] = ("query", "value")
    """The encoder's linear layers that are adapted, by the last part of their name (§4.2 of the paper: these two)."""
    adapter_dropout: float = Field(0.0, ge=0, lt=1)
    """On what the small matrices read."""

    @model_validator(mode="after")
    def _adapts_something(self) -> Self:
        if not self.target_layers:
            raise ValueError("target_layers is empty; write [query, value], or recipe text_classifier")
        if self.freeze_encoder:
            raise ValueError("freeze_encoder: the encoder's own weights are frozen here anyway; leave it out")
        return self


class Recipe(text_classifier.Recipe):
    settings: Settings

    def build(self) -> text_classifier.Classifier:
        from peft import inject_adapter_in_model

        classifier, wanted = super().build(), self.settings.target_layers
        linear = [name for name, one in classifier.encoder.named_modules() if isinstance(one, torch.nn.Linear)]
        known = sorted({name.rpartition(".")[2] for name in linear})
        if unknown := [name for name in wanted if name not in known]:
            raise WrongInput(
                f"settings.target_layers: the encoder has no linear layer '{unknown[0]}'; {choices(unknown[0], known)}"
            )
        classifier.encoder = inject_adapter_in_model(self._config(), classifier.encoder)
        return classifier

    def _config(self) -> Any:
        from peft import LoraConfig

        settings = self.settings
        return LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            target_modules=list(settings.target_layers),
            lora_dropout=settings.adapter_dropout,
        )

    def merged(self, trained: torch.nn.Module) -> dict[str, torch.Tensor]:
        """The weights of the plain classifier that answers alike: products added, under the names they had before."""
        from peft.tuners.lora import LoraLayer

        adapted: dict[str, Any] = {name: one for name, one in trained.named_modules() if isinstance(one, LoraLayer)}
        found = {}
        for name, value in trained.state_dict().items():
            owner, inside, kind = name.partition(".base_layer.")
            if kind == "weight":
                value = value + adapted[owner].get_delta_weight("default")
            if ".lora_" not in name:
                found[f"{owner}.{kind}" if inside else name] = value
        return found

    def save(self, trained: Any, folder: Path) -> task.ModelFiles:
        plain = super().build()
        plain.load_state_dict(self.merged(trained))
        files = super().save(plain, folder)
        adapter = {
            f"base_model.model.{name.replace('.default.', '.')}": value.cpu().contiguous()
            for name, value in trained.encoder.state_dict().items()
            if ".lora_" in name
        }
        place = folder / ADAPTER
        self._config().save_pretrained(str(place))
        config = json.loads((place / "adapter_config.json").read_text(encoding="utf-8"))
        config["target_modules"].sort()  # peft writes a set as it comes: other bytes each time
        (place / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
        save_file(adapter, place / "adapter_model.safetensors")
        trains = sum(value.numel() for value in trained.parameters() if value.requires_grad)
        figures = {
            "trained_parameters": trains,
            "trained_share": trains / sum(value.numel() for value in plain.parameters()),
            "adapter_bytes": sum(value.numel() * value.element_size() for value in adapter.values()),
        }
        return replace(files, figures=figures)
