"""`slipway up` with MLflow's and Prefect's own servers and the runner of schedules."""

import os
import signal
from pathlib import Path

import pytest

from infra import services
from infra.reach import ask
from tests.flows.shop import Shop

pytestmark = pytest.mark.slow


def living(workspace: Path) -> set[int]:
    return {one.pid for name in services.TITLES for one in services.members(workspace, name)}


def test_the_servers_start_once_are_found_by_every_command_and_end_whole(tmp_path: Path, free_port: int) -> None:
    shop = Shop(tmp_path / "shop", "")
    workspace = shop.folder / ".slipway"
    try:
        first = {one["name"]: one for one in shop.ask("up", "--mlflow-port", str(free_port))["services"]}
        assert first.keys() == {"mlflow", "prefect", "runner"}
        assert first["mlflow"]["url"] == f"http://127.0.0.1:{free_port}"
        assert b"MLflow" in ask(first["mlflow"]["url"], timeout_s=30).body
        assert b"Prefect" in ask(first["prefect"]["url"], timeout_s=30).body
        before = living(workspace)

        again = {one["name"]: one for one in shop.ask("up")["services"]}
        assert [one["started_in_s"] for one in again.values()] == [None] * 3
        assert {name: one["pid"] for name, one in again.items()} == {name: one["pid"] for name, one in first.items()}
        assert living(workspace) == before

        assert [one["state"] for one in shop.ask("status")["services"]] == ["runs"] * 3
        found = {one["check"]: one for one in shop.ask("doctor")}
        assert first["prefect"]["url"] in found["prefect"]["found"]

        os.kill(first["mlflow"]["pid"], signal.SIGKILL)
        states = {one["name"]: one["state"] for one in shop.ask("status")["services"]}
        assert states == {"mlflow": "died", "prefect": "runs", "runner": "runs"}
        third = {one["name"]: one for one in shop.ask("up", "--mlflow-port", str(free_port))["services"]}
        assert [name for name, one in third.items() if one["started_in_s"] is not None] == ["mlflow"]
    finally:
        stopped = shop.ask("down")["stopped"]
    assert set(stopped) == {"mlflow", "prefect", "runner"}
    assert living(workspace) == set()
