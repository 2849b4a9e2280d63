"""The command that makes room: gc."""

from typing import Any

import click

from flows.commands.output import as_json, emit, table, workplace
from flows.garbage import GRACE_DAYS

SHOWN = 20
"""Things that a person is shown one by one; --json lists all."""


@click.command()
@click.option("--yes", is_flag=True, help="Remove what is listed; without it nothing is removed.")
@click.option(
    "--grace", type=click.FloatRange(min=0), default=GRACE_DAYS, show_default=True, metavar="DAYS",
    help="Nothing younger goes.",
)  # fmt: skip
@as_json
def gc(yes: bool, grace: float, as_json: bool) -> None:
    """What nothing needs any more: lists it, and with --yes removes it.

    Kept: tagged dataset versions; every version that ever was champion (rollback reaches them all), with all that
    `verify` looks at; candidates newer than the champion and not turned down; runs that can go on; the newest result of
    each step. Rows of withdrawn and expired versions go. Runs' logs, promotions and MLflow's packages stay.

    Example: slipway gc --yes
    """
    from dataclasses import asdict

    from flows.garbage import find, remove
    from infra.progress import stage

    settings = workplace()
    with stage("gc") as progress:
        progress.say("looking at what is needed")
        found = find(settings.object_store, grace)
        if yes:
            found = remove(settings.object_store, found, grace, settings.author_name, progress.update)
    things = [{**asdict(one), "keys": len(one.keys)} for one in found]
    document = {"removed": yes, "grace_days": grace, "bytes": sum(one.bytes for one in found), "garbage": things}

    def human(body: dict[str, Any]) -> None:
        if not found:
            click.echo(f"nothing to remove: all is needed, or younger than {grace:g} days")
            return
        rows = [[one["kind"], _short(one["name"]), one["keys"], one["bytes"], one["why"]] for one in body["garbage"]]
        table(rows[:SHOWN], ["kind", "what", "objects", "bytes", "why"])
        if len(rows) > SHOWN:
            click.echo(f"and {len(rows) - SHOWN:,} more (--json lists all)")
        did = "removed" if yes else "could go"
        click.echo(
            f"\n{len(rows):,} {did}, {body['bytes']:,} bytes" + ("" if yes else "; slipway gc --yes removes them")
        )

    emit(document, as_json, human)


def _short(name: str) -> str:
    """A key with its digest cut short."""
    return "/".join(part[:12] if len(part) >= 64 else part for part in name.split("/"))


COMMANDS = (gc,)
