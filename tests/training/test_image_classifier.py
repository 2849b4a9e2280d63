"""What is told of pictures: the simple models beside, masked modelling as a start, input that does not fit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from infra.errors import WrongInput
from tests.training.examples import open_recipe
from tests.training.observers import Silent
from training import loop
from training.evaluation import Asked, load_kind
from training.examples import CONTRACTS, ExampleContract, images
from training.experiment import Training
from training.image_baseline import fit_image_baseline
from training.images import table_arrays
from training.randomness import SampleKeys
from training.recipe import load_recipe, settings_class


def trained(name: str, folder: Path, steps: int = 40, sources: dict[str, Path] | None = None, **settings: Any) -> Any:
    """The predictor of a recipe trained a little on the examples."""
    recipe = open_recipe(name, folder / "prepared", sources=sources, **settings)
    config = Training(steps=steps, batch_size=32, learning_rate=3e-3, validate_every=1e9, diagnose_every=None)
    task, _ = loop.train(recipe, config, loop.World(), Silent())
    (folder / "model").mkdir()
    recipe.save(task, folder / "model")
    return load_recipe(name).load_predictor(folder / "model")


def asked(predictor: Any) -> Asked:
    splits = {"train": images(300, 1), "validation": images(60, 2), "test": images(80, 3)}
    return Asked(
        predictor=predictor, splits=splits, inputs=("image",), images=("image",), label="label", texts_only=False,
        reads="image", split="test", model="m", dataset="d@1",
    )  # fmt: skip


def test_both_simple_models_answer_and_the_better_one_is_the_baseline() -> None:
    found = fit_image_baseline(images(100, 1), images(60, 2), images(80, 3), ["image"], "label")  # the two differ
    truth = images(80, 3)["label"].to_pylist()
    (other,) = found.others
    assert {found.name, other} == {"logistic regression on pixels", "SVM on pixels"}
    reached = {name: max(one["validation_accuracy"] for one in found.tried if str(one["model"]).startswith(name))
               for name in (found.name, other)}  # fmt: skip
    assert reached[found.name] >= reached[other] > 0.5
    for answers in (found.predictions, found.others[other]):
        assert np.mean(np.array(answers) == np.array(truth)) > 0.6
    one_class = images(40, 1).filter(np.array(images(40, 1)["label"].to_pylist()) == "bar")
    assert set(fit_image_baseline(one_class, one_class, images(9, 3), ["image"], "label").predictions) == {"bar"}


def test_an_evaluation_of_pictures_tells_both_simple_models_and_shows_mistakes(tmp_path: Path) -> None:
    predictor = trained("cnn", tmp_path, steps=3)  # hardly trained, so that it is wrong somewhere
    metrics = load_kind("classification").evaluate(asked(predictor), tmp_path / "evaluation", lambda *_: None)
    written = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert written["baseline"]["name"].endswith("on pixels") and len(written["others"]) == 1
    assert metrics["model"]["accuracy"]["value"] < 1 and metrics["rows"] == 80
    (shown,) = written["pictures"]
    Image.open(tmp_path / "evaluation" / shown["file"]).verify()


def test_a_request_is_answered_as_the_dataset_was_whatever_way_it_comes(tmp_path: Path) -> None:
    predictor = trained("cnn", tmp_path, calibrate="temperature")
    array = table_arrays(images(5, 3), "image")[2]
    Image.fromarray(array).save(tmp_path / "one.png")
    ways = [array, tmp_path / "one.png", (tmp_path / "one.png").read_bytes(), Image.fromarray(array)]
    first, *others = predictor([{"image": way} for way in ways])
    for other in others:
        assert other["scores"] == pytest.approx(first["scores"], abs=1e-6)
    assert predictor.temperature != 1 and sum(first["scores"].values()) == pytest.approx(1)
    with pytest.raises(WrongInput, match="image: 3 bytes are no picture"):
        predictor([{"image": b"abc"}])


def test_a_transformer_begins_from_masked_modelling_with_all_of_its_encoder(tmp_path: Path) -> None:
    trained("mim", tmp_path / "mim", steps=5)
    base = tmp_path / "mim" / "model"
    task = open_recipe("vit", tmp_path / "vit", sources={"base": base}).build()
    kept = load_recipe("mim").load_predictor(base).model.vit.state_dict()
    own = task.body.encoder.state_dict()
    assert own.keys() == kept.keys() and all(torch.equal(value, kept[key]) for key, value in own.items())
    assert task.body.encoder.embeddings.position_embeddings.requires_grad
    random = open_recipe("vit", tmp_path / "vit").build()
    assert not torch.equal(random.state_dict()["body.encoder.layers.0.mlp.fc1.weight"], own["layers.0.mlp.fc1.weight"])


def test_a_base_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    trained("mim", tmp_path / "mim", steps=1)
    base = tmp_path / "mim" / "model"
    for settings, said in (
        ({"image_size": 16}, "settings.image_size: 16, the base was trained on 8"),
        ({"channels": 3}, "settings.channels: 3, the base was trained on 1"),
    ):
        with pytest.raises(WrongInput, match=said):
            open_recipe("vit", tmp_path / "vit", sources={"base": base}, **settings).build()
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(WrongInput, match="holds a bert; give one of vit, vit_mae"):
        open_recipe("vit", tmp_path / "vit", sources={"base": base}).build()
    with pytest.raises(WrongInput, match=r"has no config\.json of a model"):
        open_recipe("vit", tmp_path / "vit", sources={"base": tmp_path}).build()


@pytest.mark.parametrize("normalise", [False, True])
def test_masked_modelling_counts_hidden_patches_alone(normalise: bool, tmp_path: Path) -> None:
    """Against the loss written out: what is seen costs nothing, each hidden patch the mean over its pixels."""
    recipe = open_recipe("mim", tmp_path, masking_rate=0.6, normalise_patches=normalise)
    torch.manual_seed(0)
    task = recipe.build()
    index = np.arange(12)
    batch = recipe.batch("train", index, SampleKeys.of(0, index * 0, index))
    hidden = torch.argsort(torch.argsort(batch["noise"], 1), 1) >= 6  # of 16 patches int(16 x 0.4) are seen
    assert task.counts(batch) == {"mim_loss": float(hidden.sum())} and int(hidden.sum()) == 12 * 10
    found = task.model(batch["pixels"], noise=batch["noise"])
    target = batch["pixels"].unfold(2, 2, 2).unfold(3, 2, 2).reshape(12, 16, 4)  # rows of patches, then columns
    if normalise:
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    expected = ((found.logits - target).square().mean(-1) * hidden).sum()
    assert float(task(batch)["mim_loss"].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_a_fresh_masked_autoencoder_tells_one_place_from_another(tmp_path: Path) -> None:
    model = open_recipe("mim", tmp_path).build().model
    for places in (model.vit.embeddings.position_embeddings, model.decoder.decoder_pos_embed):
        assert len(torch.unique(places[0, 1:], dim=0)) == places.shape[1] - 1


@pytest.mark.parametrize("name", ["vit", "mim"])
def test_fresh_weights_are_spread_by_their_width(name: str, tmp_path: Path) -> None:
    """Xavier-uniform: a deviation of sqrt(2 / (in + out)), which is 0.18 for a width of 32 and not 0.02."""
    layers = [one for one in open_recipe(name, tmp_path).build().modules() if isinstance(one, torch.nn.Linear)]
    inner = [one for one in layers if min(one.weight.shape) >= 32]  # neither the head nor what begins at 0
    assert len(inner) > 8
    for one in inner:
        assert float(one.weight.detach().std()) == pytest.approx((2 / sum(one.weight.shape)) ** 0.5, rel=0.1)


@pytest.mark.parametrize("name", ["vit", "cnn", "mim"])
def test_a_contract_without_one_picture_as_input_is_refused(name: str, tmp_path: Path) -> None:
    kind = settings_class(name)
    splits = dict.fromkeys(("train", "validation", "test"), images(20, 1))
    two = CONTRACTS["image-caption"]
    for contract, said in (
        (two, "slipway.inputs is image, caption; this recipe reads one column"),
        (ExampleContract(inputs=("caption",), images=("image",)), "slipway.inputs is caption"),
    ):
        recipe = load_recipe(name).Recipe(kind(**kind.presets["tiny"]), {})
        with pytest.raises(WrongInput, match=said):
            recipe.prepare(splits, contract, tmp_path, lambda note: None)


def test_settings_that_do_not_fit_each_other_say_how_they_would() -> None:
    with pytest.raises(ValueError, match="image_size 10 is no multiple of patch_size 4; write image_size 12"):
        settings_class("vit").model_validate({"image_size": 10, "patch_size": 4})
    with pytest.raises(ValueError, match="hidden_size 30 is no multiple of num_heads 4"):
        settings_class("vit").model_validate({"image_size": 8, "patch_size": 2, "hidden_size": 30})
