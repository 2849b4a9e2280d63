"""A dataset of the hub, read for real from a server that speaks the part of the hub's API which reading needs."""

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from infra.settings import child_environment

COMMIT = "0123456789abcdef0123456789abcdef01234567"
IMAGE = {"logicalType": "string", "customProperties": [{"property": "slipway.type", "value": "image"}]}


class Hub(BaseHTTPRequestHandler):
    """One dataset at one commit: owner/name, its files those of the server's `folder`."""

    folder: Path

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, body: Any) -> None:
        self._answer(200, json.dumps(body).encode(), Content_Type="application/json")

    def _entries(self) -> list[dict[str, Any]]:
        return [
            {
                "type": "file",
                "path": path.name,
                "size": path.stat().st_size,
                "oid": hashlib.sha1(path.name.encode()).hexdigest(),
            }
            for path in sorted(self.folder.iterdir())
        ]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == f"/api/datasets/owner/name/revision/{COMMIT}":
            files = [{"rfilename": entry["path"]} for entry in self._entries()]
            self._json({"id": "owner/name", "sha": COMMIT, "siblings": files, "private": False, "tags": []})
        elif path.startswith(f"/api/datasets/owner/name/tree/{COMMIT}"):
            self._json(self._entries())
        elif path.startswith(f"/datasets/owner/name/resolve/{COMMIT}/") and (self.folder / Path(path).name).is_file():
            content = (self.folder / Path(path).name).read_bytes()
            self._answer(200, content, ETag=f'"{hashlib.sha256(content).hexdigest()}"')
        else:
            code = "EntryNotFound" if "owner/name" in path else "RepoNotFound"
            self._answer(404, b"{}", X_Error_Code=code)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self._json([entry for entry in self._entries() if entry["path"] in asked])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    import datasets
    import numpy as np

    folder = tmp_path / "hub"
    folder.mkdir()
    features = datasets.Features({"image": datasets.Image(), "tags": datasets.List(datasets.Value("string")),
                                  "label": datasets.ClassLabel(names=["no", "yes"])})  # fmt: skip
    for split, rows in {"train": 60, "test": 20}.items():
        pixels = np.random.default_rng(rows).integers(0, 256, (rows, 4, 3, 3), dtype=np.uint8)
        columns = {
            "image": list(pixels),
            "tags": [["a"] * (n % 3) for n in range(rows)],
            "label": [n % 2 for n in range(rows)],
        }
        datasets.Dataset.from_dict(columns, features=features).to_parquet(str(folder / f"{split}.parquet"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Hub,), {"folder": folder}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def register(folder: Path, endpoint: str, *more: str) -> "subprocess.CompletedProcess[str]":
    environment = child_environment(
        SLIPWAY_WORKSPACE=str(folder / "ws"), HF_ENDPOINT=endpoint, HF_HOME=str(folder / "hf")
    )
    command = [sys.executable, "-m", "flows.cli", "data", "register", "made.odcs.yaml", *more, "--json"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(document: Callable[..., dict[str, Any]], tmp_path: Path) -> Path:
    columns = {"image": IMAGE, "label": "string", "tags": {"logicalType": "array", "items": {"logicalType": "string"}}}
    made = document(columns, label="label", split={"files": {"train": "train.parquet", "test": "test.parquet"}})
    own = {"slipway.source": "hub", "slipway.dataset": "owner/name", "slipway.revision": COMMIT}
    settings = [{"property": key, "value": value} for key, value in own.items()]
    made["servers"][0] |= {"path": "hub", "format": "parquet"}
    made["servers"].insert(0, {"server": "hub", "type": "custom", "customProperties": settings})
    (tmp_path / "made.odcs.yaml").write_text(yaml.safe_dump(made), encoding="utf-8")
    return tmp_path


def test_a_dataset_of_the_hub_registers_and_again_without_a_network(hub: str, folder: Path) -> None:
    (folder / "owner" / "name").mkdir(parents=True)
    (folder / "owner" / "name" / "train.csv").write_text("a folder of the user's\n1\n", encoding="utf-8")
    done = register(folder, hub)
    assert done.returncode == 0, done.stderr
    version = json.loads(done.stdout)
    assert version["counts"]["test"] == 20 and version["counts"]["rows_in"] == 80
    (train,) = (folder / "ws").rglob("train-*.parquet")
    assert set(pq.read_table(train).column("label").to_pylist()) == {"no", "yes"}
    again = register(folder, "http://127.0.0.1:9")
    assert again.returncode == 0 and json.loads(again.stdout)["ref"] == version["ref"], again.stderr


def test_a_hub_that_does_not_answer_is_one_line(folder: Path) -> None:
    done = register(folder, "http://127.0.0.1:9")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"source owner/name@{COMMIT[:12]}: the hub cannot be reached (ConnectError); go online" in done.stderr


def test_a_contract_of_files_reads_the_hub_where_the_address_says_so(hub: str, folder: Path) -> None:
    made = yaml.safe_load((folder / "made.odcs.yaml").read_text())
    made["servers"].reverse()
    for column in made["schema"][0]["properties"]:
        column["logicalType"] = "integer" if column["name"] == "label" else column["logicalType"]
    (folder / "made.odcs.yaml").write_text(yaml.safe_dump(made))
    here, there = register(folder, hub), register(folder, hub, "--source", f"hf://owner/name@{COMMIT}")
    assert here.returncode == 0 and there.returncode == 0, here.stderr + there.stderr
    assert json.loads(here.stdout)["ref"] == json.loads(there.stdout)["ref"]


def test_what_is_not_on_the_hub_is_said(hub: str, folder: Path) -> None:
    done = register(folder, hub, "--source", f"hf://datasets/owner/other@{COMMIT}")
    assert done.returncode == 2 and "is not on the hub, or not open to you" in done.stderr, done.stderr
