"""Drafts of experiments train as they are; what they show as defaults are the defaults; the schema says the same."""

import re

import jsonschema
import pytest
import yaml
from PIL import Image

from data_contracts import registry
from data_contracts.contract import parse_contract
from flows.config import load_config
from flows.experiment_draft import draft_experiment
from flows.experiment_schema import experiment_schema
from infra.errors import WrongInput
from infra.progress import Progress
from infra.store import open_store
from training.experiment import validate_experiment
from training.recipe import recipe_names, settings_class

CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: reviews
version: 1.0.0
status: active
servers: [{server: files, type: local, path: reviews.csv, format: csv}]
schema:
  - name: reviews
    properties:
      - {name: text, logicalType: string, required: true}
      - {name: label, logicalType: string, required: true}
"""
PICTURES = """
apiVersion: v3.1.0
kind: DataContract
id: NAME
version: 1.0.0
status: active
servers:
  - {server: files, type: custom, path: ., customProperties: [
      {property: slipway.source, value: images}, {property: slipway.files, value: [pictures.csv]}]}
schema:
  - name: pictures
    properties:
      - name: image
        physicalName: file
        logicalType: string
        customProperties: [{property: slipway.type, value: image}]
      - {name: text, logicalType: string, required: true}
      - {name: label, logicalType: string, required: true}
customProperties:
  - {property: slipway.inputs, value: INPUTS}
  - {property: slipway.label, value: label}
  - {property: slipway.split, value: {test: 0.2, validation: 0.2}}
"""
LABEL = "customProperties: [{property: slipway.label, value: label}]\n"


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A store with the datasets `reviews` (three labels, one in half of the rows) and `unlabelled`."""
    monkeypatch.chdir(tmp_path)
    rows = [f"text number {number},{'good' if number % 2 else 'bad' if number % 4 else 'so'}" for number in range(200)]
    (tmp_path / "reviews.csv").write_text("text,label\n" + "\n".join(rows), encoding="utf-8")
    store = open_store((tmp_path / "store").as_uri())
    for text in (CONTRACT + LABEL, CONTRACT.replace("id: reviews", "id: unlabelled")):
        registry.register(store, parse_contract(text, "c.odcs.yaml"), None, Progress("test"))
    return store


@pytest.fixture
def dataset(shop, tmp_path, request):
    """The name of a dataset with what the recipe `request.param` reads."""
    reads = settings_class(request.param).reads
    return request.param, album(shop, tmp_path, reads) if reads.startswith("image") else "reviews"


def album(store, folder, reads):
    """Registers 30 pictures, alone or with their captions as inputs."""
    rows = [f"{number}.png,picture {number},{'good' if number % 2 else 'bad'}" for number in range(30)]
    (folder / "pictures.csv").write_text("file,text,label\n" + "\n".join(rows), encoding="utf-8")
    for number in range(30):
        Image.new("L", (2, 2), number).save(folder / f"{number}.png")
    inputs = "[image, text]" if reads == "image-caption" else "[image]"
    text = PICTURES.replace("NAME", reads).replace("INPUTS", inputs)
    registry.register(store, parse_contract(text, str(folder / "c.odcs.yaml")), None, Progress("test"))
    return reads


@pytest.mark.parametrize("dataset", recipe_names(), indirect=True)
def test_a_draft_is_a_valid_experiment_and_so_says_the_schema(shop, dataset, tmp_path):
    recipe, name = dataset
    text = draft_experiment(shop, recipe, name)
    (tmp_path / "drafted.yaml").write_text(text, encoding="utf-8")
    assert load_config("drafted").recipe == recipe
    body = {name: value for name, value in yaml.safe_load(text).items() if value is not None}
    jsonschema.validate(body, experiment_schema(recipe))
    with pytest.raises(jsonschema.ValidationError, match="epoch"):  # no field of that name, or only the seed
        jsonschema.validate({**body, "training": {"epoch": 1}}, experiment_schema(recipe))


