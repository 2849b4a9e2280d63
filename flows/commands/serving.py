"""Commands about a model at work: serve, monitor."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from flows.commands.output import as_json, emit, table, workplace
from infra.errors import Refused, WrongInput


@click.command()
@click.argument("model")
@click.option("--host", default="127.0.0.1", show_default=True, help="An address of this machine alone.")
@click.option("--port", type=click.IntRange(0, 65535), default=5080, show_default=True, help="0: any that is free.")
@as_json
def serve(model: str, host: str, port: int, as_json: bool) -> None:
    """Answer over HTTP with a model's champion (or NAME@candidate, NAME/3), until Ctrl-C or SIGTERM.

    MLflow's scoring server: POST /invocations with {"dataframe_records": [{...}]}. A column `id` that is no input names
    the answers in the inference log, which `slipway monitor` reads.

    Example: slipway serve library-docs
    """
    from flows.inference.serve import answer

    def ready(facts: dict[str, Any]) -> None:
        def human(body: dict[str, Any]) -> None:
            click.echo(f"{body['model']} answers at {body['address']} (Ctrl-C ends it); logged to {body['log']}")

        emit(facts, as_json, human)

    done = answer(workplace(), model, host, port, ready)
    lost = f"; {done['not_logged']:,} could not be" if done["not_logged"] else ""
    click.echo(f"{done['logged']:,} answers logged{lost}", err=True)


@click.command()
@click.argument("model")
@click.option("--window", default="", metavar="LENGTH", help="24h, 7d, 2w or month; without: the experiment's, or 7d.")
@click.option("--since", metavar="DATE", help="From this day or moment (UTC) on; without: the last 8 windows.")
@click.option("--labels", type=click.Path(path_type=Path), help="CSV, JSONL or Parquet: id, and the label that came.")
@as_json
def monitor(model: str, window: str, since: str | None, labels: Path | None, as_json: bool) -> None:
    """Compare what a champion is asked and answers with its training data, window by window; exit 3 on an alarm.

    Drift of inputs and predictions, accuracy estimated from calibrated confidence, and the real one where labels came.

    Example: slipway monitor library-docs --window 24h
    """
    from flows.inference.page import headline
    from flows.monitor import asked_of
    from flows.monitor import monitor as compare

    settings = workplace()
    if labels is not None and not labels.is_file():
        raise WrongInput(f"--labels {labels}: there is no such file")
    report = compare(settings, asked_of(settings, model, window=window, since=_moment(since), labels=labels))

    def human(body: dict[str, Any]) -> None:
        rows = [
            [
                one["start"][:16].replace("T", " "),
                one["rows"],
                "alarm" if one["alarms"] else "drift" if one["said"] else "steady" if one["judged"] else "too few",
                _figure(one["estimated"]),
                _figure(one["real"]),
                one["real"]["rows"] if one["real"] else None,
                "; ".join(said["sentence"] for said in [*one["alarms"], *one["said"]][:1]),
            ]
            for one in body["windows"]
        ]
        table(rows, ["from (UTC)", "answers", "", "estimated accuracy", "real", "labels", ""])
        for line in body["misfits"]:
            click.echo(f"left out: {line}")
        for number, count in body["other_versions"].items():
            click.echo(f"left out: {count:,} answers of version {number}")
        click.echo(f"\n{headline(body)}\npage: {body['page']}")

    emit(report, as_json, human)
    if report["alarm"]:
        raise Refused(f"model {report['model']}: {headline(report)}; see {report['page']}")


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise WrongInput(f"--since {text}: is no date; write 2026-03-01 or 2026-03-01T12:00") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _figure(estimate: dict[str, float] | None) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]" if estimate else ""


COMMANDS = (serve, monitor)
