"""MLflow follows the log: one run, each step once and with its first value, whatever dies or is away meanwhile."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra import tracking
from infra.errors import SlipwayError
from infra.patience import patiently
from infra.settings import Settings
from training.projection import Projection, ranges, steps_of
from training.run_log import AttemptLog, RunLog, begin_attempt, read_tail

FACTS: dict[str, Any] = {
    "parameters": {"training.seed": 0},
    "tags": {"slipway.author": "ada"},
    "dataset": {"name": "reviews", "digest": "d" * 64, "counts": {"train": 7}},
}
RUN = "reviews-0123456789ab-1"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One MLflow database for all: migrating a new one takes seconds."""
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture
def settings(workspace: Path, tmp_path: Path) -> Settings:
    return Settings(workspace=str(workspace), store=str(tmp_path / "store"))


@pytest.fixture
def log(settings: Settings) -> RunLog:
    log = RunLog(settings.object_store, RUN)
    log.append("run", key="k")
    return log


def begin(log: RunLog, from_step: int = 0) -> AttemptLog:
    state = read_tail(log)
    return begin_attempt(log, state, state.attempt, str(state.attempt), workers=1, from_step=from_step, checkpoint=None)


def report(writer: AttemptLog, steps: range, loss: float = 1.0, **more: float) -> None:
    points = [[step, {"loss": loss / step, **more}, time.time()] for step in steps]
    writer.append("metrics", points=points)


def project(settings: Settings, log: RunLog, title: str) -> Projection:
    """A driver's projection, once, as of a new process."""
    projection = Projection(settings, log, title, FACTS)
    projection.sync()
    return projection


def losses(settings: Settings, title: str) -> dict[str, list[tuple[int, float]]]:
    return tracking.metric_history(settings, title, RUN, "loss")


def test_a_replayed_step_keeps_its_first_value_and_the_run_says_where_the_replay_differed(
    settings: Settings, log: RunLog
) -> None:
    first = begin(log)
    report(first, range(1, 6))
    first.append("checkpoint", step=5, place="p", digest="d")
    report(first, range(6, 11), **{"system/cpu_percent": 5.0})
    project(settings, log, "replayed")
    second = begin(log, from_step=5)
    report(second, range(6, 9), **{"system/cpu_percent": 9.0})
    report(second, range(9, 13), loss=1.5)
    found = project(settings, log, "replayed")
    (history,) = losses(settings, "replayed").values()
    assert history == [(step, 1.0 / step) for step in range(1, 11)] + [(step, 1.5 / step) for step in (11, 12)]
    assert tracking.run_tags(settings, found.run_id)["slipway.replayed_differently"] == "9-10"
    third = begin(log)  # all checkpoints were lost: from the beginning
    report(third, range(1, 14))
    project(settings, log, "replayed")
    project(settings, log, "replayed")
    (history,) = losses(settings, "replayed").values()
    assert [step for step, _ in history] == list(range(1, 14))


def test_a_new_driver_reads_the_log_from_the_newest_checkpoint_where_mlflow_has_the_rest(
    settings: Settings, log: RunLog
) -> None:
    writer = begin(log)
    for step in range(1, 40):
        report(writer, range(step, step + 1))
    writer.append("checkpoint", step=39, place="p", digest="d")
    project(settings, log, "tail")
    report(writer, range(40, 42))
    read: list[int] = []

    class Watched(RunLog):
        def read(self, sequence: int) -> dict[str, Any]:
            read.append(sequence)
            return super().read(sequence)

    project(settings, Watched(log.store, log.run), "tail")
    assert not set(range(3, 41)) & set(read), "the entries before the checkpoint's are not read again"
    assert [step for step, _ in next(iter(losses(settings, "tail").values()))] == list(range(1, 42))


