"""A model that is retrained by itself: by the clock, by events, and after everything was killed. Minutes long.

Nothing here is timed; what was seen is printed (pytest -s), for a machine that does nothing else.
"""

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psutil
import pytest

from flows.orchestration import events
from infra import service_records
from infra.service_records import Service
from infra.services import log_of
from tests.flows.scheduler import Scheduler, Webhook
from tests.flows.shop import EXPERIMENT, Shop

pytestmark = pytest.mark.slow

CLOCK = 'schedule:\n  cron: "* * * * *"\n  notify: {url}\n'
TRIGGERS = "schedule:\n  on: [version, drift]\n  notify: {url}\n"
RIDES = """\
recipe: tabular
dataset: rides
contract: rides.odcs.yaml
settings: {num_trees: 40, min_samples_leaf: 5}
gates: {threshold: {metric: accuracy, minimum: 0.7}, package: {}}
"""
RIDES_CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: rides
version: 1.0.0
status: active
servers:
  - {server: files, type: local, path: rides.csv, format: csv}
schema:
  - name: rides
    properties:
      - {name: near, logicalType: integer, required: true}
      - {name: far, logicalType: integer, required: true}
      - {name: label, logicalType: string, required: true}
customProperties:
  - {property: slipway.label, value: label}
"""
LONG = EXPERIMENT.replace("{epochs: 6,", "{epochs: 150, checkpoint_every_s: 0.5,").replace("workers: 2", "workers: 1")
LONG += "contract: reviews.odcs.yaml\n"


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    server = Webhook()
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, ray_address: str) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"), ray_address)


@pytest.fixture(scope="module")
def running(shop: Shop) -> Iterator[Scheduler]:
    with socket.socket() as one, socket.socket() as two:
        for name, probe in (("MLFLOW", one), ("PREFECT", two)):
            probe.bind(("127.0.0.1", 0))
            shop.environment[f"SLIPWAY_{name}_PORT"] = str(probe.getsockname()[1])
    shop.run("up")
    yield Scheduler(shop.folder, running_services(shop)["prefect"].url + "/api")
    shop.run("down")


def running_services(shop: Shop) -> dict[str, Service]:
    return service_records.running(shop.folder / ".slipway")


def write(shop: Shop, experiment: str, text: str, webhook: Webhook) -> None:
    (shop.folder / f"{experiment}.yaml").write_text(text.replace("{url}", webhook.url))
    shop.run("schedule", "apply")


def write_rides(shop: Shop, num_rows: int) -> None:
    values = np.random.default_rng(0).integers(0, 1000, (num_rows, 2)).tolist()
    lines = [f"{near},{far},{'busy' if near + far > 1000 else 'quiet'}" for near, far in values]
    (shop.folder / "rides.csv").write_text("\n".join(["near,far,label", *lines]) + "\n")


def begun(running: Scheduler, experiment: str) -> list[dict[str, Any]]:
    return [run for run in running.runs() if run["name"] == experiment]


def ended(running: Scheduler, experiment: str, number: int) -> Any:
    """The flow run of that number, counted from 1, once it has ended."""
    found = begun(running, experiment)
    return found[number - 1] if len(found) >= number and found[number - 1]["end_time"] else None


def seconds(run: dict[str, Any], since: datetime) -> float:
    return (datetime.fromisoformat(run["start_time"]) - since).total_seconds()


def said(running: Scheduler) -> str:
    return log_of(running.settings.folder, "runner").read_text()[-5000:]


def drivers() -> int:
    """How many processes have ever joined the session's Ray cluster to train there."""
    import ray

    return len(ray._private.state.jobs())


@pytest.fixture(scope="module")
def by_the_clock(shop: Shop, running: Scheduler, webhook: Webhook) -> list[dict[str, Any]]:
    """Two runs that a cron of one minute started: one with everything to do, one with nothing."""
    began = datetime.now(UTC)
    write_rides(shop, 700)
    (shop.folder / "rides.odcs.yaml").write_text(RIDES_CONTRACT)
    write(shop, "rides", RIDES + CLOCK, webhook)
    first = running.until(lambda: ended(running, "rides", 1), 900, lambda: said(running))
    second = running.until(lambda: ended(running, "rides", 2), 600, lambda: said(running))
    print(f"\ncron: begun after {seconds(first, began):.0f} s, took {first['total_run_time']:.1f} s")
    print(f"nothing to do: took {second['total_run_time']:.1f} s")
    write(shop, "rides", RIDES + TRIGGERS, webhook)
    running.until(lambda: not [run for run in running.runs() if not run["end_time"]], 300)
    return [first, second]


def test_a_cron_of_one_minute_retrains_by_itself(shop: Shop, by_the_clock: list[dict[str, Any]]) -> None:
    assert by_the_clock[0]["state"]["name"] == "Promoted", by_the_clock[0]["state"]
    assert by_the_clock[0]["auto_scheduled"]
    assert shop.ask("champion", "rides")["version"] == 1


def test_a_run_with_nothing_to_do_is_up_to_date(by_the_clock: list[dict[str, Any]]) -> None:
    state = by_the_clock[1]["state"]
    assert (state["type"], state["name"]) == ("COMPLETED", "Up to date")


