"""A person's way: train twice, review, approve in another process, promote, also through Prefect, roll back."""

import json
import subprocess
import time
import urllib.request
from typing import Any

import pytest

from flows.orchestration.server import prefect_server
from infra.settings import Settings
from tests.flows.shop import EXPERIMENT, SLIPWAY, Shop

SMALL = ("--set", "workers=1", "--set", "epochs=4")


class Person:
    """Somebody with a key folder of their own, in the same workspace."""

    def __init__(self, shop: Shop, name: str):
        self.shop, self.name = shop, name
        self.environment = {
            **shop.environment,
            "SLIPWAY_AUTHOR": name,
            "SLIPWAY_KEYS": str(shop.folder.parent / "keys" / name),
        }

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        before, self.shop.environment = self.shop.environment, self.environment
        try:
            return self.shop.run(*arguments, code=code)
        finally:
            self.shop.environment = before

    def ask(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, ray_address: str) -> Shop:
    return Shop(tmp_path_factory.mktemp("reviewers") / "shop", ray_address)


def alias(shop: Shop) -> int:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{shop.folder}/.slipway/mlflow.db")
    return int(client.get_model_version_by_alias("reviews", "champion").version)


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


@pytest.mark.slow
def test_a_persons_way(shop: Shop) -> None:
    ada, bob, eve = (Person(shop, name) for name in ("ada", "bob", "eve"))
    public = {one.name: one.ask("keygen", one.name)["public"] for one in (ada, bob, eve)}
    policy = {"policy": "approvals", "approvals": 1, "reviewers": {"bob": public["bob"]}}
    (shop.folder / "reviews.yaml").write_text(f"{EXPERIMENT}promotion: {json.dumps(policy)}\n")
    ada.ask("data", "register", "reviews.odcs.yaml")
    assert "nobody can satisfy" in bob.run("train", "reviews", *SMALL, code=3).stderr, "before anything is trained"
    assert ada.ask("train", "reviews", *SMALL)["model"] == "reviews/1"

    # The first one by the command line.
    assert "has not been gated" in ada.run("promote", "reviews", code=3).stderr
    assert ada.ask("review", "reviews") == []
    ada.ask("gate", "reviews")
    (opened,) = bob.ask("review", "reviews")
    assert (opened["model"], opened["author"], opened["approved"]) == ("reviews/1", "ada", [])
    assert "has 0 of 1 approvals" in ada.run("promote", "reviews", code=3).stderr
    assert "none of its keys" in eve.run("approve", "reviews", "--reason", "me too", code=2).stderr
    assert (
        "its key is not of the policy" in eve.run("approve", "reviews", "--reason", "x", "--key", "eve", code=3).stderr
    )
    assert bob.ask("approve", "reviews/1", "--reason", "reads well")["reviewer"] == "bob"
    assert ada.ask("review", "reviews")[0]["approved"] == ["bob"]
    assert ada.ask("promote", "reviews")["entry"] == 2
    assert ada.ask("champion", "reviews")["version"] == alias(shop) == 1

    # The second one through Prefect: the flow waits in one process, the statement comes from another.
    ada.ask("train", "reviews", *SMALL, "--set", "seed=5")
    ada.ask("gate", "reviews")
    wrong = json.dumps({"format": 1, "statement": {"format": 1, "key": public["bob"]}, "signature": "AAAA"})
    signed = bob.run("approve", "reviews/2", "--reason", "better still", "--print").stdout
    with prefect_server(Settings(workspace=str(shop.folder / ".slipway"))) as address:
        waiting = subprocess.Popen(
            [str(SLIPWAY), "promote", "reviews", "--wait"], cwd=shop.folder,
            env={**ada.environment, "SLIPWAY_PREFECT_API": address}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        for statement in (wrong, signed):
            deadline = time.monotonic() + 240
            while not (
                paused := post(f"{address}/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}}})
            ):
                assert waiting.poll() is None and time.monotonic() < deadline
                time.sleep(0.5)
            said = post(f"{address}/flow_runs/{paused[0]['id']}/resume", {"run_input": {"statement": statement}})
            assert said["status"] == "ACCEPT"
        assert waiting.stderr
        log = waiting.stderr.read()
        assert waiting.wait(240) == 0, log
    assert "the signature is not of what it says" in log and "has 0 of 1 approvals" in log
    assert ada.ask("champion", "reviews")["version"] == alias(shop) == 2

    # Back, signed by a reviewer; nobody else may.
    back = ("rollback", "reviews", "--to", "previous", "--reason", "slower")
    assert "has 0 of 1 approvals for its rollback" in ada.run(*back, code=3).stderr
    assert bob.ask(*back)["model"] == "reviews/1"
    assert ada.ask("champion", "reviews")["version"] == alias(shop) == 1
    entries = ada.ask("history", "reviews")
    assert [one["kind"] for one in reversed(entries)] == ["approval", "promotion"] * 2 + ["approval", "rollback"]
    assert ada.ask("champion", "reviews", "--at", entries[1]["time"])["version"] == 2
    assert ada.ask("verify", "reviews") == [{"model": "reviews", "entries": 6, "problems": []}]

    # The policy is out of reach of who edits the file.
    (shop.folder / "reviews.yaml").write_text(EXPERIMENT)
    assert ada.ask("policy", "reviews")["in_force"]["policy"] == "approvals"
    assert "0 of 1 approvals" in ada.run("policy", "reviews", "--change", "--reason", "hurry", code=3).stderr
    bob.ask("approve", "reviews", "--policy", "--reason", "no reviewers needed here")
    assert ada.ask("policy", "reviews", "--change", "--reason", "agreed")["in_force"]["policy"] == "automatic"

    # One byte, and nothing is loaded or promoted.
    assert ada.ask("predict", "reviews", "a lovely tasty thing5")["answers"][0]["label"] == "good"
    model = ada.ask("champion", "reviews")["model"]
    weights = shop.folder / ".slipway" / "store" / "models" / model / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for command in (("predict", "reviews", "x"), ("verify", "reviews")):
        said_no = ada.run(*command, code=3)
        assert "altered" in said_no.stderr + said_no.stdout