def test_drivers_that_meet_make_one_mlflow_run(settings: Settings, log: RunLog) -> None:
    report(begin(log), range(1, 4))
    project(settings, RunLog(log.store, "warm-up"), "meeting")  # the experiment exists
    projections = [Projection(settings, log, "meeting", FACTS) for _ in range(4)]
    threads = [
        # MLflow refuses one of two that log the same dataset at once: it asks again, as it does every few seconds.
        threading.Thread(target=patiently, args=(projection.sync, lambda note: None))
        for projection in projections
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({projection.run_id for projection in projections}) == 1
    assert [[step for step, _ in history] for history in losses(settings, "meeting").values()] == [[1, 2, 3]]


def test_an_mlflow_run_whose_maker_died_before_saying_so_is_taken_up(settings: Settings, log: RunLog) -> None:
    made = tracking.open_run(settings, "orphan", RUN, FACTS)
    report(begin(log), range(1, 4))
    assert project(settings, log, "orphan").run_id == made
    assert list(losses(settings, "orphan")) == [made]


def test_what_was_logged_while_mlflow_was_away_is_there_when_it_is_back(
    tmp_path: Path, workspace: Path, settings: Settings, log: RunLog
) -> None:
    project(settings, log, "away")
    away = Settings(workspace=str(workspace), store=settings.store, tracking_uri=f"sqlite:///{tmp_path}/none/mlflow.db")
    projection = Projection(settings, log, "away", FACTS)
    writer = begin(log)
    report(writer, range(1, 4))
    projection.sync()
    projection.settings = away
    for step in range(4, 9):
        report(writer, range(step, step + 1))
        with pytest.raises(SlipwayError, match="tracking sqlite"):
            projection.sync()
    projection.settings = settings
    projection.sync()
    (history,) = losses(settings, "away").values()
    assert [step for step, _ in history] == list(range(1, 9))


def test_what_is_known_of_the_saved_model_stands_beside_the_metrics_once(settings: Settings, log: RunLog) -> None:
    writer = begin(log)
    report(writer, range(1, 4))
    writer.append("finished", model="m", steps=3, figures={"adapter_bytes": 4096.0}, points=[])
    for _ in range(2):  # the second is a driver that comes later
        project(settings, log, "figures")
    found = tracking.metric_history(settings, "figures", RUN, "adapter_bytes")
    assert list(found.values()) == [[(3, 4096.0)]]


def test_findings_are_on_the_runs_page_once(settings: Settings, log: RunLog) -> None:
    writer = begin(log)
    for _ in range(2):
        writer.append("finding", step=3, sentence="layer 2: half of the units are dead")
        report(writer, range(1, 4))
        project(settings, log, "findings")
    found = project(settings, log, "findings")
    assert tracking.run_tags(settings, found.run_id)["mlflow.note.content"] == (
        "- step 3: layer 2: half of the units are dead"
    )


@pytest.mark.parametrize(
    ("steps", "text"), [([3], "3"), ([3, 4, 5, 9], "3-5,9"), ([1, 3, 5], "1,3,5"), ([10, 11], "10-11")]
)
def test_steps_are_written_as_ranges_and_read_back(steps: list[int], text: str) -> None:
    assert ranges(steps) == text
    assert steps_of(text) == steps
    assert steps_of("") == []


def serve(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    mlflow = Path(sys.executable).parent / "mlflow"
    address = f"sqlite:///{folder}/mlflow.db"
    command = [str(mlflow), "server", "--backend-store-uri", address, "--port", str(port), "--workers", "1"]
    return subprocess.Popen(command, cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL, env=dict(os.environ))  # fmt: skip


def until(condition: Callable[[], Any], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except SlipwayError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.slow
def test_a_server_stopped_for_two_minutes_makes_nobody_wait_and_loses_nothing(
    tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt trains in a process of its own while its driver's projection finds no MLflow server."""
    from tests.training.attempts import RUN, attempt, make_run, wait_for
    from training.feed import read_ledger

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # as `quiet_environment` sets it
    settings = Settings(
        workspace=str(tmp_path), store=str(tmp_path / "store"), tracking_uri=f"http://127.0.0.1:{free_port}"
    )
    server = serve(tmp_path, free_port)
    process = None
    try:
        until(lambda: tracking.probe(settings))
        log = RunLog(settings.object_store, RUN)
        config = make_run(settings.object_store, tmp_path, steps=20_000)

        def fed() -> int:
            return max(read_ledger(tmp_path / "ledger", RUN, [{"attempt": 1, "workers": 1}]), default=0)

        with Projection(settings, log, "outage", FACTS) as projection:
            process = attempt(config)
            wait_for(lambda: projection.position > 2, process)
            os.killpg(server.pid, 9)
            server.wait()
            before = fed()
            time.sleep(120)
            assert projection.problem, "it knows that the server is away"
            during = fed() - before
            server = serve(tmp_path, free_port)
            until(lambda: not projection.problem)
            log.store.put(f"runs/{RUN}/attempts/1/stop", b"{}")
            process.join()
        projection.sync()
        histories = tracking.metric_history(settings, "outage", RUN, "loss")
        steps = [step for history in histories.values() for step, _ in history]
        assert during > 100, "training went on"
        assert len(histories) == 1
        assert steps == list(range(1, read_tail(log).step + 1))
    finally:
        os.killpg(server.pid, 9)
        if process is not None and process.is_alive():
            process.kill()
