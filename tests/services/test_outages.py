"""One retrain while everything it stands on fails: the digests of the quiet run, each metric once."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra import tracking
from infra.settings import Settings
from infra.store import S3Store
from tests.flows.shop import SLIPWAY, Shop
from tests.services.fault_proxy import FaultProxy, share
from tests.services.postgres import Postgres
from tests.services.servers import Server, mlflow_server, prefect_server, unused_port
from tests.services.test_s3_workspace import digests, outputs_of
from training.run_log import RunLog, read_state, read_tail, run_names

MLFLOW_AWAY_S = 180
RESTARTS_AFTER_S = (5, 25, 50, 80)
"""Since the training began. The fifth is when MLflow has come back and is told what it missed."""
EXPERIMENT = """\
recipe: text_classifier
dataset: reviews
settings: {vocab_size: 300, max_length: 24, hidden_size: 32, intermediate_size: 64}
training: {steps: 800, batch_size: 32, learning_rate: 1.0e-3, checkpoint_every_steps: 100, validate_every: 20}
scaling: {workers: 2}
contract: reviews.odcs.yaml
gates:
  threshold: {metric: accuracy, minimum: 0.8}
  package: {}
"""


class Scene:
    """A user's folder with everything in the workspace; `move` puts it into S3 and onto servers."""

    def __init__(self, folder: Path):
        self.shop = Shop(folder, "")
        (self.shop.folder / "reviews.yaml").write_text(EXPERIMENT)
        self.settings = Settings(workspace=str(folder / ".slipway"))

    def move(self, endpoint: str, bucket: str, mlflow: int, prefect: int) -> None:
        self.settings = replace(self.settings, store=f"s3://{bucket}/store", tracking_uri=f"http://127.0.0.1:{mlflow}")
        self.shop.environment |= {
            "AWS_ENDPOINT_URL_S3": endpoint,
            "SLIPWAY_STORE": self.settings.store,
            "SLIPWAY_ARTIFACTS": f"s3://{bucket}/mlflow",
            "SLIPWAY_TRACKING_URI": self.settings.tracking_uri,
            "SLIPWAY_PREFECT_API": f"http://127.0.0.1:{prefect}/api",
        }

    def retrain(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [str(SLIPWAY), "retrain", "reviews", "--json"], cwd=self.shop.folder, env=self.shop.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def result(self, child: "subprocess.Popen[str]") -> dict[str, Any]:
        import json

        out, err = child.communicate(timeout=1800)
        assert child.returncode == 0, err[-3000:]
        outputs = outputs_of(json.loads(out)["steps"])
        return {**digests(self.settings, outputs), "run": outputs["train"]["run"]}

    def metrics(self, run: str) -> dict[str, int]:
        """MLflow's points against the run log's."""
        state = read_state(RunLog(self.settings.object_store, run))
        found = {"runs": 0, "metrics": 0, "points": 0, "lost": 0, "doubled": 0}
        for name, points in state.curves().items():
            histories = tracking.metric_history(self.settings, "reviews", run, name)
            there = [step for history in histories.values() for step, _ in history]
            found["runs"] = max(found["runs"], len(histories))
            found["metrics"] += 1
            found["points"] += len(points)
            found["lost"] += len({step for step, _ in points} - set(there))
            found["doubled"] += len(there) - len(set(there))
        return found


def trouble(scene: Scene, child: "subprocess.Popen[str]", postgres: Postgres, mlflow: Server, told: list[str]) -> None:
    store = scene.settings.object_store
    _until(lambda: any(read_tail(RunLog(store, run)).step for run in run_names(store)), child)
    began = time.monotonic()
    mlflow.kill()
    for after in RESTARTS_AFTER_S:
        time.sleep(max(0.0, began + after - time.monotonic()))
        postgres.restart()
    time.sleep(max(0.0, began + MLFLOW_AWAY_S - time.monotonic()))
    told.append(f"MLflow was away for {time.monotonic() - began:.0f} s")
    mlflow.start()
    postgres.restart()
    told.append(f"at the fifth restart the run was {'over' if child.poll() is not None else 'going on'}")


def _until(condition: Callable[[], bool], child: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 1500
    while not condition():
        assert child.poll() is None and time.monotonic() < deadline, "the training did not begin"
        time.sleep(0.5)


@pytest.mark.slow
def test_a_retrain_through_outages_ends_in_the_digests_of_the_quiet_one_with_each_metric_once(
    tmp_path: Path, s3_store: S3Store, s3_address: str, postgres: Postgres
) -> None:
    quiet, scene = Scene(tmp_path / "quiet"), Scene(tmp_path / "drill")
    undisturbed = quiet.retrain()  # on a folder, beside the other: they share nothing
    ports = {"mlflow": unused_port(), "prefect": unused_port()}
    told: list[str] = []
    with (
        mlflow_server(tmp_path, ports["mlflow"], postgres.create("mlflow"), f"s3://{s3_store.bucket}/x") as mlflow,
        prefect_server(tmp_path, ports["prefect"], postgres.create("prefect")),
        FaultProxy(s3_address, share(0.1)) as proxy,
    ):
        scene.move(proxy.address, s3_store.bucket, **ports)
        child = scene.retrain()
        faults = threading.Thread(target=trouble, args=(scene, child, postgres, mlflow, told))
        faults.start()
        try:
            found = scene.result(child)
            faults.join()
            expected = quiet.result(undisturbed)
        finally:
            for one in (child, undisturbed):
                if one.poll() is None:
                    os.killpg(one.pid, signal.SIGKILL)
        counted = scene.metrics(found["run"])
        flows = postgres.ask("prefect", "select state_type from flow_run")
    print({"counts": counted, "s3": dict(proxy.counts), "told": told, "flows": flows, "restarts": postgres.restarts})
    print(found)  # pytest -rP shows it
    assert found == expected
    assert (counted["runs"], counted["lost"], counted["doubled"]) == (1, 0, 0) and counted["points"] > 800
    assert postgres.restarts == 5 and told[-1].endswith("going on")
    assert 0.05 < proxy.failed / proxy.counts["requests"] < 0.15
    assert flows == ["COMPLETED"]
