"""Drafts of experiments train as they are; what they show as defaults are the defaults; the schema says the same."""

import re

import jsonschema
import pytest
import yaml

from data_contracts import registry
from data_contracts.contract import parse_contract
from flows.config import load_config
from flows.experiment_draft import draft_experiment
from flows.experiment_schema import experiment_schema
from infra.errors import WrongInput
from infra.progress import Progress
from infra.store import open_store
from training.experiment import validate_experiment
from training.recipe import recipe_names

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


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_draft_is_a_valid_experiment_and_so_says_the_schema(shop, recipe, tmp_path):
    text = draft_experiment(shop, recipe, "reviews")
    (tmp_path / "drafted.yaml").write_text(text, encoding="utf-8")
    assert load_config("drafted").recipe == recipe
    body = {name: value for name, value in yaml.safe_load(text).items() if value is not None}
    jsonschema.validate(body, experiment_schema(recipe))
    with pytest.raises(jsonschema.ValidationError, match="epoch"):  # no field of that name, or only the seed
        jsonschema.validate({**body, "training": {"epoch": 1}}, experiment_schema(recipe))


@pytest.mark.parametrize("recipe", recipe_names())
def test_uncommenting_the_defaults_changes_nothing(shop, recipe):
    text = draft_experiment(shop, recipe, "reviews")
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
