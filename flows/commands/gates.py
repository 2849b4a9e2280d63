"""Commands about gates: which there are, and how often the statistical ones err."""

import json
import textwrap
from typing import Any

import click

from flows.commands.output import as_json, emit, table, workplace
from infra.errors import Refused, WrongInput, choices


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def gates(context: click.Context, as_json: bool) -> None:
    """The gates there are.

    Example: slipway gates
    """
    if context.invoked_subcommand is not None:
        return
    from flows.judging.gate import list_gates

    document = [{"gate": name, "summary": summary} for name, summary in list_gates()]
    emit(document, as_json, lambda body: table([[one["gate"], one["summary"]] for one in body], ["gate", ""]))


@gates.command()
@click.argument("gate")
@as_json
def show(gate: str, as_json: bool) -> None:
    """What a gate judges, and its settings for an experiment's section `gates`.

    Example: slipway gates show champion
    """
    import inspect

    from flows.judging.gate import load_gate

    known = load_gate(gate)
    document = {
        "gate": gate,
        "judges": inspect.getdoc(inspect.getmodule(known)),
        "how": inspect.cleandoc(known.__doc__ or ""),
        "settings": [
            {
                "setting": name,
                "required": field.is_required(),
                "default": None if field.is_required() else field.get_default(call_default_factory=True),
                "meaning": " ".join((field.description or "").split()),
            }
            for name, field in known.model_fields.items()
        ],
    }

    def human(body: dict[str, Any]) -> None:
        click.echo("\n\n".join(filter(None, (body["judges"], body["how"]))))
        for one in body["settings"]:
            default = "has to be given" if one["required"] else f"{json.dumps(one['default'])} unless given"
            click.echo(f"\n{gate}.{one['setting']}: {default}")
            click.echo(textwrap.indent(textwrap.fill(one["meaning"], 100), "    "))

    emit(document, as_json, human)


@gates.command()
@click.argument("model", required=False)
@click.option("--gate", help="Only this gate; otherwise every statistical one.")
@click.option(
    "--trials", type=click.IntRange(20, 100_000), default=500, show_default=True, help="Planted pairs a test."
)
@as_json
def calibrate(model: str | None, gate: str | None, trials: int, as_json: bool) -> None:
    """How often the statistical gates promote what they should not; exit 3 when one does so too often.

    They judge pairs made from stored predictions of MODEL (else of the newest model evaluated, else generated ones),
    whose true difference is known. Nothing is trained.

    Example: slipway gates calibrate --gate champion --trials 500
    """
    from flows.judging.calibrate import CONFIDENCE, TESTS, Row, Trials
    from flows.judging.gate import load_gate
    from flows.judging.planted import newest
    from infra.progress import stage

    if gate is not None and gate not in TESTS:
        load_gate(gate)  # an unknown name is told with the nearest
        raise WrongInput(f"gate '{gate}': decides nothing by chance; {choices(gate, TESTS)}")
    population = newest(workplace(), model)
    wanted = [
        (name, test, metric)
        for name in ([gate] if gate else TESTS)
        for test, metrics in TESTS[name]
        for metric in metrics
    ]
    rows: list[Row] = []
    with stage("gates: calibrating") as progress:
        tried = Trials(population, trials)
        for done, (name, test, metric) in enumerate(wanted):
            progress.update(done, len(wanted), f"{name}: {metric}")
            rows.append(test(tried, name, metric))
    document = {
        "predictions": population.source,
        "rows": tried.rows,
        "trials": trials,
        "confidence": CONFIDENCE,
        "tests": [row.to_json() for row in rows],
    }
    emit(document, as_json, _show)
    broken = [f"{row.gate} ({row.test}, {row.metric})" for row in rows if not row.holds]
    if broken:
        raise Refused(f"gates: erring more often than alpha: {'; '.join(broken)}")


def _show(body: dict[str, Any]) -> None:
    click.echo(f"On {body['predictions']}; {body['trials']} pairs of models a test, {body['rows']:,} rows each.\n")
    cells = [
        [
            one["gate"],
            one["test"],
            one["metric"],
            f"{one['alpha']:g}",
            f"{one['boundary']['rate']:.3f} [{one['boundary']['low']:.3f}, {one['boundary']['high']:.3f}]",
            _beside(one["same"], one["theory_same"]),
            f"{one['effect']:+g}",
            _beside(one["power"], one["theory_power"]),
            "" if one["holds"] else "TOO OFTEN",
        ]
        for one in body["tests"]
    ]
    header = ["gate", "test", "metric", "alpha", "errs at the boundary", "A/A (theory)", "effect", "power (theory)", ""]
    table(cells, header)
    click.echo(
        "\nErrs: how often it promotes a model at the boundary of its null (equal for 'better', worse by the margin\n"
        f"for 'not worse'), with its {100 * body['confidence']:g} % binomial interval; slices: how often it refuses\n"
        "one. Theory: the normal approximation."
    )


def _beside(rate: dict[str, Any] | None, theory: float | None) -> str:
    if rate is None:
        return ""
    return f"{rate['rate']:.3f}" + (f" ({theory:.3f})" if theory is not None else "")


COMMANDS = (gates,)
