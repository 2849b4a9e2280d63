"""What every command shares: `--json`, and how a document or a table is printed."""

import ast
import atexit
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from infra.settings import Settings, load_settings, quiet_environment

STDOUT = "slipway.stdout"


def _keep_stdout(context: click.Context, parameter: click.Parameter, wanted: bool) -> bool:
    """With --json stdout is the document's alone: what libraries print there (Ray does) goes to stderr, also what
    they print when the process ends."""
    if wanted:
        context.meta[STDOUT] = sys.stdout
        context.with_resource(redirect_stdout(sys.stderr))
        # Registered when the command has ended: what is registered last runs first.
        context.call_on_close(lambda: atexit.register(setattr, sys, "stdout", sys.stderr))
    return wanted


as_json = click.option("--json", "as_json", is_flag=True, callback=_keep_stdout, help="One JSON document on stdout.")


def workplace(create: bool = False) -> Settings:
    """The settings in force, with the libraries told where our databases are."""
    settings = load_settings()
    if create:
        settings.create_workspace()
    quiet_environment(settings)
    return settings


def emit(document: Any, as_json: bool, human: Callable[[Any], None]) -> None:
    if as_json:
        out = click.get_current_context().meta.get(STDOUT)  # None: stdout as it is
        click.echo(json.dumps(document, indent=1, ensure_ascii=False), file=out)
    else:
        human(document)


def first_line(path: Path) -> str:
    """The first line of a module's docstring, without importing it."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> None:
    """Columns as wide as their widest cell; numbers to the right."""
    cells = [[_text(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(header), *cells]) for column in range(len(header))]
    numeric = [
        bool(rows) and all(isinstance(row[column], int | float) for row in rows) for column in range(len(header))
    ]
    for line in [list(header), *cells]:
        parts = [
            cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(line, widths, numeric, strict=True)
        ]
        click.echo("  ".join(parts).rstrip())


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)
