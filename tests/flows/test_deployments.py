"""`slipway schedule` against a real Prefect server: what it puts there, and what starts a run. Nothing is trained."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.orchestration import deployments, events
from tests.flows.scheduler import Scheduler, scheduler
from tests.flows.shop import EXPERIMENT

SECTION = """\
schedule:
  cron: "0 3 * * 1-5"
  timezone: Europe/Berlin
  on: [version, drift, rollback]
  notify: https://hooks.example.org/services/a-secret-path
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with scheduler(tmp_path_factory.mktemp("scheduled"), port) as started:
        yield started


@pytest.fixture
def folder(running: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder with an experiment that has a section, and nothing on the server."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.yaml").write_text(EXPERIMENT + SECTION)
    (tmp_path / "compose.yaml").write_text("services: {}\nschedule: {on: never}\n")
    yield tmp_path
    (tmp_path / "reviews.yaml").unlink()
    deployments.apply(running.settings)


def apply(running: Scheduler, *experiment: str) -> dict[str, str]:
    return {one["experiment"]: one["done"] for one in deployments.apply(running.settings, *experiment)}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def on_server(running: Scheduler) -> dict[str, Any]:
    """Everything that `apply` makes, by name, without what changes by itself."""
    found = {f"{one['name']} {one['entrypoint']}": one for one in running.ask("deployments/filter", {})}
    made = {name: (one["id"], one["updated"]) for name, one in found.items()}
    return {**made, **{one["name"]: (one["id"], one["updated"]) for one in running.ask("automations/filter", {})}}


def test_the_same_sections_again_change_nothing(running: Scheduler, folder: Path) -> None:
    assert apply(running) == {"reviews": "created"}
    before = on_server(running)
    assert len(before) == 2 + 3 + 2 + 2, "two deployments; automations for triggers, news and silence"
    assert apply(running) == apply(running, "reviews") == {"reviews": "unchanged"}
    assert on_server(running) == before


def test_the_server_follows_the_section(running: Scheduler, folder: Path) -> None:
    apply(running)
    (shown,) = deployments.list_scheduled(running.settings)
    assert (shown["cron"], shown["timezone"], shown["paused"]) == ("0 3 * * 1-5", "Europe/Berlin", False)
    assert shown["on"] == ["drift", "rollback", "version"] and shown["folder"] == str(folder)
    edit(folder / "reviews.yaml", "[version, drift, rollback]", "[drift]")
    edit(folder / "reviews.yaml", "0 3 * * 1-5", "30 4 * * *")
    edit(folder / "reviews.yaml", "  notify: https://hooks.example.org/services/a-secret-path\n", "")
    assert apply(running) == {"reviews": "updated"}
    (shown,) = deployments.list_scheduled(running.settings)
    assert (shown["cron"], shown["on"]) == ("30 4 * * *", ["drift"])
    assert len(on_server(running)) == 1 + 1 + 2, "nobody is notified any more"
    (folder / "reviews.yaml").write_text(EXPERIMENT)
    assert apply(running) == {"reviews": "removed"}
    assert len(on_server(running)) == 2, "what watches for silence stays"


def test_another_folder_is_left_alone(
    running: Scheduler, folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(running)
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    assert apply(running) == {}
    assert [one["experiment"] for one in deployments.list_scheduled(running.settings)] == ["reviews"]
    monkeypatch.chdir(folder)


def test_each_event_starts_one_run_unless_paused_or_of_its_own_making(running: Scheduler, folder: Path) -> None:
    apply(running)
    settings = running.settings

    def waiting() -> list[dict[str, Any]]:
        return [run for run in running.runs(begun=False) if not run["auto_scheduled"]]

    deployments.set_paused(settings, "reviews", True)
    assert apply(running) == {"reviews": "unchanged"}, "what somebody paused stays so"
    assert deployments.list_scheduled(settings)[0]["paused"]
    events.emit(settings, events.DRIFT_FOUND, "reviews", {"score": 1})
    time.sleep(5)  # let it pass before the triggers are back
    deployments.set_paused(settings, None, False)
    with events.retraining(settings, "reviews"):
        events.emit(settings, events.VERSION_REGISTERED, "reviews", {})
    events.emit(settings, events.VERSION_REGISTERED, "other", {})
    for name in (events.VERSION_REGISTERED, events.DRIFT_FOUND, events.ROLLED_BACK):
        assert events.emit(settings, name, "reviews", {})
    running.until(lambda: len(waiting()) >= 3, 60, waiting)
    time.sleep(5)
    assert len(waiting()) == 3, "one each, and none of the four before"


def test_the_webhook_is_not_on_the_server(running: Scheduler, folder: Path) -> None:
    apply(running)
    held = b"".join(path.read_bytes() for path in (running.folder / ".slipway").glob("prefect.db*"))
    assert b"hooks.example.org" not in held and b"reviews.yaml" in held
    assert b"a-secret-path" not in (running.folder / "server.log").read_bytes()
