"""A withdrawn dataset version trains nothing and promotes nothing, and the models trained on it are named."""

import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from data_contracts.withdrawal import withdraw
from flows import references
from flows.cli import cli
from flows.prepare import prepare_step
from flows.promotion import decisions as promotion
from flows.steps import decide, execute
from flows.train import train_step
from infra.errors import Refused
from infra.progress import Progress


def test_a_model_of_a_withdrawn_version_is_not_promoted(world):
    candidate = world.candidate()
    card = world.scorecard(candidate)
    withdraw(world.store, world.dataset("old"), "ann", "scraped without consent")
    with pytest.raises(Refused, match=r"dataset animals@.*: was withdrawn by ann on .*: scraped without consent"):
        promotion.promote(world.store, references.resolve(world.store, candidate.ref), card, author="mel")
    assert promotion.read_log(world.store, "animals") == []


@pytest.mark.parametrize("make", [prepare_step, train_step])
def test_a_withdrawn_version_is_not_trained_on(world, make, monkeypatch):
    for module in ("prepare", "train"):
        monkeypatch.setattr(f"flows.{module}.read_sources", lambda *_: {})
    experiment = SimpleNamespace(
        name="one",
        recipe="text_classifier",
        dataset=world.references["old"],
        dataset_name="animals",
        scaling=SimpleNamespace(workers=1, gpus_per_worker=0),
    )
    withdraw(world.store, world.dataset("old"), "ann", "wrong")
    step = make(world.settings, experiment, ())
    prepared = {"prepare one": {"prepared": "of old"}}
    for use in (
        lambda: decide(world.store, step, prepared),
        lambda: execute(world.store, step, prepared, Progress("")),
    ):
        with pytest.raises(Refused, match="was withdrawn by ann"):
            use()


def test_the_command_names_the_models(world, monkeypatch, capsys):
    first, second, other = world.candidate(), world.candidate(), world.candidate(dataset="other")
    world.promote(first)
    monkeypatch.setenv("SLIPWAY_STORE", world.store.uri)
    monkeypatch.setenv("SLIPWAY_WORKSPACE", world.settings.workspace)
    monkeypatch.setenv("SLIPWAY_AUTHOR", "ann")
    arguments = ["data", "withdraw", world.references["old"], "--reason", "no consent"]
    done = CliRunner().invoke(cli, [*arguments, "--json"])
    body = json.loads(done.stdout)
    assert body["models"] == [
        {"model": first.ref, "champion": True},
        {"model": second.ref, "champion": False},
    ]
    assert (body["who"], body["reason"], body["written"]) == ("ann", "no consent", True)
    again = CliRunner().invoke(cli, arguments)
    assert "was withdrawn by ann" in again.stdout and "is champion" in again.stdout
    assert other.ref not in again.stdout
