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
from training.examples import example_sources
from training.low_rank import LowRank
from training.randomness import SampleKeys
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


@pytest.mark.parametrize(("name", "base"), [("lora_gpt", "AutoModelForCausalLM"), ("lora_mlm", "AutoModelForMaskedLM")])
def test_a_language_models_package_is_the_base_with_the_adapter(name: str, base: str, tmp_path: Path) -> None:
    import transformers
    from peft import PeftModel

    recipe = open_recipe(name, tmp_path / "prepared")
    torch.manual_seed(0)
    task = recipe.build().eval()
    index = np.arange(8)
    batch = recipe.batch("train", index, SampleKeys.of(0, np.zeros_like(index), index))
    plain = super(LowRank, recipe).build().eval()
    with torch.no_grad():
        assert {key: float(value) for key, value in task(batch).items()} == pytest.approx(
            {key: float(value) for key, value in plain(batch).items()}
        ), "it begins as the base was given"
        for key, value in task.named_parameters():
            value.add_(torch.randn_like(value) * 0.2 if ".lora_" in key else 0)
        before = {key: value.clone() for key, value in task.state_dict().items()}
        losses = task(batch)
    (tmp_path / "model").mkdir()
    files = recipe.save(task, tmp_path / "model")
    assert all(torch.equal(value, before[key]) for key, value in task.state_dict().items()), "timing changes nothing"
    kind = getattr(transformers, base)
    packaged = type(plain)(load_pretrained(kind, tmp_path / "model")).eval()
    beside: Any = PeftModel.from_pretrained(load_pretrained(kind, recipe.sources["base"]), tmp_path / "model/adapter")
    adapted = type(plain)(beside.base_model.model).eval()
    with torch.no_grad():
        for model in (packaged, adapted):
            assert float(*model(batch).values()) == pytest.approx(float(*losses.values()), rel=1e-4)
        assert float(*plain(batch).values()) != pytest.approx(float(*losses.values()), rel=1e-2)
    assert 0 < files.figures["trained_share"] < 1


def test_what_a_step_costs_is_told_beside_training_every_weight(tmp_path: Path) -> None:
    recipe, task = built(tmp_path)
    (tmp_path / "model").mkdir()
    figures = recipe.save(task, tmp_path / "model").figures
    every = sum(value.numel() for value in text_classifier.Recipe.build(recipe).parameters())
    assert figures["optimizer_bytes"] == 2 * 4 * figures["trained_parameters"], "two moments of 4 bytes"
    assert figures["full_optimizer_bytes"] == 2 * 4 * every
    assert figures["step_time_ratio"] > 0


def test_a_base_that_is_no_gpt_or_too_short_is_refused(tmp_path: Path) -> None:
    recipe = open_recipe("lora_gpt", tmp_path / "prepared")
    recipe.settings = recipe.settings.model_copy(update={"block_size": 4096})
    with pytest.raises(WrongInput, match=r"block_size: 4096 tokens, the base takes 24"):
        recipe.build()
    recipe.sources = {"base": example_sources("lora_mlm")["base"]}
    with pytest.raises(WrongInput, match="not a GPT-2"):
        recipe.build()
