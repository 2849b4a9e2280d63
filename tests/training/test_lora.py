"""Low-rank adaptation beyond what every recipe must do: what is trained, what is packaged, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from infra.errors import WrongInput
from tests.training.examples import EXAMPLES, open_recipe
from training.encoders import load_pretrained, save_pretrained
from training.recipe import settings_class
from training.recipes import text_classifier
from training.text import encode_packed, pack, tokenize


def built(folder: Path, **settings: Any) -> tuple[Any, Any]:
    """A recipe and its task, every weight moved, so that equality with fresh ones would not hold."""
    recipe = open_recipe("lora", folder / "prepared", **settings)
    torch.manual_seed(0)
    task = recipe.build()
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return recipe, task


def test_only_the_small_matrices_and_the_head_are_trained(tmp_path: Path) -> None:
    _, task = built(tmp_path)
    trained = {name for name, value in task.named_parameters() if value.requires_grad}
    assert trained and all(".lora_" in name or name.startswith("head.") for name in trained)
    assert sum(".lora_A." in name for name in trained) == 2 * 2, "query and value of two layers"


def test_the_package_answers_as_peft_with_base_and_adapter(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModel

    recipe, task = built(tmp_path, rank=4, target_layers=["query", "dense"])
    base = text_classifier.Recipe.build(recipe).encoder
    state = {name.replace(".base_layer.", "."): value for name, value in task.encoder.state_dict().items()}
    base.load_state_dict({name: value for name, value in state.items() if ".lora_" not in name})
    (tmp_path / "base").mkdir()
    save_pretrained(base, tmp_path / "prepared", tmp_path / "base")
    (tmp_path / "model").mkdir()
    recipe.save(task, tmp_path / "model")
    beside: Any = PeftModel.from_pretrained(
        load_pretrained(AutoModel, tmp_path / "base"), tmp_path / "model" / "adapter"
    )
    predictor = text_classifier.load_predictor(tmp_path / "model")
    tokens = tokenize(predictor.tokenizer, EXAMPLES["text"](20, 9)["text"].to_pylist(), 24)
    batch = pack(tokens, np.arange(20))
    with torch.no_grad():
        expected = task.eval().logits(batch)
        assert torch.allclose(predictor.model.logits(batch), expected, atol=1e-5)
        hidden = encode_packed(beside.base_model.model.eval(), batch)
        assert torch.allclose(predictor.model.classify(hidden, batch["lengths"]), expected, atol=1e-5)
        plain = encode_packed(load_pretrained(AutoModel, tmp_path / "base").eval(), batch)
        assert not torch.allclose(plain, hidden, atol=1e-2), "without the adapter it answers otherwise"


def test_the_size_of_the_adapter_is_told(tmp_path: Path) -> None:
    recipe, task = built(tmp_path, rank=4)
    (tmp_path / "model").mkdir()
    figures = recipe.save(task, tmp_path / "model").figures
    adapter = load_file(tmp_path / "model" / "adapter" / "adapter_model.safetensors")
    assert figures["adapter_bytes"] == sum(value.numel() for value in adapter.values()) * 4 == 2 * 2 * 2 * 32 * 4 * 4
    assert figures["trained_parameters"] == figures["adapter_bytes"] / 4 + 32 * 3 + 3
    assert 0 < figures["trained_share"] < 0.2


def test_layers_that_are_not_there_are_refused_with_those_that_are(tmp_path: Path) -> None:
    recipe = open_recipe("lora", tmp_path, target_layers=["qery"])
    with pytest.raises(WrongInput, match=r"no linear layer 'qery'.*query"):
        recipe.build()
    with pytest.raises(ValidationError, match="target_layers is empty"):
        settings_class("lora").model_validate({"target_layers": []})
    with pytest.raises(ValidationError, match="leave it out"):
        settings_class("lora").model_validate({"freeze_encoder": True})
