"""A base named as on the model hub: fetched from a server that speaks its API, kept, or one clear line."""

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from flows.sources import read_sources
from infra.errors import WrongInput
from infra.settings import Settings, child_environment
from training.experiment import validate_experiment

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "pytorch_model.bin": b"a pickle", "onnx/m.json": b"{}"}
FETCH = """
import sys
from pathlib import Path
from flows.model_hub import fetch_model
from infra.errors import SlipwayError
try:
    folder = fetch_model(sys.argv[1], Path(sys.argv[2]), "experiment e: from.base")
    print(*sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
except SlipwayError as error:
    print(error.exit_code, error)
"""


class Hub(BaseHTTPRequestHandler):
    """owner/name at one commit."""

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        file = path.removeprefix(f"/owner/name/resolve/{COMMIT}/")
        entries = [{"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                   for name, body in FILES.items()]  # fmt: skip
        if path in ("/api/models/owner/name", f"/api/models/owner/name/revision/{COMMIT}"):
            found: Any = {"id": "owner/name", "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]}
            self._answer(200, json.dumps(found).encode(), Content_Type="application/json")
        elif path.startswith(f"/api/models/owner/name/tree/{COMMIT}"):
            self._answer(200, json.dumps(entries).encode(), Content_Type="application/json")
        elif file in FILES:
            self._answer(200, FILES[file], ETag=f'"{hashlib.sha256(FILES[file]).hexdigest()}"')
        else:
            self._answer(404, b"{}", X_Error_Code="RepoNotFound")

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def fetch(endpoint: str, address: str, cache: Path) -> str:
    """What it found or said. In a process of its own: the library reads the endpoint once."""
    done = subprocess.run(
        [sys.executable, "-c", FETCH, address, str(cache)],
        env=child_environment(HF_ENDPOINT=endpoint, HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_OFFLINE="0"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_published_model_is_fetched_without_its_pickles_and_kept(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    here = f"http://127.0.0.1:{server.server_port}"
    assert fetch(here, "owner/name", tmp_path) == "config.json model.safetensors"
    assert fetch(here, f"owner/name@{COMMIT}", tmp_path) == "config.json model.safetensors"
    nowhere = "http://127.0.0.1:9"
    assert fetch(nowhere, f"owner/name@{COMMIT}", tmp_path) == "config.json model.safetensors", "without a network too"
    said = fetch(nowhere, "owner/other", tmp_path)
    assert said.startswith("1 experiment e: from.base: 'owner/other' is no folder here, and the hub cannot be reached")
    assert said.endswith("--set base=PATH")
    said = fetch(here, "owner/other", tmp_path)
    assert said.startswith("2 experiment e: from.base: 'owner/other' is no folder here, and no model on the hub")


def test_a_folder_with_a_pickle_only_is_refused_before_anything_starts(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "pytorch_model.bin"):
        (folder / name).write_text("{}")
    body = {"name": "e", "recipe": "text_classifier", "dataset": "d", "training": {"epochs": 1}}
    experiment = validate_experiment({**body, "from": {"base": str(folder)}}, "e")
    settings = Settings(workspace=str(tmp_path / "ws"))
    with pytest.raises(WrongInput, match=r"from\.base: .* as a pickle only \(pytorch_model\.bin\), .* can run code"):
        read_sources(settings, experiment)
    (folder / "model.safetensors").write_text("weights")
    assert read_sources(settings, experiment)["base"].folder == str(folder)