def only_run_after(running: Scheduler, number: int) -> Any:
    """The one run of `rides` that began; waits until a second one would have come too."""
    began = datetime.now(UTC)
    run = running.until(lambda: ended(running, "rides", number + 1), 900, lambda: said(running))
    print(f"\nbegun after {seconds(run, began):.1f} s, took {run['total_run_time']:.1f} s: {run['state']['name']}")
    time.sleep(45)
    assert len(begun(running, "rides")) == number + 1
    return run


def test_a_registered_version_starts_exactly_one_retrain(
    shop: Shop, running: Scheduler, by_the_clock: list[dict[str, Any]]
) -> None:
    number = len(begun(running, "rides"))
    write_rides(shop, 760)
    assert shop.ask("data", "register", "rides.odcs.yaml")["created"]
    run = only_run_after(running, number)
    assert run["state"]["type"] == "COMPLETED" and "train rides" in run["state"]["message"]
    assert not shop.ask("data", "register", "rides.odcs.yaml")["created"]


def test_drift_starts_exactly_one_retrain_and_the_webhook_hears_of_it(
    running: Scheduler, webhook: Webhook, by_the_clock: list[dict[str, Any]]
) -> None:
    number = len(begun(running, "rides"))
    events.emit(running.settings, events.DRIFT_FOUND, "rides", {"reason": "far is farther"})
    run = only_run_after(running, number)
    assert run["state"]["name"] == "Up to date", "drift alone is no new data"
    news = running.until(lambda: [one for one in webhook.heard if one["event"] == events.DRIFT_FOUND], 300)
    assert len(news) == 1 and news[0]["model"] == "rides" and "far is farther" in news[0]["text"]


def test_what_was_killed_is_marked_and_the_next_run_resumes_it(
    shop: Shop, running: Scheduler, webhook: Webhook
) -> None:
    import mlflow

    write(shop, "reviews", LONG + TRIGGERS, webhook)
    events.emit(running.settings, events.DRIFT_FOUND, "reviews", {})

    def training() -> Any:
        return next((one for one in shop.ask("runs") if one["status"] == "running" and one["step"] > 200), None)

    run = running.until(training, 900, lambda: said(running))
    killed_at = datetime.now(UTC)
    worker = psutil.Process(running_services(shop)["runner"].pid)
    for process in [worker, *worker.children(recursive=True)]:
        process.kill()
    crashed = running.until(lambda: ended(running, "reviews", 1), 600, lambda: running.runs()[-1]["state"])
    marked = (datetime.fromisoformat(crashed["state"]["timestamp"]) - killed_at).total_seconds()
    print(f"\nkilled at step {run['step']}; marked {crashed['state']['name']} after {marked:.1f} s")
    assert crashed["state"]["type"] == "CRASHED", crashed["state"]

    shop.run("up")
    news = running.until(lambda: [one for one in webhook.heard if one["event"].endswith("Crashed")], 300)
    assert news[0]["model"] == "reviews"
    events.emit(running.settings, events.DRIFT_FOUND, "reviews", {})
    running.until(lambda: ended(running, "reviews", 2), 900, lambda: said(running))
    (resumed,) = [one for one in shop.ask("runs") if one["run"] == run["run"]]
    print(f"resumed: {resumed['attempts']} attempts, {resumed['step']} of {resumed['num_steps']} steps")
    assert (resumed["status"], resumed["attempts"], resumed["step"]) == ("finished", 2, resumed["num_steps"])
    client = mlflow.MlflowClient(f"sqlite:///{shop.folder}/.slipway/mlflow.db")
    experiment = client.get_experiment_by_name("reviews")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.`slipway.run` = '{run['run']}'")
    history = client.get_metric_history(runs[0].info.run_id, "loss")
    assert len(runs) == 1 and runs[0].info.status == "FINISHED"
    assert sorted(point.step for point in history) == list(range(1, resumed["num_steps"] + 1)), "every step once"

    joined = drivers()
    events.emit(running.settings, events.DRIFT_FOUND, "reviews", {})
    last = running.until(lambda: ended(running, "reviews", 3), 600, lambda: said(running))
    assert last["state"]["name"] == "Up to date" and drivers() == joined, "with nothing to do Ray is not asked"


def test_a_failure_is_told_in_one_line_and_the_webhook_nowhere(
    shop: Shop, running: Scheduler, webhook: Webhook
) -> None:
    number = len(begun(running, "rides"))
    (shop.folder / "rides.csv").unlink()
    events.emit(running.settings, events.DRIFT_FOUND, "rides", {})
    run = running.until(lambda: ended(running, "rides", number + 1), 600, lambda: said(running))
    assert run["state"]["type"] == "FAILED" and "rides.csv" in run["state"]["message"]
    news = running.until(lambda: [one for one in webhook.heard if one["event"] == events.FAILED], 300)
    assert news[0]["model"] == "rides" and "rides.csv" in news[0]["text"]
    found = [path for path in shop.folder.rglob("*") if path.is_file() and b"a-secret-path" in path.read_bytes()]
    assert {path.name for path in found} == {"rides.yaml", "reviews.yaml"}
