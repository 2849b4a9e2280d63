"""Compression beyond what every fit must do: each method's arithmetic, its bytes on any threads, what is refused."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from infra.errors import WrongInput
from tests.training.examples import EXAMPLES, open_recipe
from training import compressed
from training.examples import example_sources
from training.recipe import load_recipe, settings_class
from training.recipes import text_classifier

METHODS = ("int8", "pruning", "factorisation")
HERE = [name for name in compressed.engines() if name != "torchao"]


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Speeds are told, not judged: a few texts will do; and threads that wait for each other are slow on busy cores."""
    monkeypatch.setattr("training.recipes.compression.TIMED_TEXTS", 4)
    monkeypatch.setattr("training.recipes.compression.TIMED_ALONE", 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def silent(*_: Any, **__: Any) -> None:
    return


def original() -> Any:
    return text_classifier.load_predictor(example_sources("compression")["model"])


def fitted(folder: Path, method: str, **settings: Any) -> tuple[Any, Any, Path]:
    recipe = open_recipe("compression", folder / "prepared", **{"method": method, "points": (), **settings})
    place = folder / f"model-{len(list(folder.iterdir()))}"
    place.mkdir()
    return recipe, recipe.fit(place, 0, silent), place


def answers(predictor: Any, num_texts: int = 60) -> np.ndarray:
    return predictor.probabilities(EXAMPLES["text"](num_texts, 7).select(["text"]).to_pylist())


@pytest.mark.parametrize("method", METHODS)
def test_each_method_has_the_same_bytes_on_any_number_of_threads(method: str, tmp_path: Path) -> None:
    found = []
    for number in (1, 4):
        torch.set_num_threads(number)
        found.append((fitted(tmp_path, method)[2] / compressed.FILE).read_bytes())
        assert torch.get_num_threads() == number
    assert found[0] == found[1]


@pytest.mark.parametrize(("method", "share"), [("int8", 0.35), ("pruning", 0.77), ("factorisation", 0.75)])
def test_the_smaller_model_answers_nearly_as_the_whole_one(method: str, share: float, tmp_path: Path) -> None:
    _, files, folder = fitted(tmp_path, method, keep=0.7)
    before, after = answers(original()), answers(load_recipe("compression").load_predictor(folder))
    assert (before.argmax(1) == after.argmax(1)).mean() > 0.9
    assert not np.array_equal(before, after)
    assert files.figures["linear_bytes_ratio"] < share
    linear = compressed.linear_layers(original().model.encoder)
    stored = {
        name: one for name, one in load_file(folder / compressed.FILE).items() if name.rpartition(".")[0] in linear
    }
    assert files.figures["linear_bytes"] == compressed.size(stored.values())
    assert "model.safetensors" not in {path.name for path in folder.iterdir()}


def test_int8_is_the_rounded_product() -> None:
    torch.manual_seed(0)
    layer, inputs = torch.nn.Linear(32, 24), torch.randn(5, 32)
    stored = compressed.quantise({"x": layer})
    whole = stored["x.weight_int8"].float() * stored["x.weight_scale"][:, None]
    assert stored["x.weight_int8"].dtype == torch.int8 and int(stored["x.weight_int8"].abs().max()) == 127
    with torch.no_grad():
        assert ((whole - layer.weight).abs() <= stored["x.weight_scale"][:, None] / 2 + 1e-7).all()
        expected = torch.nn.functional.linear(inputs, whole, layer.bias)
        for engine in HERE:
            holder = compressed.put_in(torch.nn.ModuleDict({"x": torch.nn.Linear(32, 24)}), stored, engine)
            assert torch.allclose(holder["x"](inputs), expected, atol=0.05), engine
            assert not list(holder.parameters()), "no second copy of the weights is held"


def test_an_int8_answer_does_not_depend_on_what_is_asked_beside_it() -> None:
    torch.manual_seed(0)
    layer, small, large = torch.nn.Linear(32, 24), torch.randn(300, 32), 50 * torch.randn(300, 32)
    stored = compressed.quantise({"x": layer})
    for engine in HERE:
        made = compressed.put_in(torch.nn.ModuleDict({"x": torch.nn.Linear(32, 24)}), stored, engine)["x"]
        assert torch.equal(made(torch.cat([small, large]))[:300], made(small)), engine


def test_pruning_keeps_the_largest_weights_of_all_layers_together() -> None:
    torch.manual_seed(0)
    layers = {"small": torch.nn.Linear(9, 7), "large": torch.nn.Linear(8, 5)}
    with torch.no_grad():
        layers["large"].weight.mul_(100)
    stored = compressed.prune(layers, 0.5)
    kept = sum(len(stored[f"{name}.weight_values"]) for name in layers)
    assert kept == 63 + 40 - round(0.5 * (63 + 40))
    assert len(stored["large.weight_values"]) > 35 and len(stored["small.weight_kept"]) == 8
    holder = compressed.put_in(torch.nn.ModuleDict({name: torch.nn.Linear(one.in_features, one.out_features)
                                                    for name, one in layers.items()}), stored, "onednn")  # fmt: skip
    for name, layer in layers.items():
        weight = holder[name].weight
        assert torch.equal(weight[weight != 0], layer.weight[weight != 0])
        assert torch.equal(holder[name].bias, layer.bias)
    removed = torch.cat([layer.weight[holder[name].weight == 0].abs() for name, layer in layers.items()])
    assert removed.max() < min(stored[f"{name}.weight_values"].abs().min() for name in layers if kept)


def test_factors_are_exact_where_outputs_have_that_rank_and_best_on_the_texts_elsewhere() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(32, 32)
    inputs = torch.randn(400, 4) @ torch.randn(4, 32) + torch.randn(32)  # four directions about a mean
    with torch.no_grad():
        factors = compressed.Factors({"x": layer}, lambda: layer(inputs))
        stored = factors.cut(0.25)  # 256 of 1,024 weights: rank 4
        assert stored["x.weight_up"].shape == (32, 4) and stored["x.weight_down"].shape == (4, 32)
        low = compressed.put_in(torch.nn.ModuleDict({"x": torch.nn.Linear(32, 32)}), stored, "onednn")["x"]
        assert torch.allclose(low(inputs), layer(inputs), atol=1e-4)
        noisy = torch.randn(400, 32) * torch.logspace(0, -2, 32)
        factors = compressed.Factors({"x": layer}, lambda: layer(noisy))
        low = compressed.put_in(torch.nn.ModuleDict({"x": torch.nn.Linear(32, 32)}), factors.cut(0.5), "onednn")["x"]
        u, s, v = torch.linalg.svd(layer.weight)
        plain = torch.nn.functional.linear(noisy, u[:, :8] * s[:8] @ v[:8], layer.bias)
        error, plain_error = (float((one - layer(noisy)).norm()) for one in (low(noisy), plain))
    assert error < plain_error / 2


def test_points_and_the_whole_model_are_on_the_curve_in_order_of_size(tmp_path: Path) -> None:
    recipe = open_recipe("compression", tmp_path / "prepared", method="pruning", keep=0.5, points=(0.2, 0.9))
    told: list[tuple[int, dict[str, float]]] = []
    (tmp_path / "model").mkdir()
    recipe.fit(tmp_path / "model", 0, lambda step, of, metrics=None, note="": told.append((step, metrics or {})))
    curve = [(step, found["macro_f1_by_size"]) for step, found in told if "macro_f1_by_size" in found]
    assert [step for step, _ in curve] == sorted({step for step, _ in curve}) and len(curve) == 4
    assert [step for step, _ in curve] == [pytest.approx(percent, abs=3) for percent in (24, 54, 93, 100)]
    assert told[-1][0] == 100 and told[-1][1]["validation_macro_f1"] == curve[1][1]


def test_an_int8_model_tells_the_speed_of_every_engine(tmp_path: Path) -> None:
    _, files, _ = fitted(tmp_path, "int8", engine=HERE[0])
    for engine in compressed.engines():
        assert files.figures[f"texts_per_s_{engine}"] > 0 and files.figures[f"latency_ms_{engine}"] > 0
    assert files.figures["texts_per_s"] == files.figures[f"texts_per_s_{HERE[0]}"]
    assert files.figures["speed_ratio"] == files.figures["texts_per_s"] / files.figures["original_texts_per_s"]


def test_torchao_rebuilds_the_same_weights() -> None:
    pytest.importorskip("torchao")
    torch.manual_seed(0)
    layer, inputs = torch.nn.Linear(32, 24), torch.randn(5, 32)
    stored = compressed.quantise({"x": layer})
    holder = compressed.put_in(torch.nn.ModuleDict({"x": torch.nn.Linear(32, 24)}), stored, "torchao")
    with torch.no_grad():
        assert torch.allclose(holder["x"](inputs), layer(inputs), atol=0.05)


def test_what_cannot_be_compressed_is_refused(tmp_path: Path) -> None:
    kind = settings_class("compression")
    with pytest.raises(ValidationError, match="int8 has one strength"):
        kind.model_validate({"points": [0.5]})
    with pytest.raises(ValidationError, match=r"less than or equal to 0\.95"):
        kind.model_validate({"method": "pruning", "points": [1.5]})
    recipe, _, folder = fitted(tmp_path, "int8", engine=HERE[0])
    with pytest.raises(WrongInput, match="no trained text classifier with whole weights"):
        type(recipe)(recipe.settings, {"model": folder})
    with pytest.raises(WrongInput, match=r"settings.engine: .* no 'none of these'"):
        compressed.Int8Linear(torch.ones(1, 1, dtype=torch.int8), torch.ones(1), torch.ones(1), "none of these")
    shutil.copytree(example_sources("compression")["model"], tmp_path / "other")
    facts = (tmp_path / "other" / "recipe.json").read_text()
    (tmp_path / "other" / "recipe.json").write_text(facts.replace('"label 0"', '"a label"'))
    other = type(recipe)(recipe.settings, {"model": tmp_path / "other"})
    with pytest.raises(WrongInput, match="tells a label, label 1, label 2 apart"):
        other.open(tmp_path / "prepared")


def test_a_package_with_a_tensor_missing_does_not_load(tmp_path: Path) -> None:
    _, _, folder = fitted(tmp_path, "int8", engine=HERE[0])
    tensors = load_file(folder / compressed.FILE)
    tensors.pop("embeddings.LayerNorm.weight")
    save_file(tensors, folder / compressed.FILE)
    with pytest.raises(KeyError, match=r"embeddings.LayerNorm.weight"):
        load_recipe("compression").load_predictor(folder)
