"""The doctor tries what it asks about, leaves no trace, and never falls over."""

import os
import socket
import sys

import pytest

from infra import doctor
from infra.doctor import Check, run_checks
from infra.settings import Settings
from infra.store import FolderStore

NAMES = ["python", "torch", "ray", "disk", "store", "clock", "tracking"]


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """A workspace that does not exist yet."""
    monkeypatch.chdir(tmp_path)
    return Settings(workspace=str(tmp_path / "deep" / "workspace"))


@pytest.fixture
def closed_port():
    """A port of this machine at which nothing listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def by_name(settings: Settings) -> dict[str, Check]:
    return {check.name: check for check in run_checks(settings)}


def test_a_sound_machine_is_all_green_and_nothing_is_left_behind(settings, tmp_path):
    checks = run_checks(settings)
    assert [check.name for check in checks] == NAMES
    assert [check for check in checks if not check.ok or check.advice] == []
    assert list(tmp_path.iterdir()) == []


def test_what_stands_in_the_workspace_stays(settings):
    settings.object_store.put("datasets/x", b"kept")
    assert all(check.ok for check in run_checks(settings))
    assert list(settings.object_store.list("")) == ["datasets/x"]
    assert settings.object_store.get("datasets/x") == b"kept"


def test_a_red_check_is_one_line_and_says_what_to_do(settings, tmp_path, closed_port):
    (tmp_path / "file").write_text("")
    broken = Settings(
        workspace=str(tmp_path / "file" / "ws"),
        ray_address=f"127.0.0.1:{closed_port}",
        tracking_uri=f"http://127.0.0.1:{closed_port}",
    )
    found = by_name(broken)
    assert {name for name, check in found.items() if not check.ok} == {"ray", "store", "clock", "tracking"}
    for check in found.values():
        assert check.ok or check.advice
        assert "\n" not in check.found + check.advice
    assert "SLIPWAY_RAY_ADDRESS" in found["ray"].advice
    assert "SLIPWAY_TRACKING_URI" in found["tracking"].advice
    assert "SLIPWAY_STORE" in found["store"].advice


@pytest.mark.parametrize("address", ["nonsense", "host:port", "127.0.0.1"])
def test_an_address_without_host_and_port_is_told_before_ray_is_asked(settings, address):
    check = by_name(Settings(workspace=settings.workspace, ray_address=address))["ray"]
    assert not check.ok
    assert "names no host and port" in check.found


def test_the_s3_store_is_tried_and_left_empty(settings, s3_store, monkeypatch):
    on_s3 = Settings(workspace=settings.workspace, store=s3_store.uri)
    found = by_name(on_s3)
    assert found["store"].ok and found["clock"].ok, found
    assert list(s3_store.list("")) == []


class Overwriting(FolderStore):
    """A server that ignores the condition, as S3 servers do in a versioned bucket."""

    def create(self, key, data):
        self.put(key, data)
        return True


class Forgetful(FolderStore):
    def list(self, prefix, after=""):
        return iter(())


class Slow(FolderStore):
    def modified(self, key):
        return super().modified(key) + 3600


@pytest.mark.parametrize(
    ("kind", "name", "told"),
    [
        (Overwriting, "store", "two writers could both win"),
        (Forgetful, "store", "does not list"),
        (Slow, "clock", "3600 s behind the store's"),
    ],
)
def test_a_store_that_breaks_its_promise_is_red(settings, tmp_path, kind, name, told):
    settings.__dict__["object_store"] = kind(tmp_path / "store")
    checks = by_name(settings)
    assert [check.name for check in checks.values() if not check.ok] == [name]
    assert told in checks[name].found


def test_a_full_disk_is_red(settings, monkeypatch):
    monkeypatch.setattr(doctor, "FREE_BYTES", 1 << 62)
    assert "SLIPWAY_WORKSPACE" in by_name(settings)["disk"].advice


def test_a_damaged_tracking_database_is_red(settings):
    settings.create_workspace()
    (settings.folder / "mlflow.db").write_text("not a database" * 100)
    check = by_name(settings)["tracking"]
    assert not check.ok
    assert str(settings.folder) in check.found


def test_a_library_that_does_not_import_is_red_and_the_others_are_checked(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # what `import` then says of it: ImportError
    found = by_name(settings)
    assert not found["torch"].ok
    assert "pip install" in found["torch"].advice
    assert found["store"].ok


def test_the_files_of_a_probe_do_not_outlive_a_failure(settings, monkeypatch):
    monkeypatch.setattr(FolderStore, "list", lambda *_: (_ for _ in ()).throw(OSError("gone")))
    check = by_name(settings)["store"]
    assert not check.ok and "OSError: gone" in check.found
    assert not os.path.exists(settings.folder)
