"""The doctor tries what it asks about, leaves no trace, and never falls over."""

import base64
import json
import os
import re
import socket
import sys
import threading
import time
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import pytest

from infra import doctor
from infra.doctor import Check, run_checks
from infra.errors import WrongInput
from infra.secret import Secret
from infra.settings import Settings
from infra.store import FolderStore

NAMES = ["python", "torch", "ray", "disk", "store", "database", "tracking", "prefect", "clock", "access"]


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


def test_a_versioned_bucket_is_refused_by_the_doctor_and_by_every_command(settings, s3_store):
    on_s3 = Settings(workspace=settings.workspace, store=s3_store.uri)
    s3_store.client.put_bucket_versioning(Bucket=s3_store.bucket, VersioningConfiguration={"Status": "Enabled"})
    with pytest.raises(WrongInput, match=r"the bucket is versioned.*SLIPWAY_STORE"):
        _ = on_s3.object_store
    check = by_name(on_s3)["store"]
    assert not check.ok and "SLIPWAY_STORE" in check.advice
    s3_store.client.put_bucket_versioning(Bucket=s3_store.bucket, VersioningConfiguration={"Status": "Suspended"})
    assert by_name(on_s3)["store"].ok


def test_a_bucket_that_is_not_there_is_named(settings, s3_store):
    check = by_name(Settings(workspace=settings.workspace, store="s3://nobody-made-this/x"))["store"]
    assert (check.ok, check.found) == (False, "store s3://nobody-made-this/x: the bucket does not exist")
    assert "SLIPWAY_STORE" in check.advice


def test_a_database_that_is_not_there_is_red_once_and_without_its_password(settings, closed_port):
    address = f"postgresql://bob:hunter2hunter2@127.0.0.1:{closed_port}/mlflow"
    found = by_name(Settings(workspace=settings.workspace, tracking_uri=address))
    assert {name for name, check in found.items() if not check.ok} == {"database", "tracking"}
    assert "SLIPWAY_TRACKING_URI" in found["database"].advice
    assert found["tracking"].advice == "mend the database first"
    assert "hunter2hunter2" not in "".join(check.found + check.advice for check in found.values())
    other = by_name(Settings(workspace=settings.workspace, prefect_database=address))["database"]
    assert not other.ok and "SLIPWAY_PREFECT_DATABASE" in other.advice


def test_open_doors_are_red(settings):
    check = by_name(Settings(workspace=settings.workspace, host="0.0.0.0"))["access"]
    assert not check.ok and "SLIPWAY_PREFECT_AUTH" in check.advice


class Answering(BaseHTTPRequestHandler):
    """A Prefect server as far as the doctor asks it."""

    version, password, ahead_s = "0.0.0", "", 0.0

    def do_GET(self):
        asked = base64.b64encode(self.password.encode()).decode()
        allowed = not self.password or self.headers["Authorization"] == f"Basic {asked}"
        self.send_response_only(200 if allowed else 401)
        self.send_header("Date", formatdate(time.time() + self.ahead_s, usegmt=True))
        self.end_headers()
        if allowed:
            self.wfile.write(json.dumps(self.version).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def prefect(settings):
    """(the handler whose answers can be set, settings that name its server)"""
    handler = type("Handler", (Answering,), {"version": version("prefect")})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield handler, replace(settings, prefect_api=f"http://127.0.0.1:{server.server_address[1]}/api")
        server.shutdown()


def test_prefects_server_is_asked_for_its_version_and_let_know_who_we_are(prefect, closed_port):
    handler, settings = prefect
    assert doctor._prefect(settings).ok
    handler.version = "2.0.1"
    check = doctor._prefect(settings)
    assert (check.ok, "2.0.1" in check.found) == (False, True)
    handler.version, handler.password = version("prefect"), "bob:hunter2hunter2"
    with pytest.raises(WrongInput, match=r"refuses us .401.; set SLIPWAY_PREFECT_AUTH"):
        doctor._prefect(settings)
    assert doctor._prefect(replace(settings, prefect_auth=Secret("bob:hunter2hunter2"))).ok
    with pytest.raises(WrongInput, match=r"no Prefect server answers .*SLIPWAY_PREFECT_API"):
        doctor._prefect(replace(settings, prefect_api=f"http://127.0.0.1:{closed_port}/api"))


def test_a_clock_is_compared_with_the_servers_too(prefect):
    handler, settings = prefect
    assert doctor._clock(settings).ok
    handler.ahead_s = 120.0
    check = doctor._clock(settings)
    assert not check.ok and re.match(r"1(19|20) s behind Prefect's", check.found)  # the header has whole seconds
