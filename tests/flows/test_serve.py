"""A served model answers as MLflow's scoring server does, and what it was asked is in the log when it ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.inference.log import log_keys, read_log
from infra.errors import WrongInput
from infra.scoring import bind
from infra.settings import child_environment
from tests.flows.rider import Rides, draw

ROOT = Path(__file__).parents[2]
ROWS: list[dict[str, Any]] = [
    {"heat": 0.5, "place": "town", "mail": "me@example.org", "season": 2},
    {"heat": -0.5, "place": "hill", "season": 1},
]
Serve = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture(scope="module")
def rides(tmp_path_factory: pytest.TempPathFactory) -> Rides:
    return Rides(tmp_path_factory.mktemp("rides"), draw(0, 600), packaged=True)


@pytest.fixture
def serve(rides: Rides, tmp_path: Path) -> Iterator[Serve]:
    """serve() -> the command's process and the address that answers, in a folder whose owner has a `flows` too."""
    started: list[subprocess.Popen[str]] = []
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "__init__.py").write_text("raise SystemExit('the user folder was imported')\n")
    environment = child_environment(
        SLIPWAY_WORKSPACE=str(rides.settings.folder), SLIPWAY_STORE=rides.settings.store, PYTHONPATH=str(ROOT)
    )

    def start(*options: str) -> tuple[subprocess.Popen[str], str]:
        command = [
            str(Path(sys.executable).with_name("slipway")),
            "serve",
            "rides/1",
            "--port",
            "0",
            "--json",
            *options,
        ]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        told = ""
        while not told.endswith("}\n") and (line := process.stdout.readline()):
            told += line
        return process, json.loads(told)["address"] if told else ""

    for key in list(rides.store.list("inference/")):
        rides.store.delete(key)
    yield start
    for process in started:
        process.kill()
        process.communicate()


def ask(address: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    body = json.dumps({"dataframe_records": rows}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["predictions"]


@pytest.mark.parametrize(
    "end", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)], ids=["terminated", "ctrl-c"]
)
def test_what_was_asked_is_logged_when_the_server_ends(rides, serve, end):
    process, address = serve()
    answers = ask(address, [{**row, "id": name} for row, name in zip(ROWS, ["a", "b"], strict=True)])
    assert [one["label"] for one in answers] == ["True", "False"]
    assert ask(address, ROWS[:1]) == answers[:1]
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(address, [{"heat": "hot", "place": "town", "season": 1}])
    assert refused.value.code == 400
    process.send_signal(end)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0 and "3 answers logged" in said, said
    found = read_log(rides.store, log_keys(rides.store, "rides"), rides.form)
    assert found.misfits == []
    told = found.table.to_pylist()
    assert [row["id"] for row in told[:2]] == ["a", "b"] and len(told[2]["id"]) == 32
    assert [row["prediction"] for row in told] == ["True", "False", "True"]
    assert [row["confidence"] for row in told[:2]] == [one["confidence"] for one in answers]
    assert told[0]["input.mail"].startswith("#") and told[1]["input.mail"] is None


def test_an_altered_model_or_package_is_not_served(rides, serve):
    for file in (rides.store.folder / "models" / rides.version.model / "rider.json",
                 Path(rides.version.package) / "data" / "package" / "rider.json"):  # fmt: skip
        shutil.copy(file, file.with_suffix(".whole"))
        file.write_text(json.dumps({"rides": False}))
        process, address = serve()
        _, said = process.communicate(timeout=60)
        assert (process.returncode, address) == (3, "") and "altered" in said, said
        os.replace(file.with_suffix(".whole"), file)


def test_only_this_machine_is_listened_to(serve):
    process, address = serve("--host", "0.0.0.0")
    _, said = process.communicate(timeout=60)
    assert (process.returncode, address) == (2, "") and "knows no passwords" in said
    taken = bind("127.0.0.1", 0)
    with taken, pytest.raises(WrongInput, match="cannot be listened on"):
        bind("127.0.0.1", taken.getsockname()[1])
