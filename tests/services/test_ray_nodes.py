"""A Ray cluster of two nodes, one of them elsewhere: it sees nothing of this machine's workspace, and it is lost."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.settings import Settings
from infra.store import FolderStore, S3Store
from tests.flows.shop import SLIPWAY, Shop
from tests.services.ray_nodes import TOKEN, RayNodes, lose
from tests.services.servers import unused_port
from training.run_log import RunLog, RunState, read_state, read_tail, run_names

pytestmark = pytest.mark.slow
ELSEWHERE = "127.0.0.2"
"""Linux answers on all of 127.0.0.0/8, and no interface has this address: to Ray another machine."""
EXPERIMENT = """\
recipe: text_classifier
dataset: reviews
settings: {vocab_size: 300, max_length: 24, hidden_size: 32, intermediate_size: 64}
training: {steps: 800, batch_size: 32, learning_rate: 1.0e-3, checkpoint_every_steps: 50}
scaling: {workers: 2, max_failures: 3}
"""
OTHER_VERSION = "import sys, ray; ray.__version__ = '2.59.1'; from ray.scripts.scripts import main; sys.exit(main())"


def can_hide() -> bool:
    """Whether this user may give a child a view of the file system of its own."""
    if not shutil.which("unshare"):
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


@pytest.fixture
def nodes(s3_store: S3Store) -> Iterator[RayNodes]:
    """After the S3 server: nodes reach it by their own environment."""
    with RayNodes(unused_port()) as running:
        yield running


def customer(folder: Path, nodes: RayNodes) -> Shop:
    shop = Shop(folder, nodes.address)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):  # another test's cluster may have left them
        shop.environment.pop(name, None)
    shop.environment["SLIPWAY_RAY_TOKEN"] = TOKEN
    return shop


def train(shop: Shop, log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as sink:
        return subprocess.Popen(
            [str(SLIPWAY), "train", "reviews", "--json"], cwd=shop.folder, env=shop.environment,
            stdout=subprocess.PIPE, stderr=sink,
        )  # fmt: skip


def curves(state: RunState) -> dict[str, Any]:
    return {name: points for name, points in state.curves().items() if not name.startswith("system/")}


@pytest.mark.skipif(not can_hide(), reason="needs unshare --mount, as root")
def test_a_lost_node_is_replaced_and_the_weights_are_those_of_the_undisturbed_run(
    tmp_path: Path, s3_store: S3Store, nodes: RayNodes
) -> None:
    shop = customer(tmp_path / "shop", nodes)
    (shop.folder / "reviews.yaml").write_text(EXPERIMENT)
    shop.environment |= {"SLIPWAY_STORE": s3_store.uri, "SLIPWAY_LEDGER": ""}
    (shop.folder / ".slipway").mkdir()
    near = Shop(tmp_path / "near", "")  # the undisturbed one: a folder, and Ray on this machine alone
    (near.folder / "reviews.yaml").write_text(EXPERIMENT)
    near.ask("data", "register", "reviews.odcs.yaml")
    undisturbed = train(near, tmp_path / "near.log")
    node = nodes.add(ELSEWHERE, hide=shop.folder)
    shop.ask("data", "register", "reviews.odcs.yaml")
    store = Settings(workspace=str(shop.folder / ".slipway"), store=s3_store.uri).object_store

    child = train(shop, tmp_path / "log")
    state, deadline = RunState(""), time.monotonic() + 900
    while not state.checkpoints:
        assert child.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.2)
        state = next((read_tail(RunLog(store, run)) for run in run_names(store)), state)
    lose(node)
    lost_at = read_tail(RunLog(store, state.run)).step
    time.sleep(30)  # long enough to be told what is waited for
    nodes.add(ELSEWHERE, hide=shop.folder)
    out, _ = child.communicate(timeout=1200)
    said = (tmp_path / "log").read_text()
    assert child.returncode == 0, said
    calm, _ = undisturbed.communicate(timeout=1200)
    broken, quiet = json.loads(out), json.loads(calm)
    there = FolderStore(near.folder / ".slipway" / "store")
    ran, ran_quietly = read_state(RunLog(store, broken["run"])), read_state(RunLog(there, quiet["run"]))
    print({"lost_at": lost_at, "attempts": ran.attempt, "digest": broken["digest"], "quiet": quiet["digest"]})
    assert broken["digest"] == quiet["digest"]
    assert curves(ran) == curves(ran_quietly)
    assert ran_quietly.attempt == 1 and ran.attempt >= 2 and lost_at < 800
    assert "waiting for Ray: 2 workers of 1 CPU do not fit the cluster's 1 CPU on 1 node(s), where 1 do" in said


def test_a_folder_that_nodes_elsewhere_do_not_see_is_refused_unless_it_is_declared_shared(
    tmp_path: Path, nodes: RayNodes
) -> None:
    shop = customer(tmp_path / "shop", nodes)
    shop.ask("data", "register", "reviews.odcs.yaml")
    nodes.add(ELSEWHERE)
    (line,) = [one for one in shop.run("train", "reviews", code=2).stderr.splitlines() if "SLIPWAY_STORE" in one]
    assert f"1 node(s) elsewhere ({ELSEWHERE})" in line and "SLIPWAY_SHARED_WORKSPACE=true" in line
    assert list((shop.folder / ".slipway" / "store").glob("runs/*")) == [], "no trace is left behind"
    shop.environment["SLIPWAY_SHARED_WORKSPACE"] = "true"
    assert shop.ask("train", "reviews")["digest"]


def test_a_cluster_of_another_version_is_one_line(tmp_path: Path) -> None:
    """A real head, which says of itself that it is another version, and asks for the account's own token."""
    port = unused_port()
    nodes = RayNodes(port)
    nodes.access = {"HOME": str(tmp_path)}
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(TOKEN)
    try:
        nodes.start(
            "--head", f"--port={port}", "--node-ip-address=127.0.0.1", f"--temp-dir={nodes.folder}",
            "--include-dashboard=false", program=[sys.executable, "-c", OTHER_VERSION],
        )  # fmt: skip
        shop = customer(tmp_path / "shop", nodes)
        shop.environment |= {"HOME": str(tmp_path), "SLIPWAY_RAY_TOKEN": ""}
        shop.ask("data", "register", "reviews.odcs.yaml")
        *_, line = shop.run("train", "reviews", code=2).stderr.strip().splitlines()
        assert f"ray_address '{nodes.address}': the cluster runs Ray 2.59.1 on Python" in line
        assert "change SLIPWAY_RAY_ADDRESS" in line
    finally:
        nodes.__exit__()
