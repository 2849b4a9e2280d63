"""Steps as flow runs on a Prefect server: what its page shows, what is tried again, what waits, what is not told."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.orchestration import orchestration
from flows.orchestration.orchestration import GPU_LIMIT, run_flow
from flows.orchestration.server import prefect_server
from flows.retrain import run_steps
from flows.steps import Step
from infra.errors import Refused, SlipwayError
from infra.progress import Progress
from infra.settings import Settings, quiet_environment


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Of a workspace with a Prefect server, and a password in an address."""
    folder = tmp_path_factory.mktemp("orchestration")
    own = Settings(workspace=str(folder))
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("PREFECT_API_DATABASE_CONNECTION_URL")  # the test session's; here a test reads its file
        quiet_environment(own)
        server = prefect_server(own)
        # Which `quiet_environment` sets where a server is configured; here Prefect is imported before there is one.
        with server as address, temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: True}):
            yield Settings(workspace=str(folder), prefect_api=address, tracking_uri="http://ann:hunter2@127.0.0.1:9")
            APILogWorker.drain_all()  # or Prefect tries for a minute, at exit, to reach a server that has ended


def ask(settings: Settings, what: str, **body: Any) -> Any:
    """What Prefect's API answers: `flow_runs/filter`."""
    import httpx

    return httpx.post(f"{settings.prefect_api}/{what}", json=body).raise_for_status().json()


def step(name: str, work: Any = lambda progress: None, gpus: float = 0) -> Step:
    return Step(kind="prepare", subject=name, ingredients=lambda _: {"name": name}, damage=lambda _: None, gpus=gpus,
                run=lambda outputs, progress, key: {"made": name, "work": work(progress)})  # fmt: skip


def wait_until(there: Any) -> None:
    """Prefect sends logs in batches."""
    deadline = time.monotonic() + 60
    while not there() and time.monotonic() < deadline:
        time.sleep(0.5)


def test_a_step_is_a_task_of_a_flow_run_with_the_plan_on_its_page(settings: Settings) -> None:
    report = run_steps(settings, [step("one"), step("two")], "both", flow="train", whole_way=False)
    assert report.outputs["prepare two"] == {"made": "two", "work": None}
    (run,) = ask(settings, "flow_runs/filter", flow_runs={"name": {"any_": ["both"]}})
    assert run["state_type"] == "COMPLETED" and run["parameters"] == {"subject": "both"}
    (flow,) = ask(settings, "flows/filter", flows={"id": {"any_": [run["flow_id"]]}})
    assert flow["name"] == "train"
    tasks = ask(settings, "task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}})
    assert {one["name"]: one["state_type"] for one in tasks} == {"prepare one": "COMPLETED", "prepare two": "COMPLETED"}
    (plan,) = ask(settings, "artifacts/filter", artifacts={"key": {"any_": ["plan-both"]}})
    assert plan["type"] == "table" and "never ran here" in plan["data"] and plan["flow_run_id"] == run["id"]
    wait_until(lambda: len(ask(settings, "logs/filter", logs={"flow_run_id": {"any_": [run["id"]]}})) == 2)
    logs = ask(settings, "logs/filter", logs={"flow_run_id": {"any_": [run["id"]]}})
    assert {one["message"] for one in logs} == {f"prepare {n}: runs, because never ran here" for n in ("one", "two")}
    run_steps(settings, [step("one"), step("two")], "both")
    newest = ask(settings, "artifacts/filter", artifacts={"key": {"any_": ["plan-both"]}})
    assert any("Up to date" in one["description"] for one in newest), "that nothing had to run is on the page too"


def test_no_setting_is_told_to_the_server(settings: Settings) -> None:
    run_steps(settings, [step("quiet")], "quiet")
    database = Path(settings.workspace) / "prefect.db"
    held = b"".join(path.read_bytes() for path in database.parent.glob("prefect.db*"))
    assert b"quiet" in held and b"hunter2" not in held


def test_without_a_server_the_same_functions_run_without_prefect(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = (
        "import sys\nfrom infra.settings import Settings\nfrom flows.orchestration.orchestration import run_flow\n"
        "print(run_flow(Settings(), 'train', 'x', lambda run: run.task('train x', lambda progress: 7)))\n"
        "assert 'prefect' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout.strip(), done.returncode) == ("7", 0), done.stderr


def test_an_outage_is_tried_again_and_a_no_is_not(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orchestration, "BACKOFF_S", 0.01)
    tries: dict[str, int] = {}

    def failing(name: str, error: Exception, times: int) -> Any:
        def work(progress: Progress) -> int:
            tries[name] = tries.get(name, 0) + 1
            if tries[name] <= times:
                raise error
            return tries[name]

        return work

    report = run_steps(settings, [step("away", failing("away", SlipwayError("the store is away"), 2))], "away")
    assert report.outputs["prepare away"]["work"] == 3
    for name, error in (("no", Refused("no")), ("bug", KeyError("x"))):
        with pytest.raises(type(error)):
            run_steps(settings, [step(name, failing(name, error, 1))], name)
        assert tries[name] == 1
    with pytest.raises(SlipwayError, match="still away"):
        run_steps(settings, [step("gone", failing("gone", SlipwayError("still away"), 9))], "gone")
    assert tries["gone"] == 1 + orchestration.RETRIES


def test_a_step_that_hangs_is_ended(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(orchestration.TIMEOUT_S, "prepare", 1.0)
    monkeypatch.setattr(orchestration, "RETRIES", 0)
    with pytest.raises(SlipwayError, match=r"prepare slow: .* longer than"):
        run_steps(settings, [step("slow", lambda progress: time.sleep(60))], "slow")


def test_progress_is_on_the_page_while_a_step_runs(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.orchestration.page.LIVE_S", 0.2)
    seen: list[Any] = []

    def work(progress: Progress) -> None:
        progress.update(30, 40, "loss 1.5")
        deadline = time.monotonic() + 30
        while not seen and time.monotonic() < deadline:
            time.sleep(0.2)
            seen.extend(ask(settings, "artifacts/filter", artifacts={"key": {"any_": ["progress-prepare-long"]}}))

    run_steps(settings, [step("long", work)], "long")
    assert float(seen[0]["data"]) == 75.0 and "30/40" in seen[0]["description"] and "loss 1.5" in seen[0]["description"]
    assert seen[0]["task_run_id"]


def test_gpus_are_taken_from_the_servers_limit(settings: Settings) -> None:
    ask(settings, "v2/concurrency_limits/", name=GPU_LIMIT, limit=2)
    seen: list[int] = []

    def work(progress: Progress) -> None:
        (limit,) = ask(settings, "v2/concurrency_limits/filter")
        seen.append(limit["active_slots"])

    run_steps(settings, [step("gpu", work, gpus=1.5), step("cpu", work)], "scarce")
    assert seen == [2, 0], "whole GPUs, and given back"


def test_a_server_that_does_not_answer_is_said_in_one_line(tmp_path: Path, free_port: int) -> None:
    settings = Settings(workspace=str(tmp_path), prefect_api=f"http://127.0.0.1:{free_port}/api")
    with pytest.raises(SlipwayError, match=r"no Prefect server answers .* SLIPWAY_PREFECT_API"):
        run_flow(settings, "train", "x", lambda run: run)
