"""A temperature asked for is fitted to the validation split, packaged, and changes no answer."""

import math

import numpy as np
import pytest
import torch

from infra.errors import WrongInput
from tests.training.examples import open_recipe
from training.recipes.text_classifier import LabelPredictor
from training.temperature import fit_temperature
from training.text import read_json


def packaged(folder, stretched=6.0, **settings):
    """A predictor saved with these settings, its head stretched so that it is far too sure; and its recipe."""
    recipe = open_recipe("text_classifier", folder / "prepared", **settings)
    torch.manual_seed(0)
    model = recipe.build()
    with torch.no_grad():
        for value in model.head.parameters():
            value *= stretched
    model.train()  # as it comes out of the loop: what is fitted must not see dropout
    (folder / "model").mkdir()
    recipe.save(model, folder / "model")
    return LabelPredictor(folder / "model"), recipe, model


def test_the_packaged_predictor_divides_by_the_temperature_fitted_on_validation(tmp_path):
    (tmp_path / "plain").mkdir(), (tmp_path / "fitted").mkdir()
    plain, _, _ = packaged(tmp_path / "plain")
    fitted, recipe, model = packaged(tmp_path / "fitted", calibrate="temperature")
    assert plain.temperature == 1.0 and "temperature" not in read_json(tmp_path / "plain" / "model" / "recipe.json")

    rows = recipe.rows["validation"]
    logits = []
    with torch.inference_mode():
        for row in rows:  # one by one: no packing, no grouping by length
            from training.text import pack

            logits.append(model.eval().logits(pack(recipe.files["validation"].tokens, np.array([row])))[0].numpy())
    expected = fit_temperature(np.array(logits, dtype=float), recipe.labels["validation"][rows])
    assert fitted.temperature == pytest.approx(expected, rel=1e-3) and fitted.temperature > 1.5

    asked = [dict.fromkeys(recipe.report["inputs"], text) for text in ("one text", "and quite another one", "a b")]
    before, after = plain.probabilities(asked), fitted.probabilities(asked)
    assert (before.argmax(1) == after.argmax(1)).all()
    assert np.log(before) / fitted.temperature - np.log(after) == pytest.approx(
        np.repeat((np.log(before) / fitted.temperature - np.log(after))[:, :1], before.shape[1], axis=1), abs=1e-5
    )
    assert (after.max(1) < before.max(1)).all() and math.isclose(after[0].sum(), 1, rel_tol=1e-9)


def test_without_a_validation_split_a_temperature_is_refused_before_training(tmp_path):
    recipe = open_recipe("text_classifier", tmp_path, calibrate="temperature")
    recipe.rows["validation"] = np.empty(0, dtype=int)
    with pytest.raises(WrongInput, match=r"settings\.calibrate: there is no validation split"):
        recipe.build()
