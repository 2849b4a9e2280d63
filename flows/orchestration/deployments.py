"""Experiments' `schedule:` sections as deployments on a Prefect server, and back.

An experiment with a section is the deployment `retrain/<name>`: cron, triggers, one run at a time. One with
`notify:` has a second, `notify/<name>`, that events start. Both carry the tag `slipway` and the folder they belong to:
what stands in another folder is left alone. `scheduled` beside this file holds what they run, `runner` what runs it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from flows.config import load_config
from flows.orchestration import events
from flows.orchestration.schedule import EVENTS, POOL, TAG, Schedule, parse_schedule
from flows.orchestration.zombies import watch
from infra.digests import digest
from infra.errors import SlipwayError, WrongInput, choices
from infra.settings import Settings
from training.experiment import experiment_path

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.events.schemas.automations import Automation, AutomationCore

RETRAIN, NOTIFY = "retrain", "notify"
"""Names of the two flows. The first is also that of a retrain by hand."""
TOLD = (events.FAILED, events.DRIFT_FOUND, events.WAITING)
"""What `notify` hears of; and of a flow run that crashed, which cannot tell of itself."""
LIMIT = 200
"""Objects a page of Prefect's API."""


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """An experiment with a `schedule:` section."""

    name: str
    file: str
    """As `load_config` takes it in `folder`."""
    dataset: str
    schedule: Schedule


@contextmanager
def server(settings: Settings) -> "Iterator[SyncPrefectClient]":
    """A client of the configured server. Raises WrongInput without one, SlipwayError where it does not answer."""
    if not settings.prefect_api:
        raise WrongInput("schedule: there is no Prefect server; start one (slipway up) or set SLIPWAY_PREFECT_API")
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_API_URL: settings.prefect_api, PREFECT_CLIENT_MAX_RETRIES: 2}):
        try:
            with get_client(sync_client=True) as client:
                yield client
        except PrefectHTTPStatusError as error:
            detail = str(error.response.text)[:200]
            raise SlipwayError(f"schedule: Prefect's server said {error.response.status_code}: {detail}") from error
        except httpx.TransportError as error:
            raise SlipwayError(
                f"schedule: Prefect's server does not answer ({type(error).__name__}); slipway status, or check "
                "SLIPWAY_PREFECT_API"
            ) from error


def find_scheduled(experiment: str | None = None) -> list[Scheduled]:
    """Experiments with a section: the one named, else all in this folder and `experiments/`. Raises WrongInput."""
    if experiment:
        files = [experiment_path(experiment)]
    else:
        files = [path for folder in (Path(), Path("experiments")) for path in sorted(folder.glob("*.yaml"))]
        files = [path for path in files if _has_section(path)]
    found: dict[str, Scheduled] = {}
    for path in files:
        config = load_config(str(path))
        section = parse_schedule(config.schedule, f"experiment {config.name}")
        if section is None:
            raise WrongInput(f"experiment {path}: has no schedule: section; add one, with cron: or on:")
        if config.name in found:
            raise WrongInput(f"experiment {path}: is called {config.name}, as {found[config.name].file} is; rename one")
        found[config.name] = Scheduled(name=config.name, file=str(path), dataset=config.dataset_name, schedule=section)
    return list(found.values())


def _has_section(path: Path) -> bool:
    """Whether it is an experiment with a schedule; other YAML lies in folders too."""
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError):
        return False
    return isinstance(body, dict) and "recipe" in body and bool(body.get("schedule"))


def apply(settings: Settings, experiment: str | None = None) -> list[dict[str, str]]:
    """Bring the server to what the sections say; what has none any more is removed. Returns what was done to each.

    The same sections again change nothing. A deployment that somebody paused stays so.
    """
    wanted = find_scheduled(experiment)
    folder = str(Path.cwd())
    done = []
    with server(settings) as client:
        _make_pool(client)
        watch(client)
        there = {one.name: one for one in _ours(client, RETRAIN, folder)}
        notifying = {one.name: one for one in _ours(client, NOTIFY, folder)}
        for one in wanted:
            done.append({"experiment": one.name, "done": _apply(client, one, folder, there.get(one.name))})
            if one.schedule.notify:
                _apply_notify(client, one, folder, notifying.pop(one.name, None))
            elif one.name in notifying:
                _remove(client, notifying.pop(one.name))
        if experiment is None:
            gone = there.keys() - {one.name for one in wanted}
            for name in sorted(gone):
                _remove(client, there[name])
                done.append({"experiment": name, "done": "removed"})
            for name in gone & notifying.keys():
                _remove(client, notifying[name])
    return done