@pytest.mark.parametrize("dataset", recipe_names(), indirect=True)
def test_uncommenting_the_defaults_changes_nothing(shop, dataset):
    text = draft_experiment(shop, *dataset)
    body = yaml.safe_load(text)
    uncommented = re.sub(r"(?m)^  #(?=\w+: (?!EXPERIMENT))", "  ", text)
    shown = yaml.safe_load(uncommented)
    assert len(shown["settings"]) > len(body["settings"] or {})
    assert validate_experiment({"name": "x", **shown}, "x") == validate_experiment({"name": "x", **body}, "x")


def test_of_few_rows_a_draft_sees_more_epochs(shop):
    epochs = yaml.safe_load(draft_experiment(shop, "text_classifier", "reviews"))["training"]["epochs"]
    assert 19_000 < epochs * registry.resolve(shop, "reviews").counts["train"] <= 20_000


def test_the_drafted_minimum_is_above_what_guessing_reaches(shop):
    gates = yaml.safe_load(draft_experiment(shop, "text_classifier", "reviews"))["gates"]
    assert gates["threshold"] == {"metric": "accuracy", "minimum": pytest.approx(0.55)}


def test_a_recipe_that_needs_a_label_is_refused_on_data_without(shop):
    with pytest.raises(WrongInput, match=r"slipway\.label"):
        draft_experiment(shop, "text_classifier", "unlabelled")
    with pytest.raises(WrongInput, match="text_classifier"):
        draft_experiment(shop, "text_classifer", "reviews")


def test_a_recipe_is_refused_on_data_without_its_columns(shop, tmp_path):
    alone, captioned = album(shop, tmp_path, "image"), album(shop, tmp_path, "image-caption")
    way_out = "`slipway data draft FOLDER` writes such a contract of a folder with pictures and a list of files and"
    refused = {
        "clip": (alone, "reviews"),
        "dalle": (alone, "reviews"),
        "cnn": (captioned, "reviews"),
        "vit": (captioned, "reviews"),
        "mim": (captioned, "reviews"),
        "dvae": ("reviews",),
        "autoencoder": ("reviews",),
        "image_gpt": ("reviews",),
        "text_classifier": (alone, captioned),
        "bert_mlm": (alone, captioned),
        "gpt": (alone, captioned),
        "text_search": (alone, captioned),
        "sentence_embedding": (alone, captioned),
        "tabular": (alone, captioned),
    }
    for recipe, names in refused.items():
        reads = settings_class(recipe).reads
        wanted = {"image": f"{way_out} labels", "image-caption": f"{way_out} captions"}.get(reads, "no pictures")
        for name in names:
            found = ", ".join(registry.contract_of(shop, registry.resolve(shop, name)).inputs)
            with pytest.raises(WrongInput, match=rf"slipway\.inputs is {found}; this recipe reads .*{wanted}"):
                draft_experiment(shop, recipe, name)
    for recipe in ("cnn", "vit"):
        with pytest.raises(WrongInput, match="names no label"):
            draft_experiment(shop, recipe, "unlabelled")
    for recipe in ("dvae", "autoencoder", "image_gpt"):  # a caption beside the picture is left alone
        draft_experiment(shop, recipe, captioned)


def test_a_draft_takes_colour_and_size_from_the_pictures(shop, tmp_path):
    """Captions may name colours, and a model of grey pictures would never see them."""
    grey = yaml.safe_load(draft_experiment(shop, "clip", album(shop, tmp_path, "image-caption")))
    assert "channels" not in (grey["settings"] or {})
    for number in range(30):
        Image.new("RGB", (24, 24), (number, 0, 0)).save(tmp_path / f"{number}.png")
    coloured = PICTURES.replace("NAME", "coloured").replace("INPUTS", "[image, text]")
    registry.register(shop, parse_contract(coloured, str(tmp_path / "c.odcs.yaml")), None, Progress("test"))
    for recipe in ("clip", "dvae", "autoencoder"):
        settings = yaml.safe_load(draft_experiment(shop, recipe, "coloured"))["settings"]
        assert settings == {"channels": 3, "image_size": 24}
