"""Twenty secrets are planted wherever Slipway may be given one, a model is made with the servers up, and then they are
looked for in every log, database, artifact, page and command line: none is found.
"""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from infra.store import S3Store
from tests.flows.shop import SLIPWAY, Shop
from tests.services.postgres import PASSWORD, USER, Postgres, missing
from tests.services.servers import unused_port

pytestmark = pytest.mark.slow
EXPERIMENT = """\
recipe: text_classifier
dataset: reviews
settings: {vocab_size: 300, max_length: 24, hidden_size: 32, intermediate_size: 64}
training: {epochs: 2, batch_size: 32, learning_rate: 3.0e-3}
gates:
  threshold: {metric: accuracy, minimum: 0.1}
  package: {}
"""
AUTHOR = "canary-in-the-mine"
"""No secret: must be found, or the search is blind."""


class Planted(dict[str, str]):
    """Where it was planted -> the secret."""

    def __missing__(self, place: str) -> str:
        self[place] = f"planted{len(self):02d}{uuid.uuid4().hex[:16]}"
        return self[place]

    def in_text(self, text: bytes) -> list[str]:
        """The secrets in a text: as they are, as in an address, as in a header."""
        return [place for place, value in self.items() if any(form in text for form in self._forms(value))]

    @staticmethod
    def _forms(value: str) -> set[bytes]:
        whole = value.encode()
        headers = {base64.b64encode(f"{user}{value}".encode())[:-4] for user in ("", "admin:")}
        return {whole, quote(value, safe="").encode(), *headers}


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    if why := missing():
        pytest.skip(why)
    with Postgres(unused_port()) as running:
        yield running


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Its sockets' paths have to be short."""
    folder = Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def fetch(url: str, user: str, password: str, body: object = None) -> bytes:
    """A page, or what an API answers to a POST."""
    code = base64.b64encode(f"{user}:{password}".encode()).decode()
    request = urllib.request.Request(url, json.dumps(body).encode() if body is not None else None)
    request.add_header("Authorization", f"Basic {code}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def command_lines(home: str) -> list[bytes]:
    """Of the processes with that HOME; they are read by every user of a machine."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOME") == home:
                found.append(" ".join(process.cmdline()).encode())
        except psutil.Error:
            continue  # it has ended, or is another user's
    return found


def test_twenty_planted_secrets_are_found_nowhere_afterwards(
    tmp_path: Path, s3_store: S3Store, postgres: Postgres, ray_folder: Path
) -> None:
    planted = Planted({"prefect_database": PASSWORD})
    shop = Shop(tmp_path / "shop", "")
    home = tmp_path / "home"
    home.mkdir()
    (shop.folder / "slipway.toml").write_text(f'mlflow_password = "{planted["mlflow_password"]}"\n')
    notify = f"schedule: {{notify: 'https://hooks.example.org/{planted['webhook']}', on: [drift]}}\n"
    (shop.folder / "reviews.yaml").write_text(EXPERIMENT + notify)
    shop.environment |= {
        "HOME": str(home),
        "RAY_TMPDIR": str(ray_folder),
        "AWS_ACCESS_KEY_ID": planted["AWS_ACCESS_KEY_ID"],
        "AWS_SECRET_ACCESS_KEY": planted["AWS_SECRET_ACCESS_KEY"],
        "AWS_SESSION_TOKEN": planted["AWS_SESSION_TOKEN"],
        "HF_TOKEN": planted["HF_TOKEN"],
        "GITHUB_TOKEN": planted["GITHUB_TOKEN"],
        "OPENAI_API_KEY": planted["OPENAI_API_KEY"],
        "DATABASE_URL": f"postgresql://app:{planted['DATABASE_URL']}@db.example.org/app",
        "PIP_EXTRA_INDEX_URL": f"https://ada:{planted['PIP_EXTRA_INDEX_URL']}@pypi.example.org/simple",
        "SLIPWAY_AUTHOR": AUTHOR,
        "SLIPWAY_STORE": s3_store.uri,
        "SLIPWAY_HOST": "0.0.0.0",
        "SLIPWAY_PREFECT_AUTH": f"admin:{planted['prefect_auth']}",
        "SLIPWAY_RAY_TOKEN": planted["ray_token"],
        "SLIPWAY_PREFECT_DATABASE": f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{postgres.port}/postgres",
    }
    said: list[bytes] = []

    def run(*arguments: str, code: int = 0, **environment: str) -> bytes:
        done = subprocess.run([str(SLIPWAY), *arguments], cwd=shop.folder, env=shop.environment | environment,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == code, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        said.append(f"{done.stdout}\n{done.stderr}".encode())
        return said[-1]

    try:
        up = json.loads(run("up", "--json").partition(b"\nup ")[0])
        url = {one["name"]: one["url"] for one in up["services"]}
        port = url["mlflow"].rpartition(":")[2]
        tracking = f"http://admin:{planted['mlflow_password']}@127.0.0.1:{port}"
        shop.environment["SLIPWAY_TRACKING_URI"] = tracking
        for line in ("data register reviews.odcs.yaml", "schedule apply", "retrain reviews", "promote reviews",
                     "status", "runs", "history reviews"):  # fmt: skip
            run(*line.split())

        # What is wrong is said, too.
        gone = f"postgresql://bob:{planted['tracking_uri of a database']}@127.0.0.1:1/mlflow"
        run("up", code=2, SLIPWAY_TRACKING_URI=gone)
        run("status", code=2, SLIPWAY_PREFECT_API=f"http://me:{planted['prefect_api']}@127.0.0.1:1/api")
        run("status", code=2, SLIPWAY_STORE=f"s3://KEY:{planted['store']}@bucket/prefix")
        run("status", code=2, SLIPWAY_RAY_ADDRESS=f"ray://me:{planted['ray_address']}@127.0.0.1:1")
        run("status", code=2, SLIPWAY_ARTIFACTS=f"s3://KEY:{planted['artifacts']}@bucket/prefix")
        source = f"https://me:{planted['--source']}@data.example.org/reviews.csv"
        run("data", "validate", "reviews.odcs.yaml", "--source", source, code=2)
        wrong = tracking.replace(planted["mlflow_password"], planted["a wrong password of tracking_uri"])
        auth = f"admin:{planted['a wrong prefect_auth']}"
        red = run("doctor", code=1, SLIPWAY_TRACKING_URI=wrong, SLIPWAY_PREFECT_AUTH=auth)
        assert b"SLIPWAY_PREFECT_AUTH" in red and b"RED  tracking" in red
        assert len(planted) >= 20

        prefect, password = f"{url['prefect']}/api", planted["prefect_auth"]
        pages = [fetch(f"{prefect}/{what}/filter", "admin", password, {}) for what in (
            "flow_runs", "task_runs", "logs", "deployments", "artifacts", "block_documents", "work_pools", "events",
            "automations", "variables", "concurrency_limits")]  # fmt: skip
        pages += [fetch(f"{prefect}/admin/settings", "admin", password), fetch(url["prefect"], "admin", password)]
        mlflow = planted["mlflow_password"]
        found = json.loads(fetch(f"{url['mlflow']}/api/2.0/mlflow/experiments/search", "admin", mlflow,
                                 {"max_results": 100}))  # fmt: skip
        places = [one["experiment_id"] for one in found["experiments"]]
        pages += [
            fetch(f"{url['mlflow']}/api/2.0/mlflow/runs/search", "admin", mlflow, {"experiment_ids": places}),
            fetch(f"{url['mlflow']}/api/2.0/mlflow/registered-models/search", "admin", mlflow),
            fetch(url["mlflow"], "admin", mlflow),
        ]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            fetch(f"{prefect}/flow_runs/filter", "admin", "guessed", {})
        with pytest.raises(urllib.error.HTTPError, match="401"):
            fetch(f"{url['mlflow']}/api/2.0/mlflow/experiments/search?max_results=1", "admin", "guessed")
        lines = command_lines(str(home))
        assert len(lines) > 3
    finally:
        shop.run("down")

    texts = {f"output {number}": text for number, text in enumerate(said)}
    texts |= {f"page {number}": text for number, text in enumerate(pages)}
    texts |= {f"command line {number}": text for number, text in enumerate(lines)}
    texts |= {f"object {key}": s3_store.get(key) for key in s3_store.list("")}
    own = {shop.folder / "slipway.toml", shop.folder / "reviews.yaml", postgres.folder / "secret"}  # where they stand
    for folder in (shop.folder, home, ray_folder, postgres.folder):
        files = [Path(place) / name for place, _, names in os.walk(folder) for name in names]
        texts |= {str(path): path.read_bytes() for path in files if path.is_file() and path not in own}
    canary = [place for place, text in texts.items() if AUTHOR.encode() in text]
    assert any("mlflow.db" in place for place in canary) and any("runs/" in place for place in canary), canary
    assert any("session_" in place for place in texts), "Ray's logs were not looked at"
    print(f"{len(texts):,} texts, {sum(map(len, texts.values())) / 1e6:.0f} MB")
    assert {place: held for place, text in texts.items() if (held := planted.in_text(text))} == {}