def list_scheduled(settings: Settings) -> list[dict[str, Any]]:
    """What is on the server, of every folder: when it runs, whether it is paused, how its last run ended."""
    with server(settings) as client:
        return [_describe(client, one) for one in sorted(_ours(client, RETRAIN), key=lambda one: one.name)]


def set_paused(settings: Settings, experiment: str | None, paused: bool) -> list[str]:
    """Pause or resume one experiment, or all; cron and triggers alike. Returns their names. Raises WrongInput."""
    with server(settings) as client:
        found = _ours(client, RETRAIN)
        if experiment:
            names = [one.name for one in found]
            found = [one for one in found if one.name == experiment]
            if not found:
                there = choices(experiment, names)
                raise WrongInput(f"experiment '{experiment}': is not scheduled; {there} (slipway schedule apply)")
        for one in found:
            _set_paused(client, one.id, paused)
    return [one.name for one in found]


# One deployment -----------------------------------------------------------------------------------------------------


def _apply(client: "SyncPrefectClient", one: Scheduled, folder: str, before: "DeploymentResponse | None") -> str:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
    from prefect.client.schemas.schedules import CronSchedule

    schedule = one.schedule
    paused = schedule.pause or bool(before and before.paused)
    version = _version(one, folder)
    same = before is not None and (before.version, before.paused) == (version, paused)
    if before and same and len(_automations(client, before.id)) == len(schedule.on):
        return "unchanged"
    crons = []
    if schedule.cron:
        cron = CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
        crons.append(DeploymentScheduleCreate(schedule=cron, active=True))
    identity = client.create_deployment(
        flow_id=client.create_flow_from_name(RETRAIN),
        name=one.name,
        version=version,
        description=f"Brings {one.name} up to date, as `slipway retrain {one.file}` in {folder} does.",
        schedules=crons,
        concurrency_limit=1,
        # A run that comes while another is at work waits: what an event told of may be news to that one.
        concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.ENQUEUE),
        entrypoint="flows.orchestration.scheduled.retrain",
        parameters={"experiment": one.file, "name": one.name},
        tags=[TAG],
        paused=paused,
        **_place(client, folder),
    )
    wanted = []
    for name in schedule.on:
        subject = one.dataset if name == "version" else one.name
        match = {"prefect.resource.id": "slipway.*", events.SUBJECT: subject, events.BY: f"!{one.name}"}
        title = f"slipway: {name} of {subject} retrains {one.name}"
        wanted.append(_automation(identity, title, {EVENTS[name]}, match, enabled=not paused))
    _replace_automations(client, identity, wanted)
    return "updated" if before else "created"


def _apply_notify(
    client: "SyncPrefectClient", one: Scheduled, folder: str, before: "DeploymentResponse | None"
) -> None:
    version = _version(one, folder)
    if before and before.version == version and len(_automations(client, before.id)) == 2:
        return
    identity = client.create_deployment(
        flow_id=client.create_flow_from_name(NOTIFY),
        name=one.name,
        version=version,
        description=f"Tells whom {one.file} names under `notify` of failure, drift and candidates that wait.",
        entrypoint="flows.orchestration.scheduled.notify",
        parameters={"experiment": one.file},
        tags=[TAG],
        **_place(client, folder),
    )
    retrain = client.read_deployment_by_name(f"{RETRAIN}/{one.name}").id
    parameters = {
        "experiment": one.file,
        "event": "{{ event.event }}",
        "subject": "{{ event.resource.name }}",
        "occurred": "{{ event.occurred.isoformat() }}",
        "payload": {"__prefect_kind": "json", "value": {"__prefect_kind": "jinja", "template": PAYLOAD}},
    }
    about = {"prefect.resource.id": "slipway.*", events.SUBJECT: one.name}
    told = _automation(identity, f"slipway: news of {one.name}", set(TOLD), about, parameters)
    flow_run = {"prefect.resource.id": "prefect.flow-run.*"}
    by = {"prefect.resource.id": f"prefect.deployment.{retrain}", "prefect.resource.role": "deployment"}
    title = f"slipway: a crash of {one.name}"
    crashed = _automation(identity, title, {"prefect.flow-run.Crashed"}, flow_run, parameters, related=by)
    _replace_automations(client, identity, [told, crashed])


PAYLOAD = "{{ event.payload | tojson }}"


