"""Commands about schedules: put them on the Prefect server, list, pause and resume them."""

from typing import Any

import click

from flows.commands.output import as_json, emit, table, workplace


@click.group()
def schedule() -> None:
    """Retrain by itself: by the clock, on a new dataset version, on drift, on a rollback.

    Experiments say when, in their `schedule:` section. What runs then is what `slipway retrain` runs.

    Example: slipway schedule apply
    """


@schedule.command()
@click.argument("experiment", required=False)
@as_json
def apply(experiment: str | None, as_json: bool) -> None:
    """Bring the Prefect server to what the experiments' `schedule:` sections say.

    Without EXPERIMENT: all in this folder and in `experiments/`; what has no section any more is removed.

    Example: slipway schedule apply
    """
    from flows.orchestration.deployments import apply as put

    done = put(workplace(create=True), experiment)

    def human(body: list[dict[str, str]]) -> None:
        for one in body:
            click.echo(f"{one['experiment']}: {one['done']}")
        if not body:
            click.echo("no experiment here has a schedule: section")

    emit(done, as_json, human)


@schedule.command("list")
@as_json
def list_schedules(as_json: bool) -> None:
    """What is scheduled, when it runs next, and how its last run ended.

    Example: slipway schedule list
    """
    from flows.orchestration.deployments import list_scheduled

    def human(body: list[dict[str, Any]]) -> None:
        if not body:
            click.echo("nothing is scheduled: slipway schedule apply")
            return
        rows = [
            [
                one["experiment"],
                f"{one['cron']} {one['timezone']}" if one["cron"] else "",
                ", ".join(one["on"]),
                "paused" if one["paused"] else one["next"],
                one["last"],
                one["ended"],
            ]
            for one in body
        ]
        table(rows, ["experiment", "cron", "on", "next", "last run", "ended"])

    emit(list_scheduled(workplace()), as_json, human)


@schedule.command()
@click.argument("experiment", required=False)
@as_json
def pause(experiment: str | None, as_json: bool) -> None:
    """Start nothing by itself until resumed: EXPERIMENT, or all. A run at work goes on.

    Example: slipway schedule pause reviews
    """
    _set(experiment, True, as_json)


@schedule.command()
@click.argument("experiment", required=False)
@as_json
def resume(experiment: str | None, as_json: bool) -> None:
    """Take the schedule up again: of EXPERIMENT, or of all.

    Example: slipway schedule resume reviews
    """
    _set(experiment, False, as_json)


def _set(experiment: str | None, paused: bool, as_json: bool) -> None:
    from flows.orchestration.deployments import set_paused

    names = set_paused(workplace(), experiment, paused)
    said = f"{'paused' if paused else 'resumed'}: {', '.join(names)}" if names else "nothing is scheduled"
    emit([{"experiment": name, "paused": paused} for name in names], as_json, lambda _: click.echo(said))


COMMANDS = (schedule,)
