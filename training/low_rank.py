"""Low-rank adaptation of what any recipe trains: its transformer's weights stay, small matrices beside them learn.

Paper: Hu et al., "LoRA: Low-rank adaptation of large language models", ICLR 2022, §4.1: W + (alpha / rank) B A, A drawn
at random, B zero, so that training begins with the body as it was given. The matrices are peft's. What lies outside the
transformer, a head, is trained whole, but for weights that are the embeddings' too.

    class Recipe(LowRank, gpt.Recipe):       the recipe `gpt` with settings from `LowRankSettings` beside its own

What is packaged is the plain recipe's model with the products added to its weights, so that answering costs what it
did, and the small matrices alone beside it.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save_file

from infra.errors import WrongInput, choices
from training import speed, task
from training.encoders import body
from training.randomness import SampleKeys

ADAPTER = "adapter"
"""The folder of the package with the small matrices alone, as peft's `PeftModel.from_pretrained` reads them."""
TIMED_SAMPLES = 32
"""Of a training step that is timed."""
MOST_TIMED = 200_000_000
"""Parameters. A bigger model may be adapted because training it whole does not fit: that is then not tried."""


class LowRank(task.Recipe):
    """Before the recipe whose transformer is adapted, in a recipe's bases; its settings are `LowRankSettings` too."""

    settings: Any

    def build(self) -> Any:
        """The plain recipe's task, adapted. Raises WrongInput for layers that its transformer does not have."""
        from peft import inject_adapter_in_model

        trained = self._plain()
        model = body(trained).base_model  # without its head, where that is a model of transformers' too
        inject_adapter_in_model(self._config(model), model)
        return trained

    def _plain(self) -> Any:
        return super().build()  # type: ignore[safe-super]  # the recipe named after this one has it

    def _config(self, model: torch.nn.Module) -> Any:
        from peft import LoraConfig
        from transformers.pytorch_utils import Conv1D

        settings, linear = self.settings, linear_layers(model)
        for name in settings.target_layers:
            if name not in linear:
                raise WrongInput(f"settings.target_layers: the {type(model).__name__} has no linear layer '{name}'; "
                                 f"{choices(name, linear)}")  # fmt: skip
        return LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            target_modules=list(settings.target_layers),
            lora_dropout=settings.adapter_dropout,
            fan_in_fan_out=issubclass(linear[settings.target_layers[0]], Conv1D),  # GPT-2 keeps its weights transposed
        )

    def merged(self, trained: torch.nn.Module) -> dict[str, torch.Tensor]:
        """The weights of the plain task that answers alike: products added, under the names they had before."""
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
        plain = self._plain()
        plain.load_state_dict(self.merged(trained))
        files = super().save(plain, folder)  # type: ignore[safe-super]
        adapter = {
            f"base_model.model.{name.replace('.default.', '.')}": value.cpu().contiguous()
            for name, value in body(trained).state_dict().items()
            if ".lora_" in name
        }
        place = folder / ADAPTER
        self._config(body(plain).base_model).save_pretrained(str(place))
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
        device = next(trained.parameters()).device
        return replace(files, figures={**files.figures, **figures, **self._costs(plain.to(device))})

    def _costs(self, plain: Any) -> Mapping[str, float]:
        """What a training step costs beside one that trains every weight; nothing where that cannot be tried here: the
        model is too big, or its loss asks other workers, which wait for this one to save."""
        alone = plain.additive or not dist.is_initialized()
        if not alone or sum(value.numel() for value in plain.parameters()) > MOST_TIMED:
            return {}
        index = np.arange(min(TIMED_SAMPLES, self.num_samples("train")))
        batch = self.batch("train", index, SampleKeys.of(0, np.zeros_like(index), index))
        tasks = [self.build().to(next(plain.parameters()).device), plain.requires_grad_(True)]
        adapted, full = speed.training_steps(tasks, [batch])
        return {
            "optimizer_bytes": adapted.optimizer_bytes,
            "full_optimizer_bytes": full.optimizer_bytes,
            "step_time_ratio": adapted.seconds / full.seconds,
        }


def linear_layers(model: Any) -> dict[str, type]:
    """The last part of the name of each linear layer -> its kind, sorted."""
    from transformers.pytorch_utils import Conv1D

    found = {
        name.rpartition(".")[2]: type(one)
        for name, one in model.named_modules()
        if isinstance(one, torch.nn.Linear | Conv1D)
    }
    return dict(sorted(found.items()))
