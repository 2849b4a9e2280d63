"""What runs on a schedule: the flows of the deployments that `slipway schedule apply` makes.

They are loaded by Prefect's engine in a process of their own (`runner` beside this file), in the folder that the
deployment names, and do what the commands do there.
"""

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.logging import get_run_logger
from prefect.runtime import deployment
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Completed, Failed, State

from flows.config import load_config
from flows.graph import build_graph
from flows.orchestration import events
from flows.orchestration.deployments import NOTIFY, RETRAIN
from flows.orchestration.notify import message, tell
from flows.orchestration.schedule import parse_schedule
from flows.retrain import Report, run_steps
from infra.errors import Refused, SlipwayError
from infra.settings import Settings, load_settings
from training.run_log import DEAD_AFTER_S, Busy, Overtaken

BUSY_TRIES = 4
BUSY_PAUSE_S = DEAD_AFTER_S / 2


@flow(name=RETRAIN, flow_run_name="{name}", persist_result=False)
def retrain(experiment: str, name: str) -> State[Any]:
    """As `slipway retrain EXPERIMENT`. The final state's name says what came of it, its message why.

    name: the experiment's, also where its file cannot be read any more.
    """
    settings = _settings()
    _skip_waiting()
    try:
        with events.retraining(settings, name):
            report = _run(settings, experiment, name)
    except SlipwayError as error:
        return Failed(message=str(error))
    if isinstance(report, Refused):
        return Completed(name="Left to another", message=str(report))
    for line in describe(report):
        get_run_logger().info(line)
    return outcome(settings, name, report)


def _run(settings: Settings, experiment: str, name: str) -> Report | Refused:
    """What was done; or why it is left to somebody who is at it, on the command line say.

    An attempt that died a moment ago may look alive for a minute, so it is asked again before.
    """
    for tries_left in reversed(range(BUSY_TRIES)):
        try:
            return run_steps(settings, build_graph(settings, load_config(experiment)), name)
        except Overtaken as error:
            return error
        except Busy as error:
            if not tries_left:
                return error
            time.sleep(BUSY_PAUSE_S)
    raise AssertionError("unreachable")


def outcome(settings: Settings, name: str, report: Report) -> State[Any]:
    """The final state of a retrain that came to its end."""
    ran = [one.step for one in report.decisions if not one.cached]
    gated, promoted = (report.outputs.get(f"{kind} {name}", {}) for kind in ("gate", "promote"))
    rejected = gated.get("passed") is False
    waits = promoted.get("waits")
    because = "the gates said no to the newest candidate" if rejected else waits
    if not ran:
        note = f"; {because}" if because else ""
        return Completed(name="Up to date", message=f"nothing it depends on has changed{note}")
    done = f"ran {', '.join(ran)}"
    if rejected and f"gate {name}" in ran:
        events.emit(settings, events.FAILED, name, {"outcome": "rejected", "reason": because, **gated})
        return Failed(name="Rejected", message=f"{because} (scorecards/{gated['scorecard']}); {done}")
    if waits:
        return Completed(name="Waiting", message=f"{waits}; {done}")
    if promoted.get("promoted") and f"promote {name}" in ran:
        return Completed(name="Promoted", message=f"{name}/{report.outputs[f'train {name}']['version']}; {done}")
    return Completed(message=done)


def describe(report: Report) -> list[str]:
    """A line a step: what was done and why."""
    return [f"{one['step']}: {one['status']} ({'; '.join(one['reasons'])})" for one in report.to_json()]


@flow(name=NOTIFY, flow_run_name="{subject}: {event}", persist_result=False)
def notify(
    experiment: str, event: str = "", subject: str = "", occurred: str = "", payload: dict[str, Any] | None = None
) -> State[Any]:
    """Tell whom the experiment's `notify` names of an event. Reads it from the file: the server never has it."""
    config = load_config(experiment)
    schedule = parse_schedule(config.schedule, f"experiment {config.name}")
    if schedule is None or not schedule.notify:
        return Completed(name="Nobody to tell", message=f"{experiment} names nobody under schedule.notify any more")
    about = subject if event.startswith("slipway.") else config.name  # Prefect's own are named after a flow run
    try:
        tell(schedule.notify, message(event, about, occurred, payload or {}))
    except SlipwayError as error:
        return Failed(message=str(error))
    return Completed(message=f"told of {event}")


def _skip_waiting() -> None:
    """End the runs of this deployment that are due and wait for this one: it sees all that they would have seen."""
    if not deployment.id:
        return
    due = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
    )
    ours = DeploymentFilter(id=DeploymentFilterId(any_=[UUID(deployment.id)]))
    skipped: State[Any] = Cancelled(name="Skipped", message="a run that began later does what this one was to do")
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=due, deployment_filter=ours):
            client.set_flow_run_state(run.id, skipped)


def _settings() -> Settings:
    """As the folder and the environment say, with the server that this run belongs to."""
    settings = load_settings()
    settings.create_workspace()
    return replace(settings, prefect_api=PREFECT_API_URL.value() or settings.prefect_api)
