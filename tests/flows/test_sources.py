"""A role of `from:` that names a model registered here."""

from pathlib import Path

import pytest

from flows.graph import build_graph
from flows.models import add_version
from flows.sources import Source, read_sources
from infra.errors import WrongInput
from infra.settings import Settings
from training.experiment import Experiment, validate_experiment


def _register(settings: Settings, name: str, model: str) -> None:
    fields = ("package", "package_digest", "dataset", "author", "created")
    add_version(
        settings.object_store, name=name, run=f"{name}-{model}", experiment={}, model=model, **dict.fromkeys(fields, "")
    )


def _from(base: str) -> Experiment:
    body = {"name": "e", "recipe": "text_classifier", "dataset": "d", "training": {"epochs": 1}}
    return validate_experiment({**body, "from": {"base": base}}, "e")


def test_a_version_is_named_by_number_or_alias(tmp_path: Path) -> None:
    settings = Settings(workspace=str(tmp_path))
    for model in ("first", "second"):
        _register(settings, "reviews", model)
    for reference, model in (("reviews/1", "first"), ("reviews/2", "second"), ("reviews@candidate", "second")):
        assert read_sources(settings, _from(reference)) == {"base": Source("base", model=model)}
    with pytest.raises(WrongInput, match="no version 3; there is: 1 to 2"):
        read_sources(settings, _from("reviews/3"))
    with pytest.raises(WrongInput, match=r"from\.base: EXPERIMENT stands for a name; write that"):
        read_sources(settings, _from("EXPERIMENT"))


def test_where_an_experiment_below_cannot_train_the_model_that_there_is_of_it_is_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("below.yaml").write_text(
        "recipe: text_classifier\ndataset: d\nfrom: {base: ./nowhere}\ntraining: {epochs: 1}\n"
    )
    settings = Settings(workspace=str(tmp_path))
    with pytest.raises(WrongInput, match=r"experiment below: from\.base: './nowhere' is no folder.* files$"):
        build_graph(settings, _from("below"))
    _register(settings, "below", "first")
    with pytest.raises(WrongInput, match=r"files; or give e the model of it that there is: --set base=below/1$"):
        build_graph(settings, _from("below"))