def _version(one: Scheduled, folder: str) -> str:
    """Stands for all that a deployment is made of, but for whom it notifies: that stays in the file."""
    section = one.schedule.model_dump(mode="json", exclude={"notify"})
    return digest({"format": 1, "section": section, "file": one.file, "dataset": one.dataset, "folder": folder,
                   "python": sys.executable})[:12]  # fmt: skip


def _place(client: "SyncPrefectClient", folder: str) -> dict[str, Any]:
    """Where and by what command a run is started; a pool of another type than ours has its own folder and image."""
    local = client.read_work_pool(POOL).type == "process"
    job = {"command": f"{sys.executable if local else 'python'} -P -m flows.orchestration.runner execute"}
    if local:
        job["working_dir"] = folder
    return {"work_pool_name": POOL, "job_variables": job, "path": folder, "parameter_openapi_schema": {},
            "enforce_parameter_schema": False}  # fmt: skip


def _make_pool(client: "SyncPrefectClient") -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))


def _automation(
    deployment: "UUID",
    title: str,
    expect: set[str],
    match: dict[str, str],
    parameters: dict[str, Any] | None = None,
    enabled: bool = True,
    related: dict[str, str] | None = None,
) -> "AutomationCore":
    from prefect.events.actions import RunDeployment
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    action = RunDeployment(source="selected", deployment_id=deployment, parameters=parameters)
    return AutomationCore(
        name=title,
        enabled=enabled,
        tags=[TAG],
        trigger=EventTrigger(
            expect=expect, match=match, match_related=related or {}, posture=Posture.Reactive, threshold=1
        ),
        actions=[action],
        owner_resource=f"prefect.deployment.{deployment}",
    )


def _replace_automations(client: "SyncPrefectClient", deployment: "UUID", wanted: "list[AutomationCore]") -> None:
    client.delete_resource_owned_automations(f"prefect.deployment.{deployment}")
    for one in wanted:
        client.create_automation(one)


def _automations(client: "SyncPrefectClient", deployment: "UUID") -> "list[Automation]":
    """Those that start a deployment. Whose they are (`owner_resource`) the server keeps to itself."""
    found: list[Automation] = []
    while page := client.read_automations(limit=LIMIT, offset=len(found)):
        found += page
    return [one for one in found if deployment in (getattr(action, "deployment_id", None) for action in one.actions)]


def _set_paused(client: "SyncPrefectClient", deployment: "UUID", paused: bool) -> None:
    (client.pause_deployment if paused else client.resume_deployment)(deployment)
    for one in _automations(client, deployment):  # a paused deployment's triggers would start it all the same
        (client.pause_automation if paused else client.resume_automation)(one.id)


def _remove(client: "SyncPrefectClient", one: "DeploymentResponse") -> None:
    client.delete_resource_owned_automations(f"prefect.deployment.{one.id}")
    client.delete_deployment(one.id)


def _ours(client: "SyncPrefectClient", flow: str, folder: str | None = None) -> "list[DeploymentResponse]":
    """Slipway's deployments of a flow; of one folder where it is given."""
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName

    named = FlowFilter(name=FlowFilterName(any_=[flow]))
    found: list[DeploymentResponse] = []
    while page := client.read_deployments(flow_filter=named, limit=LIMIT, offset=len(found)):
        found += page
    return [one for one in found if TAG in one.tags and folder in (None, one.path)]


def _describe(client: "SyncPrefectClient", one: "DeploymentResponse") -> dict[str, Any]:
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
    from prefect.client.schemas.sorting import FlowRunSort

    only = DeploymentFilter(id=DeploymentFilterId(any_=[one.id]))
    runs = client.read_flow_runs(deployment_filter=only, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=LIMIT)
    begun = next((run for run in runs if run.start_time), None)
    coming = [run.expected_start_time for run in runs if run.state and run.state.is_scheduled()]
    starts = {event: name for name, event in EVENTS.items()}
    expected = {event for found in _automations(client, one.id) for event in getattr(found.trigger, "expect", ())}
    cron = next((found.schedule for found in one.schedules), None)
    return {
        "experiment": one.name,
        "cron": getattr(cron, "cron", None),
        "timezone": getattr(cron, "timezone", None),
        "on": sorted(starts[event] for event in expected & starts.keys()),
        "paused": one.paused,
        "next": min((when.isoformat(timespec="seconds") for when in coming if when), default=None),
        "last": begun.start_time.isoformat(timespec="seconds") if begun and begun.start_time else None,
        "ended": begun.state.name if begun and begun.state else None,
        "message": begun.state.message if begun and begun.state else None,
        "folder": one.path,
    }
