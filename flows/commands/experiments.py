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
@click.argument("first")
@click.argument("second")
@as_json
def compare(first: str, second: str, as_json: bool) -> None:
    """What two runs differ in: configuration, data, code, libraries, metrics.

    Example: slipway compare library-docs-3fa9c1d2e4b5-1 library-docs-77ab01cd23ef-1
    """
    from flows.compare import compare as differences

    emit(differences(workplace().object_store, first, second), as_json, _show_differences)


def _show_differences(body: dict[str, Any]) -> None:
    sections = ("configuration", "scaling", "data", "code", "libraries")
    rows = [[name if first else "", line] for name in sections for first, line in _marked(body[name] or ["the same"])]
    table(rows, ["what", "from the first to the second"])
    click.echo()
    table([list(one.values()) for one in body["metrics"]], ["metric", "first", "at step", "second", "at step"])


def _marked(lines: list[str]) -> list[tuple[bool, str]]:
    return [(number == 0, line) for number, line in enumerate(lines)]


@data.command("who-saw")
@click.argument("row", metavar="REF#ROW")
@as_json
def who_saw(row: str, as_json: bool) -> None:
    """Which runs, steps and model versions trained on a row (its id, or how it begins).

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
