"""Commands around experiments: recipes and drafts of experiments, comparing runs, who saw a row."""

from dataclasses import asdict
from typing import Any

import click

from flows.commands.data import data
from flows.commands.output import as_json, emit, table, workplace


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def recipes(context: click.Context, as_json: bool) -> None:
    """The kinds of model there are; `recipes draft` writes an experiment, `recipes schema` serves editors.

    Example: slipway recipes
    """
    if context.invoked_subcommand:
        return
    from training.recipe import recipe_names, recipe_summary

    document = [{"recipe": name, "summary": recipe_summary(name)} for name in recipe_names()]
    emit(document, as_json, lambda body: table([[one["recipe"], one["summary"]] for one in body], ["recipe", ""]))


@recipes.command()
@click.argument("recipe")
@click.argument("dataset")
@as_json
def draft(recipe: str, dataset: str, as_json: bool) -> None:
    """Write a commented experiment to standard output; it trains as it is.

    Example: slipway recipes draft text_classifier reviews > reviews.yaml
    """
    from flows.experiment_draft import draft_experiment

    text = draft_experiment(workplace().object_store, recipe, dataset)
    emit({"experiment": text}, as_json, lambda body: click.echo(body["experiment"], nl=False))


@recipes.command()
@click.option("--recipe", help="With the settings of this recipe.")
@as_json
def schema(recipe: str | None, as_json: bool) -> None:
    """A JSON schema of experiments, for editors that complete and check YAML.

    Example: slipway recipes schema --recipe text_classifier > experiment.schema.json
    """
    from flows.experiment_schema import experiment_schema

    emit(experiment_schema(recipe), as_json=True, human=lambda body: None)


@click.command()
@click.argument("first", metavar="RUN_OR_MODEL")
@click.argument("second", metavar="RUN_OR_MODEL")
@click.option("--all", "everything", is_flag=True, help="Show metrics of layers and of the system too.")
@as_json
def compare(first: str, second: str, everything: bool, as_json: bool) -> None:
    """What two runs differ in: configuration, data, code, libraries, metrics, and row by row what was judged.

    Each is given by its id, or by the model it became.

    Example: slipway compare reviews/1 reviews/2
    """
    from flows.compare import compare as differences

    document = differences(workplace().object_store, first, second)
    emit(document, as_json, lambda body: _show_differences(body, everything))


def _show_differences(body: dict[str, Any], everything: bool) -> None:
    sections = ("configuration", "scaling", "data", "code", "libraries")
    rows = [[name if first else "", line] for name in sections for first, line in _marked(body[name] or ["the same"])]
    table(rows, ["what", "from the first to the second"])
    click.echo()
    shown = [one for one in body["metrics"] if everything or not one["metric"].startswith(("layer/", "system/"))]
    metrics = [
        [one["metric"], _digits(one["first"]), one["first_step"], _digits(one["second"]), one["second_step"]]
        for one in shown
    ]
    table(metrics, ["metric", "first", "at step", "second", "at step"])
    if left_out := len(body["metrics"]) - len(shown):
        click.echo(f"(+{left_out} of layers and of the system: --all)")
    if body["judged"]:
        click.echo(f"\njudged on the same {body['judged'][0]['rows']:,} rows; positive: the second is better")
        judged = [
            [one["metric"], f"{one['better']:+z.4f}", f"{one['low']:+z.4f} to {one['high']:+z.4f}", _told(one)]
            for one in body["judged"]
        ]
        table(judged, ["metric", "difference", "95 % interval", "the second is"])
    else:
        click.echo("\nnot compared row by row: both must have been evaluated on common rows (slipway evaluate MODEL/N)")


def _told(difference: dict[str, Any]) -> str:
    if difference["low"] > 0:
        return "better"
    return "worse" if difference["high"] < 0 else "not told apart"


def _digits(value: float | None) -> str | None:
    """Four significant digits: metrics are of any size."""
    return None if value is None else f"{value:.4g}"


def _marked(lines: list[str]) -> list[tuple[bool, str]]:
    return [(number == 0, line) for number, line in enumerate(lines)]


@data.command("who-saw")
@click.argument("row", metavar="REF#ROW")
@as_json
def who_saw(row: str, as_json: bool) -> None:
    """Which runs, steps and model versions trained on a row (its id, or how it begins).

    A row that was released from quarantine is found by the id that it had there, too.

    Example: slipway data who-saw reviews#5f0c2a
    """
    from data_contracts import registry
    from flows.lineage import who_saw as ask
    from infra.errors import WrongInput

    reference, hash_sign, row_id = row.partition("#")
    if not hash_sign or not row_id:
        raise WrongInput(f"row '{row}': is not REF#ROW; write for instance {reference or 'reviews'}#5f0c2a")
    store = workplace().object_store
    answer = ask(store, registry.resolve(store, reference), row_id)
    emit(asdict(answer), as_json, _show_sightings)


def _show_sightings(body: dict[str, Any]) -> None:
    click.echo(f"row {body['row_id']} ({body['place']})")
    if body["corrected_from"]:
        click.echo(f"corrected from {body['corrected_from']}")
    if not body["sightings"]:
        click.echo("no run trained on it")
    else:
        rows = [
            [one["run"], ", ".join(one["models"]), len(one["steps"]), _few(one["steps"]), one["steps_done"]]
            for one in body["sightings"]
        ]
        table(rows, ["run", "model", "times", "at steps", "of"])
    for line in body["unknown"]:
        click.echo(f"not known: {line}")


def _few(steps: list[int]) -> str:
    return ", ".join(map(str, steps[:8])) + (f" and {len(steps) - 8} more" if len(steps) > 8 else "")


COMMANDS = (recipes, compare)
