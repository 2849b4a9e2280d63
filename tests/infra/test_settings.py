"""Environment over slipway.toml over defaults; a mistake is one line that names its place."""

import json
import os
import subprocess
import sys
from dataclasses import fields

import pytest

from infra.errors import WrongInput
from infra.secret import Secret
from infra.settings import Settings, child_environment, load_settings, quiet_environment
from infra.store import FolderStore


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """No settings but the test's own."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("SLIPWAY_"):
            monkeypatch.delenv(name)


def test_without_settings_everything_is_in_the_workspace(tmp_path):
    settings = load_settings()
    assert settings.folder == tmp_path / ".slipway"
    assert isinstance(settings.object_store, FolderStore)
    assert settings.object_store.folder == tmp_path / ".slipway" / "store"
    assert settings.mlflow_uri == f"sqlite:///{tmp_path}/.slipway/mlflow.db"
    assert settings.artifact_uri == (tmp_path / ".slipway" / "mlartifacts").as_uri()
    assert settings.ray_address == ""
    assert not (tmp_path / ".slipway").exists(), "reading settings writes nothing"


def test_environment_overrules_file_and_file_overrules_default(tmp_path, monkeypatch):
    (tmp_path / "slipway.toml").write_text('ray_address = "file:1"\nauthor = "file"\ncpus_per_worker = 2\n')
    monkeypatch.setenv("SLIPWAY_AUTHOR", "environment")
    settings = load_settings()
    assert (settings.ray_address, settings.author_name, settings.cpus_per_worker) == ("file:1", "environment", 2.0)


@pytest.mark.parametrize("field", fields(Settings), ids=lambda field: field.name)
def test_every_setting_can_be_given_both_ways(field, tmp_path, monkeypatch):
    wanted = {str: "/some/where", float: 3.0, int: 3, bool: True, Secret: "some:where"}[field.type]

    def found():
        value = getattr(load_settings(), field.name)
        return value.reveal() if isinstance(value, Secret) else value

    (tmp_path / "slipway.toml").write_text(f"{field.name} = {json.dumps(wanted)}\n")
    assert found() == wanted
    (tmp_path / "slipway.toml").unlink()
    monkeypatch.setenv(f"SLIPWAY_{field.name.upper()}", str(wanted))
    assert found() == wanted


def test_an_empty_variable_counts_as_not_set(tmp_path, monkeypatch):
    for field in fields(Settings):
        monkeypatch.setenv(f"SLIPWAY_{field.name.upper()}", "")
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("workspce = 'x'", r"slipway\.toml: unknown key 'workspce'; did you mean 'workspace'\?"),
        ("workspace = 3", r"slipway\.toml: workspace: 3 is not text"),
        ("workspace = ['a']", r"slipway\.toml: workspace: \['a'\] is not text"),
        ("cpus_per_worker = true", r"slipway\.toml: cpus_per_worker: 'True' is not a number"),
        ("cpus_per_worker = 'two'", r"slipway\.toml: cpus_per_worker: 'two' is not a number"),
        ("mlflow_port = 'x'", r"slipway\.toml: mlflow_port: 'x' is not a whole number"),
        ("mlflow_port = 2.5", r"slipway\.toml: mlflow_port: '2\.5' is not a whole number"),
        ("prefect_port = 70000", "prefect_port: 70000 is out of range"),
        ("shared_workspace = 'maybe'", r"slipway\.toml: shared_workspace: 'maybe' is neither true nor false"),
        ("prefect_auth = 'nocolon'", r"prefect_auth: is not of the form USER:PASSWORD; write it so"),
        ("ray_token = 7", r"slipway\.toml: ray_token: \*\*\* is not text"),
        ("store = 's3://KEY:hunter2@bucket'", "store: its address holds a password or key.*AWS_SECRET_ACCESS_KEY"),
        ("prefect_api = 'http://me:hunter2@host/api'", "prefect_api: .*set SLIPWAY_PREFECT_AUTH=USER:PASSWORD"),
        ("cpus_per_worker = 0", "cpus_per_worker: 0 is out of range"),
        ("cpus_per_worker = nan", "cpus_per_worker: nan is out of range"),
        ("[workspace", r"slipway\.toml: is not TOML"),
        ("store = 'gs://x'", r"scheme 'gs' of 'gs://x' is unknown"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(text, told, tmp_path):
    (tmp_path / "slipway.toml").write_text(text)
    with pytest.raises(WrongInput, match=told) as raised:
        _ = load_settings().object_store
    assert "\n" not in str(raised.value) and "hunter2" not in str(raised.value)


def test_a_file_that_is_not_text_or_no_file_is_one_line(tmp_path):
    (tmp_path / "slipway.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(WrongInput, match=r"slipway\.toml: is not TOML"):
        load_settings()
    (tmp_path / "slipway.toml").unlink()
    (tmp_path / "slipway.toml").mkdir()
    with pytest.raises(WrongInput, match=r"slipway\.toml: cannot be read"):
        load_settings()


def test_a_mistyped_variable_is_not_ignored(monkeypatch):
    monkeypatch.setenv("SLIPWAY_WORKSPCE", "x")
    with pytest.raises(WrongInput, match="'SLIPWAY_WORKSPCE'; did you mean 'SLIPWAY_WORKSPACE'"):
        load_settings()
    monkeypatch.delenv("SLIPWAY_WORKSPCE")
    monkeypatch.setenv("SLIPWAY_CPUS_PER_WORKER", "many")
    with pytest.raises(WrongInput, match="environment: SLIPWAY_CPUS_PER_WORKER: 'many' is not a number"):
        load_settings()


def test_paths_stay_when_the_current_folder_changes(tmp_path, monkeypatch):
    """The driver changes to an empty folder before it starts Ray."""
    monkeypatch.setenv("SLIPWAY_STORE", "objects")
    monkeypatch.setenv("SLIPWAY_ARTIFACTS", "files")
    monkeypatch.setenv("SLIPWAY_TRACKING_URI", "sqlite:///mine.db")
    settings = load_settings()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert settings.folder == tmp_path / ".slipway"
    assert isinstance(settings.object_store, FolderStore)
    assert settings.object_store.folder == tmp_path / "objects"
    assert settings.artifact_uri == str(tmp_path / "files")
    assert settings.mlflow_uri == f"sqlite:///{tmp_path}/mine.db"


def test_a_workspace_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WrongInput, match=r"workspace .*/file/ws: cannot be written .*SLIPWAY_WORKSPACE"):
        Settings(workspace="file/ws").create_workspace()


def test_a_workspace_is_made_and_left_clean(tmp_path):
    for _ in range(2):
        Settings(workspace="a/b").create_workspace()
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_login_name_is_always_found(monkeypatch):
    for name in ("USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)
    assert Settings().author_name == f"uid{os.getuid()}"


def test_telemetry_is_off_unless_the_user_chose(monkeypatch):
    chosen = {"DO_NOT_TRACK": "0", "PREFECT_HOME": "/mine"}
    for name in ("GX_ANALYTICS_ENABLED", "MLFLOW_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", {**os.environ, **chosen})
    quiet_environment(Settings())
    assert {name: os.environ[name] for name in chosen} == chosen
    assert os.environ["GX_ANALYTICS_ENABLED"] == "false"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_a_child_process_gets_the_environment_and_the_changes():
    code = "import os; print(os.environ['SLIPWAY_AUTHOR'], 'PATH' in os.environ)"
    environment = child_environment(SLIPWAY_AUTHOR="someone")
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["someone", "True"]
    assert "SLIPWAY_AUTHOR" not in os.environ
