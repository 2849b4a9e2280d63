"""The command that breaks things on purpose."""

from typing import Any

import click

from flows.commands.output import as_json, emit, first_line
from flows.prove import FOLDER, Options, proof_names
from flows.prove import prove as run_proof
from infra.errors import SlipwayError


class Listing(click.Command):
    """A command whose help lists the proofs there are."""

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Proofs"):
            formatter.write_dl([(name, first_line(FOLDER / f"{name}.py")) for name in proof_names()])


@click.command(cls=Listing)
@click.argument("proof")
@click.option("--kills", type=click.IntRange(0), default=10, show_default=True, help="How often something is killed.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Workers of the runs.")
@click.option("--seed", default=0, show_default=True, help="Of where and when something is killed.")
@click.option("--elastic/--no-elastic", default=True, help="Also change the number of workers (resume).")
@as_json
def prove(proof: str, kills: int, workers: int, seed: int, elastic: bool, as_json: bool) -> None:
    """Break things on purpose and look whether what must hold still does.

    Works in a scratch workspace; a kill takes some 20 seconds.

    Example: slipway prove resume --kills 50 --seed 7
    """
    from infra.progress import stage

    options = Options(kills=kills, workers=workers, seed=seed, elastic=elastic)
    with stage(f"prove: {proof}") as progress:
        document = run_proof(proof, options, progress.say)
    emit(document, as_json, _show)
    if not document["held"]:
        raise SlipwayError(f"proof {proof}: did not hold; --seed {seed} shows it again")


def _show(document: dict[str, Any], indent: str = "") -> None:
    for name, value in document.items():
        if isinstance(value, dict):
            click.echo(f"{indent}{name}")
            _show(value, f"{indent}  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            click.echo(f"{indent}{name}")
            for one in value:
                click.echo(f"{indent}  {', '.join(f'{key} {inner}' for key, inner in one.items())}")
        else:
            click.echo(f"{indent}{name:<30} {value}")


COMMANDS = (prove,)
