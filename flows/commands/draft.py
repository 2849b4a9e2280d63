"""Commands of who writes a contract: a draft from a sample, and the schema that an editor checks it by."""

import json
from typing import Any

import click

from flows.commands.data import data
from flows.commands.output import as_json, emit, workplace


@data.command()
@click.argument("file_or_folder")
@as_json
def draft(file_or_folder: str, as_json: bool) -> None:
    """Profile a sample and print a contract that registers as it is, and that you only have to prune.

    FILE_OR_FOLDER is a file of rows, or a folder of such files, of images or of texts.

    Example: slipway data draft reviews.csv > reviews.odcs.yaml
    """
    from data_contracts.contract import parse_contract
    from data_contracts.drafting import draft as compose
    from infra.progress import stage

    workplace()
    with stage("draft") as progress:
        progress.say(f"reading a sample of {file_or_folder}")
        text = compose(file_or_folder)
    document = {"contract": parse_contract(text, f"draft of {file_or_folder}").document, "text": text}

    def human(body: dict[str, Any]) -> None:
        click.echo(text, nl=False)

    emit(document, as_json, human)


@data.command()
@as_json
def schema(as_json: bool) -> None:
    """Print the JSON schema of contracts, for an editor that completes and checks YAML.

    Example: slipway data schema > contract.schema.json
    """
    from data_contracts.editor_schema import editor_schema

    document = editor_schema()
    emit(document, as_json, lambda body: click.echo(json.dumps(body, indent=1, ensure_ascii=False)))
