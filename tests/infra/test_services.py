"""`up` starts what does not run and leaves the rest alone; `down` leaves no process; nothing is open to others unasked.

The servers here are small ones that are started, found and stopped by the real parts; MLflow's and Prefect's own are in
tests/flows/test_up.py.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra import service_records, services
from infra.errors import SlipwayError, WrongInput
from infra.reach import ask
from infra.secret import Secret
from infra.service_records import Service, began
from infra.services import Launch
from infra.settings import Settings, load_settings

CHILD = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], "
SERVER = (
    "start_new_session=True); from http.server import SimpleHTTPRequestHandler, test; "
    "test(SimpleHTTPRequestHandler, port={port}, bind='127.0.0.1')"
)


def small(name):
    """Stands in for a server: answers, and has a child in a session of its own, as a flow run has."""

    def launch(settings: Settings, port: int) -> Launch:
        url = f"http://127.0.0.1:{port}"
        code = CHILD + SERVER.format(port=port)
        return Launch(name=name, command=[sys.executable, "-c", code], url=url, health=url, cwd=settings.folder)

    return launch


def runner(settings: Settings) -> list[str]:
    return [sys.executable, "-c", "import time; print('has started!'); time.sleep(600)"]


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(services, "_mlflow", small("mlflow"))
    monkeypatch.setattr(services, "_prefect", small("prefect"))
    for name in list(os.environ):
        if name.startswith("SLIPWAY_"):
            monkeypatch.delenv(name)
    made = Settings()
    yield made
    services.down(made)


def living(settings):
    return {name: {one.pid for one in services.members(settings.folder, name)} for name in services.TITLES}


def test_up_starts_all_and_up_again_starts_nothing(settings):
    first = {one.service.name: one for one in services.up(settings, runner)}
    assert first.keys() == {"mlflow", "prefect", "runner"}
    assert all(one.seconds is not None and one.service.ready and one.service.alive for one in first.values())
    assert ask(first["mlflow"].service.url).status == 200
    before = living(settings)
    again = services.up(settings, runner)
    assert [one.seconds for one in again] == [None] * 3
    assert living(settings) == before


def test_up_starts_what_is_missing_and_clears_what_a_killed_one_left(settings):
    first = {one.service.name: one.service for one in services.up(settings, runner)}
    before = living(settings)
    os.kill(first["mlflow"].pid, signal.SIGKILL)
    while first["mlflow"].alive:
        time.sleep(0.01)
    left = before["mlflow"] - {first["mlflow"].pid}
    assert left and all(map(psutil.pid_exists, left)), "its child outlives it"
    started = {one.service.name for one in services.up(settings, runner) if one.seconds is not None}
    assert started == {"mlflow"}
    after = living(settings)
    assert after["prefect"] == before["prefect"] and after["runner"] == before["runner"]
    assert not after["mlflow"] & before["mlflow"]


def test_each_service_is_a_session_of_its_own_so_that_a_closing_terminal_does_not_reach_it(settings):
    for one in services.up(settings, runner):
        assert os.getsid(one.service.pid) == one.service.pid != os.getsid(0)


def test_down_leaves_no_process_not_even_in_other_sessions_nor_stubborn_ones(settings, monkeypatch):
    monkeypatch.setattr(services, "STOP_TIMEOUT_S", 1.0)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('has started!'); time.sleep(600)"
    services.up(settings, lambda _: [sys.executable, "-c", deaf])
    pids = set().union(*living(settings).values())
    assert len(pids) >= 5
    assert [one.name for one in services.down(settings)] == ["mlflow", "prefect", "runner"]
    assert [pid for pid in pids if began(pid) is not None] == []
    assert service_records.read(settings.folder) == {}
    assert services.down(settings) == []


def test_the_settings_name_prefects_server_while_it_runs_and_nothing_else_is_configured(settings, monkeypatch):
    assert load_settings().prefect_api == ""
    services.up(settings, None)
    url = service_records.read(settings.folder)["prefect"].url
    assert load_settings().prefect_api == f"{url}/api"
    assert services.configured_prefect(load_settings()) == ""
    monkeypatch.setenv("SLIPWAY_PREFECT_API", "http://elsewhere:4200/api")
    assert load_settings().prefect_api == "http://elsewhere:4200/api"
    monkeypatch.delenv("SLIPWAY_PREFECT_API")
    services.down(settings)
    assert load_settings().prefect_api == ""


def test_a_pid_that_was_given_out_again_is_not_taken_for_the_service(settings):
    mine = Service(
        name="prefect", pid=os.getpid(), began=psutil.Process().create_time(), url="http://127.0.0.1:1", ready=True
    )
    service_records.write(settings.folder, {"prefect": mine})
    assert mine.alive and load_settings().prefect_api
    service_records.write(settings.folder, {"prefect": replace(mine, began=mine.began - 60)})
    assert load_settings().prefect_api == ""
    services.down(settings)
    assert psutil.pid_exists(os.getpid()), "and it is not stopped"


def test_what_is_configured_elsewhere_is_not_started(settings):
    remote = replace(settings, tracking_uri="http://mlflow.example.org", prefect_api="http://prefect.example.org/api")
    told = []

    def listening(given: Settings) -> list[str]:
        told.append(given.prefect_api)
        return runner(given)

    started = services.up(remote, listening)
    assert [one.service.name for one in started] == ["runner"]
    assert told == ["http://prefect.example.org/api"]


@pytest.mark.parametrize("name", ["mlflow", "prefect"])
def test_a_port_in_use_is_one_line_that_names_the_setting_and_starts_nothing(settings, name):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        told = rf"{name}_port: 127\.0\.0\.1:{port} is in use; .*--{name}-port or SLIPWAY_{name.upper()}_PORT"
        with pytest.raises(WrongInput, match=told):
            services.up(replace(settings, **{f"{name}_port": port}), runner)
    assert living(settings) == {"mlflow": set(), "prefect": set(), "runner": set()}


def test_where_the_usual_port_is_taken_a_free_one_is_found(settings, monkeypatch):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        monkeypatch.setattr(services, "USUAL_PORTS", {"mlflow": port, "prefect": port})
        assert services.choose_port(settings, "mlflow") not in (0, port)
    assert services.choose_port(settings, "mlflow") == port


def test_a_host_that_is_not_ours_is_one_line(settings):
    with pytest.raises(WrongInput, match=r"host: '192\.0\.2\.1' is no address of this machine.*SLIPWAY_HOST"):
        services.choose_port(replace(settings, host="192.0.2.1"), "mlflow")


def test_a_server_that_does_not_start_is_told_with_its_last_words_and_leaves_nothing(settings, monkeypatch):
    Secret.alone("sesame-open-2")
    died = [sys.executable, "-c", "import sys, time; time.sleep(0.3); sys.exit('no: sesame-open-2 is wrong')"]
    monkeypatch.setattr(services, "_mlflow", lambda settings, port: Launch(name="mlflow", command=died, cwd=Path.cwd(),
                                                                           url="x", health="x"))  # fmt: skip
    with pytest.raises(SlipwayError, match=r"MLflow did not start: no: \*\*\* is wrong; its log is .*mlflow\.log"):
        services.up(settings, runner)
    assert living(settings)["mlflow"] == living(settings)["runner"] == set()
    assert service_records.read(settings.folder).keys() <= {"prefect"}, "which had answered before that"


ALL = {"prefect_auth": Secret("me:x"), "mlflow_password": Secret("x"), "ray_token": Secret("x")}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "build-7.example.org"])
def test_beyond_this_machine_each_missing_secret_is_named(settings, host):
    lines = services.open_doors(replace(settings, host=host))
    assert re.findall("SLIPWAY_[A-Z_]+", " ".join(lines)) == [f"SLIPWAY_{name.upper()}" for name in ALL]
    for name in ALL:
        rest = {key: value for key, value in ALL.items() if key != name}
        (line,) = services.open_doors(replace(settings, host=host, **rest))
        assert f"SLIPWAY_{name.upper()}" in line
        with pytest.raises(WrongInput, match=f"SLIPWAY_{name.upper()}"):
            services.up(replace(settings, host=host, **rest), runner)
    assert services.open_doors(replace(settings, host=host, **ALL)) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_this_machine_alone_no_secret_is_asked_for(settings, host):
    assert services.open_doors(replace(settings, host=host)) == []


def test_no_secret_stands_on_a_command_line_or_in_the_records(tmp_path, monkeypatch):
    """Every user of a machine can read the command lines of all its processes."""
    given = Settings(
        workspace=str(tmp_path),
        tracking_uri="postgresql://bob:swordfish-five@127.0.0.1/mlflow",
        prefect_database="postgresql://bob:swordfish-five@127.0.0.1/prefect",
        prefect_auth=Secret("me:swordfish-five"),
        mlflow_password=Secret("swordfish-five"),
    )
    service_records.folder_of(tmp_path).mkdir()
    monkeypatch.setattr(services, "find_spec", lambda _: None)
    with pytest.raises(WrongInput, match=r"mlflow_password: .*Flask-WTF.*slipway\[cluster\]"):
        services._mlflow(given, 1)
    monkeypatch.setattr(services, "find_spec", lambda _: object())
    with pytest.raises(WrongInput, match="mlflow_password: MLflow takes 12 characters or more"):
        services._mlflow(replace(given, mlflow_password=Secret("short")), 1)
    for launch in (services._mlflow(given, 1), services._prefect(given, 2)):
        assert "swordfish-five" not in " ".join(launch.command) + launch.url
        assert any("swordfish-five" in value for value in launch.environment.values()), "but the server is told"
    files = [path.read_text() for path in service_records.folder_of(tmp_path).iterdir()]
    assert files and "swordfish-five" not in "".join(files)


def test_two_at_once_start_one_of_each(settings):
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import importlib.util
found = importlib.util.spec_from_file_location("services_test", {__file__!r})
tests = importlib.util.module_from_spec(found)
found.loader.exec_module(tests)
tests.services._mlflow, tests.services._prefect = tests.small("mlflow"), tests.small("prefect")
tests.services.up(tests.Settings(workspace={settings.workspace!r}), tests.runner)
"""
    racers = [subprocess.Popen([sys.executable, "-c", code], env=services.child_environment()) for _ in range(2)]
    assert [racer.wait(60) for racer in racers] == [0, 0]
    time.sleep(0.2)
    assert {name: len(pids) for name, pids in living(settings).items()} == {"mlflow": 2, "prefect": 2, "runner": 1}
