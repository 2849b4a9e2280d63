"""Commands about the workspace: init, status, doctor."""

from typing import Any

import click

from flows.commands.output import as_json, emit, table, workplace
from infra.errors import SlipwayError


@click.command()
@as_json
def init(as_json: bool) -> None:
    """Make a workspace in the current folder.

    Example: slipway init
    """
    settings = workplace(create=True)
    settings.object_store.put("workspace.json", b'{"format": 1}')
    document = {"workspace": str(settings.folder), "store": settings.store_uri, "tracking": settings.mlflow_uri}

    def human(body: dict[str, Any]) -> None:
        for name, value in body.items():
            click.echo(f"{name:<10} {value}")
        click.echo("next       slipway demo, or slipway data register CONTRACT")

    emit(document, as_json, human)


@click.command()
@as_json
def status(as_json: bool) -> None:
    """Datasets, models and unfinished runs of the workspace.

    Example: slipway status --json
    """
    from data_contracts import registry
    from flows import models, promotion
    from training.run_log import RunLog, read_state, run_names

    settings = workplace()
    store = settings.object_store
    names = models.names(store)
    champions = {name: promotion.champion(store, name) for name in names}
    newest = {name: models.versions(store, name)[-1].version for name in names}
    states = [read_state(RunLog(store, run)) for run in run_names(store)]
    document = {
        "workspace": str(settings.folder),
        "store": settings.store_uri,
        "tracking": settings.mlflow_uri,
        "datasets": [{"ref": one.ref, **one.counts} for one in registry.list_versions(store)],
        "models": [
            {"name": name, "newest": newest[name], "champion": entry.version if (entry := champions[name]) else None}
            for name in names
        ],
        "unfinished": [{"run": s.run, "status": s.status, "step": s.step} for s in states if s.status != "finished"],
    }

    def human(body: dict[str, Any]) -> None:
        click.echo(f"workspace  {body['workspace']}\nstore      {body['store']}\ntracking   {body['tracking']}\n")
        if body["datasets"]:
            table([[d["ref"], d["train"], d["validation"], d["test"], d["quarantined"]] for d in body["datasets"]],
                  ["dataset", "train", "validation", "test", "quarantined"])  # fmt: skip
        else:
            click.echo("no dataset yet: slipway data register CONTRACT")
        click.echo()
        if body["models"]:
            rows = [[m["name"], m["newest"], m["champion"] or "none"] for m in body["models"]]
            table(rows, ["model", "newest", "champion"])
        else:
            click.echo("no model yet: slipway train EXPERIMENT")
        for run in body["unfinished"]:
            click.echo(f"\nunfinished run {run['run']}: {run['status']} at step {run['step']}")

    emit(document, as_json, human)


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


COMMANDS = (init, status, doctor)
