"""A workspace in S3: the same commands, the same digests as in a folder. On another server: see `make test-s3`."""

from pathlib import Path
from typing import Any

import pytest

from infra import artifacts
from infra.settings import Settings
from infra.store import S3Store
from tests.flows.shop import Shop
from training.experiment import Experiment
from training.launch import Request
from training.run_log import RunLog, read_state

EXPERIMENT = """\
recipe: text_classifier
dataset: reviews
settings: {vocab_size: 300, max_length: 24, hidden_size: 32, intermediate_size: 64}
training: {steps: 12, batch_size: 32, checkpoint_every_steps: 4}
contract: reviews.odcs.yaml
"""


def outputs_of(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Step kind -> what it gave."""
    return {one["step"].split()[0]: one["output"] for one in steps}


def digests(settings: Settings, outputs: dict[str, Any]) -> dict[str, Any]:
    """Of the data, of what was prepared of it, and of every file of the model: weights, configuration, tokenizer."""
    model = artifacts.load(settings.object_store, "models", outputs["train"]["model"])
    return {
        "dataset": outputs["register"]["ref"],
        "prepared": outputs["prepare"]["prepared"],
        **{name: facts["sha256"] for name, facts in model.files.items()},
    }


def train_here(settings: Settings, experiment: Experiment, outputs: dict[str, Any]) -> None:
    """What a Ray worker does, in this process."""
    from training.sharding import World
    from training.worker import work_in

    request = Request(
        experiment=experiment, key="0" * 64, prepared=outputs["prepare"]["prepared"], sources={}, facts={}
    )
    log = RunLog(settings.object_store, "reviews-1")
    log.append("run", experiment=experiment.model_dump(mode="json", by_alias=True), key=request.key, author="ada")
    work_in(request.for_worker(settings, log.run, over=0, driver="here"), World())
    outputs["train"] = {"model": read_state(log).ending["model"]}


def test_data_and_training_give_the_same_bytes_on_s3_as_in_a_folder(
    tmp_path: Path, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.config import load_config
    from flows.graph import build_graph
    from flows.retrain import run_steps

    shop = Shop(tmp_path / "shop", "")
    monkeypatch.chdir(shop.folder)
    monkeypatch.setenv("HOME", str(tmp_path))  # where a worker keeps what it fetched
    (shop.folder / "reviews.yaml").write_text(EXPERIMENT)
    experiment = load_config("reviews")
    places = {
        "folder": Settings(workspace=str(tmp_path / "one")),
        "s3": Settings(workspace=str(tmp_path / "other"), store=s3_store.uri),
    }
    found = {}
    for name, settings in places.items():
        settings.create_workspace()
        steps = [step for step in build_graph(settings, experiment, until="train") if step.kind != "train"]
        outputs = outputs_of(run_steps(settings, steps, "reviews", whole_way=False).to_json())
        train_here(settings, experiment, outputs)
        found[name] = digests(settings, outputs)
    print(found)  # pytest -rP shows it
    assert found["s3"] == found["folder"]
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(found["s3"])
    here = [path.name for path in places["s3"].folder.rglob("*.safetensors") if "cache" not in path.parts]
    assert here == [], "the workspace's folder holds a cache and databases, and no model"


@pytest.mark.slow
def test_the_whole_way_by_the_command_is_the_same_on_s3_and_the_champion_answers_from_there(
    tmp_path: Path, s3_store: S3Store
) -> None:
    found = {}
    for name in ("folder", "s3"):
        shop = Shop(tmp_path / name, "")
        if name == "s3":
            shop.environment |= {"SLIPWAY_STORE": s3_store.uri, "SLIPWAY_ARTIFACTS": f"s3://{s3_store.bucket}/mlflow"}
        with (shop.folder / "reviews.yaml").open("a") as file:
            file.write("contract: reviews.odcs.yaml\n")
        outputs = outputs_of(shop.ask("retrain", "reviews")["steps"])
        assert outputs["promote"]["promoted"]
        uri = shop.environment.get("SLIPWAY_STORE", "")
        found[name] = digests(Settings(workspace=str(shop.folder / ".slipway"), store=uri), outputs)
        answers = shop.ask("predict", "reviews", "lovely tasty kind")
        found[name]["answer"] = answers
        assert all(one["status"] == "cached" for one in shop.ask("retrain", "reviews")["steps"])
    kept = s3_store.client.list_objects_v2(Bucket=s3_store.bucket, Prefix="mlflow/")["Contents"]
    assert any(item["Key"].endswith("model.safetensors") for item in kept), "MLflow's package is in S3 too"
    print(found)  # pytest -rP shows it
    assert found["s3"] == found["folder"]
