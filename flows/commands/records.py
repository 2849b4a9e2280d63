"""Commands about what experiments reach: records of finished runs, and the goals they are held against."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from flows.commands.experiments import recipes
from flows.commands.output import as_json, emit, table, workplace
from infra.errors import Refused, WrongInput


@recipes.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@as_json
def record(runs: tuple[str, ...], as_json: bool) -> None:
    """Write down what finished runs of a shipped experiment reached, beside the experiment.

    All runs at once, each given by its id or by the model it became: they may differ in the seed alone. Intervals are
    over seeds and examples. To be run on the machine that trained them: the record names its hardware.

    Example: slipway recipes record emotion/1 emotion/2 emotion/3
    """
    from flows import records
    from flows.figures_table import told
    from flows.goals import wanted_of

    path = records.record(workplace(), runs, wanted_of)
    document = {"path": str(path), **(records.read(path.stem) or {})}

    def human(body: dict[str, Any]) -> None:
        table([[name, told(one)] for name, one in body["figures"].items()], ["figure", "mean [95 % interval]"])
        click.echo(f"\n{body['path']}: commit it")

    emit(document, as_json, human)


@recipes.command()
@click.option("--text", "groups", flag_value="text", multiple=True, help="Only the lines of the text recipes.")
@click.option("--image-text", "groups", flag_value="image-text", multiple=True, help="Of those that see and draw.")
@click.option("--markdown", is_flag=True, help="As the tables of a README.")
@click.option("--rerun", metavar="EXPERIMENT", help="Train it again, as its first recorded run was, and compare.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="With --rerun: where a base lies.")
@as_json
def verify(groups: Sequence[str], rerun: str | None, overrides: tuple[str, ...], markdown: bool, as_json: bool) -> None:
    """What recorded runs of the shipped experiments reached, beside the goals; exit 3 when a line falls short.

    Example: slipway recipes verify --text
    """
    from flows import figures_table, goals, records

    if rerun:
        document = records.rerun(workplace(create=True), rerun, overrides, goals.wanted_of(rerun))
        emit(document, as_json, _show_rerun)
        if outside := [name for name, one in document["figures"].items() if not one["within"]]:
            raise Refused(f"experiment {rerun}: outside the recorded interval: {', '.join(outside)}")
        return
    if overrides:
        raise WrongInput("recipes verify: --set goes with --rerun; leave it out")
    lines = goals.verify(list(groups))
    human = (lambda _: click.echo(figures_table.markdown(lines))) if markdown else _show_lines
    emit([line.to_json() for line in lines], as_json, human)
    if short := [f"{line.goal.experiment} {line.goal.metric}" for line in lines if line.status == goals.SHORT]:
        raise Refused(f"recipes: {len(short)} of {len(lines)} lines fall short: {', '.join(short)}")


def _show_lines(body: list[dict[str, Any]]) -> None:
    from flows.figures_table import told

    rows = [
        [
            one["experiment"],
            one["title"],
            told(one["figure"]),
            one["wanted"],
            one["status"] + (f" ({one['why']})" if one["why"] else ""),
            one.get("known", ""),
        ]
        for one in body
    ]
    table(rows, ["experiment", "figure", "recorded", "goal", "", "known"])
    click.echo("\nMeans over seeds, with 95 % intervals over seeds and examples; records: " + _records_folder())


def _records_folder() -> str:
    from flows.records import FOLDER

    here = Path.cwd()
    return str(FOLDER.relative_to(here) if FOLDER.is_relative_to(here) else FOLDER)


def _show_rerun(body: dict[str, Any]) -> None:
    from flows.figures_table import told

    rows = [
        [name, f"{one['value']:.4g}", told(one["recorded"]), "within" if one["within"] else "OUTSIDE"]
        for name, one in body["figures"].items()
    ]
    table(rows, ["figure", f"run {body['run']}", "recorded", ""])
