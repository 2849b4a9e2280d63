"""Commands about the workspace and its servers: init, up, down, status, doctor."""

from dataclasses import replace
from typing import Any

import click

from flows.commands.output import as_json, emit, table, workplace
from infra import service_records
from infra.errors import SlipwayError, WrongInput
from infra.settings import Settings

NEWEST = 5
"""How many runs `status` shows."""


@click.command()
@as_json
def init(as_json: bool) -> None:
    """Make a workspace in the current folder.

    Example: slipway init
    """
    settings = workplace(create=True)
    settings.object_store.put("workspace.json", b'{"format": 1}')
    document = {"workspace": str(settings.folder), "store": settings.store_uri, "tracking": settings.mlflow_shown}

    def human(body: dict[str, Any]) -> None:
        for name, value in body.items():
            click.echo(f"{name:<10} {value}")
        click.echo("next       slipway demo, or slipway data register CONTRACT")

    emit(document, as_json, human)


@click.command()
@click.option("--host", help="Where the servers listen; beyond this machine only with passwords. Setting: host.")
@click.option("--mlflow-port", type=int, help="Setting: mlflow_port; else 5000, or a free one.")
@click.option("--prefect-port", type=int, help="Setting: prefect_port; else 4200, or a free one.")
@as_json
def up(host: str | None, mlflow_port: int | None, prefect_port: int | None, as_json: bool) -> None:
    """Start the MLflow and Prefect servers and the runner of schedules.

    They go on when the terminal closes, until `slipway down`. What runs already is left alone.

    Example: slipway up --mlflow-port 5001
    """
    from flows.orchestration.schedule import runner_command
    from infra import services
    from infra.progress import stage

    chosen: dict[str, Any] = {"host": host, "mlflow_port": mlflow_port, "prefect_port": prefect_port}
    settings = replace(workplace(), **{name: value for name, value in chosen.items() if value is not None})
    *lines, last = services.open_doors(settings) or [""]
    for line in lines:
        click.echo(f"slipway: {line}", err=True)
    if last:
        raise WrongInput(last)
    with stage("up") as progress:
        started = services.up(settings, runner_command, progress.say)
    document = {
        "services": [
            {**_service(one.service), "started_in_s": None if one.seconds is None else round(one.seconds, 1)}
            for one in started
        ],
        "configured": {
            "mlflow": settings.mlflow_shown if settings.tracks_to_server else None,
            "prefect": services.configured_prefect(settings) or None,
        },
    }

    def human(body: dict[str, Any]) -> None:
        for one in body["services"]:
            how = "runs already" if one["started_in_s"] is None else f"started in {one['started_in_s']:.1f} s"
            click.echo(f"{_TITLES[one['name']]:<9} {one['url'] or 'runs what is scheduled':<28} {how}")
        for name, address in body["configured"].items():
            if address:
                click.echo(f"{_TITLES[name]:<9} {address:<28} configured, not started here")
        click.echo(f"logs      {service_records.folder_of(settings.folder)}\nstop      slipway down")

    emit(document, as_json, human)


@click.command()
@as_json
def down(as_json: bool) -> None:
    """Stop the servers that `slipway up` started here, and what they run.

    Example: slipway down
    """
    from infra import services

    stopped = services.down(workplace())

    def human(body: dict[str, Any]) -> None:
        click.echo(f"stopped {', '.join(_TITLES[name] for name in body['stopped'])}" if stopped else "nothing ran here")

    emit({"stopped": [one.name for one in stopped]}, as_json, human)


_TITLES = {"mlflow": "MLflow", "prefect": "Prefect", "runner": "runner"}


def _service(one: service_records.Service) -> dict[str, Any]:
    alive = one.alive
    return {
        "name": one.name,
        "state": ("runs" if one.ready else "starts") if alive else "died",
        "url": one.url,
        "pid": one.pid,
        "uptime_s": round(one.uptime_s) if alive else None,
        "log": one.log,
    }


@click.command()
@as_json
def status(as_json: bool) -> None:
    """What runs here, the newest runs, the champions and the datasets.

    Example: slipway status --json
    """
    from data_contracts import registry
    from flows import models
    from flows.promotion import decisions as promotion
    from flows.runs import list_runs

    settings = workplace()
    store = settings.object_store
    runs = list_runs(store)
    newest = {name: models.versions(store, name)[-1].version for name in models.names(store)}
    champions = {name: promotion.champion(store, name) for name in newest}
    document = {
        "workspace": str(settings.folder),
        "store": settings.store_uri,
        "tracking": settings.mlflow_shown,
        "services": [_service(one) for one in service_records.read(settings.folder).values()],
        "datasets": [{"ref": one.ref, **one.counts} for one in registry.list_versions(store)],
        "models": [
            {"name": name, "newest": newest[name], "champion": entry.version if (entry := champions[name]) else None}
            for name in newest
        ],
        "runs": [_run(one) for one in runs[-NEWEST:]],
        "unfinished": [_run(one) for one in runs if one["status"] != "finished"],
    }
    emit(document, as_json, lambda body: _show_status(body, settings))


def _run(one: dict[str, Any]) -> dict[str, Any]:
    return {name: one[name] for name in ("run", "began", "status", "step", "num_steps", "model")}


def _show_status(body: dict[str, Any], settings: Settings) -> None:
    click.echo(f"workspace  {body['workspace']}\nstore      {body['store']}\ntracking   {body['tracking']}\n")
    for one in body["services"]:
        since = f"pid {one['pid']}, up {_span(one['uptime_s'])}" if one["uptime_s"] is not None else f"see {one['log']}"
        click.echo(f"{_TITLES[one['name']]:<9}  {one['state']:<6}  {one['url']:<24}  {since}")
    if not body["services"]:
        click.echo("no server was started here: slipway up")
    for name, rows, header, none in (
        ("datasets", [[d["ref"], d["train"], d["validation"], d["test"], d["quarantined"]] for d in body["datasets"]],
         ["dataset", "train", "validation", "test", "quarantined"], "no dataset yet: slipway data register CONTRACT"),
        ("models", [[m["name"], m["newest"], m["champion"] or "none"] for m in body["models"]],
         ["model", "newest", "champion"], "no model yet: slipway train EXPERIMENT"),
        ("runs", [[r["run"], r["began"], r["status"], r["model"]] for r in body["runs"]],
         ["newest runs", "began", "status", "model"], ""),
    ):  # fmt: skip
        click.echo()
        if body[name]:
            table(rows, header)
        elif none:
            click.echo(none)
    for run in body["unfinished"]:
        click.echo(f"\nunfinished run {run['run']}: {run['status']} at step {run['step']}")


def _span(seconds: float) -> str:
    minutes = int(seconds // 60)
    if minutes < 1:
        return f"{int(seconds)} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} days"


@click.command()
@as_json
def doctor(as_json: bool) -> None:
    """Check what Slipway stands on; says what to do about each red line.

    Example: slipway doctor
    """
    from infra.doctor import run_checks

    settings = workplace()
    checks = run_checks(settings)
    document = [{"check": c.name, "ok": c.ok, "found": c.found, "advice": c.advice} for c in checks]

    def human(body: list[dict[str, Any]]) -> None:
        for one in body:
            mark = click.style("ok ", fg="green") if one["ok"] else click.style("RED", fg="red", bold=True)
            click.echo(f"{mark}  {one['check']:<10}  {one['found']}" + ("" if one["ok"] else f"; {one['advice']}"))

    emit(document, as_json, human)
    if not all(check.ok for check in checks):
        raise SlipwayError("doctor: something above is red")


COMMANDS = (init, up, down, status, doctor)
