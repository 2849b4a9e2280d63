"""Commands about models: evaluate, gate, predict."""

import json
from pathlib import Path
from typing import Any

import click

from flows.commands.output import as_json, emit, table, workplace
from infra.errors import Refused
from infra.settings import Settings


def _judged(settings: Settings, reference: str, until: str) -> tuple[Any, dict[str, dict[str, Any]]]:
    """Run evaluation (and gates) of one version where stale. Returns the version and the outputs of its steps."""
    from flows import references
    from flows.evaluate import evaluate_step
    from flows.promote import gate_step, todays
    from flows.retrain import run_steps

    version = references.resolve(settings.object_store, reference)
    trained: dict[str, dict[str, Any]] = {f"train {version.name}": {"version": version.version, "model": version.model}}
    steps = [evaluate_step(settings, version.name, ())]
    if until == "gate":
        steps.append(gate_step(settings, todays(version), ()))
    report = run_steps(settings, steps, version.name, flow=until, given=trained, whole_way=False)
    return version, report.outputs


@click.command()
@click.argument("model")
@as_json
def evaluate(model: str, as_json: bool) -> None:
    """Figures of a model on its test split, beside a tuned simple model and knowing next to nothing.

    Example: slipway evaluate library-docs@candidate
    """
    from training.evaluation import load_kind

    settings = workplace()
    version, outputs = _judged(settings, model, "evaluate")
    where = f"evaluations/{outputs[f'evaluate {version.name}']['evaluation']}"
    metrics = json.loads(settings.object_store.get(f"{where}/metrics.json"))

    def human(body: dict[str, Any]) -> None:
        click.echo(f"{version.ref} on {body['rows']:,} rows of {body['split']}, 95 % intervals")
        kind = load_kind(body["task"])
        rows = [
            [who, *(_interval(body[who][metric]) if metric in body[who] else "" for metric in kind.compared)]
            for who in ("model", "baseline", "majority")
        ]
        table(rows, ["", *(kind.metrics[metric].title for metric in kind.compared)])

    emit({"model": version.ref, "evidence": where, **metrics}, as_json, human)


@click.command()
@click.argument("model")
@as_json
def gate(model: str, as_json: bool) -> None:
    """Run a model's gates and write its scorecard; exit 3 when one says no.

    Example: slipway gate library-docs
    """
    settings = workplace()
    version, outputs = _judged(settings, model, "gate")
    output = outputs[f"gate {version.name}"]
    store = settings.object_store
    where = f"scorecards/{output['scorecard']}"
    card = json.loads(store.get(f"{where}/scorecard.json"))
    page = store.local_path(f"{where}/scorecard.html")

    def human(body: dict[str, Any]) -> None:
        rows = [[_mark(v), v["gate"], v["sentence"]] for v in body["verdicts"]]
        table(rows, ["", "gate", ""])
        for note in body.get("notes", ()):  # older scorecards have none
            click.echo(f"\nknow before you decide: {note}")
        click.echo(f"\nscorecard {page}")

    emit({"model": version.ref, "scorecard": where, "page": str(page), **card}, as_json, human)
    if not output["passed"]:
        failed = [v["gate"] for v in card["verdicts"] if not v["passed"] and v["severity"] == "block"]
        raise Refused(f"model {version.ref}: the gates said no ({', '.join(failed)})")


@click.command()
@click.argument("model")
@click.argument("inputs", nargs=-1)
@click.option("--file", "path", type=click.Path(path_type=Path), help="CSV, JSONL, Parquet: a row an input.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where the answers go: of a file Parquet, a row an input; of inputs a PNG: what is drawn, or --nearest.",
)
@click.option("--id", "id_column", default="", metavar="COLUMN", help="Your ids in the file; without: row ids.")
@click.option("--time", "time_column", default="", metavar="COLUMN", help="What moment a row is about; without: now.")
@click.option("--labels", default="", metavar="A,B,...", help="Which of these a text or picture is, trained on or not.")
@click.option("--nearest", type=click.IntRange(1), metavar="N", help="The N nearest texts of the dataset, or pictures.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Of an answer: temperature, new_tokens (models that write).",
)
@click.option("--no-log", is_flag=True, help="Leave no trace in the inference log that `monitor` reads.")
@as_json
def predict(
    model: str,
    inputs: tuple[str, ...],
    path: Path | None,
    out: Path | None,
    id_column: str,
    time_column: str,
    labels: str,
    nearest: int | None,
    settings: tuple[str, ...],
    no_log: bool,
    as_json: bool,
) -> None:
    """Answer inputs, or a file of them, with a model's champion (or NAME@candidate, NAME/3).

    A model that reads several columns takes each input as a JSON list or object of them; a picture is given by the
    name of its file.

    Example: slipway predict library-docs "fit a random forest"
    """
    from flows.inference import pictures
    from flows.inference import predict as inference
    from infra.progress import stage

    if bool(inputs) == bool(path) or (path and not out):
        raise click.UsageError("give inputs, or --file with --out")
    if inputs and out:
        pictures.check_place(out)
    if inputs and (id_column or time_column):
        raise click.UsageError("--id and --time name columns of --file")
    if (labels or nearest) and (path or (labels and nearest)):
        raise click.UsageError("--labels and --nearest are for inputs, one of them at a time")
    if settings and (path or labels or nearest):
        raise click.UsageError("--set is for inputs")
    store = workplace().object_store
    asked = inference.served(store, model)
    if path and out:
        with stage(f"predict: {asked.version.ref}") as progress:
            counts = inference.predict_file(
                store, asked, path, out, progress, id_column=id_column, time_column=time_column, log=not no_log
            )
        emit({"model": asked.version.ref, "out": str(out), **counts}, as_json, _tell_counts)
        return
    if labels:
        answers = inference.zero_shot(store, asked, inputs, [one.strip() for one in labels.split(",")])
    elif nearest:
        answers = inference.nearest(store, asked, inputs, nearest)
    else:
        answers = inference.predict_inputs(
            store, asked, inputs, not no_log, settings, say=lambda line: click.echo(line, err=True)
        )
    if out and nearest:
        row_ids = {one["row_id"] for answer in answers for one in answer["nearest"]}
        pictures.write_found(out, inputs, answers, inference.library(store, asked, row_ids))
    elif out:
        pictures.write_grid(out, inputs, answers, asked.version.ref)
    document = {
        "model": asked.version.ref,
        **({"out": str(out)} if out else {}),
        "answers": [{"input": text, **one} for text, one in zip(inputs, answers, strict=True)],
    }

    def human(body: dict[str, Any]) -> None:
        for one in body["answers"]:
            click.echo(one["input"])
            for found in one.get("nearest", []):
                click.echo(f"  {found['score']:6.3f}  {found['text']}")
            scores = one.get("scores", {})
            for label, score in list(scores.items())[:5]:
                click.echo(f"  {score:6.1%}  {label}")
            if "image" in one:
                click.echo(pictures.told(one))
            elif not scores and "nearest" not in one:
                click.echo(one["label"])
        if out:
            click.echo(f"pictures: {out}")

    emit(document, as_json, human)


def _tell_counts(body: dict[str, Any]) -> None:
    unread = f"; {body['faults']:,} could not be read, their `error` says why" if body["faults"] else ""
    cut = f"; {body['truncated']:,} are longer than the model takes and were cut" if body["truncated"] else ""
    click.echo(f"{body['model']} answered {body['answered']:,} of {body['rows']:,} rows{unread}{cut}: {body['out']}")


def _interval(estimate: dict[str, float]) -> str:
    from training.metrics import told

    value, low, high = (told(estimate[end]) for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _mark(verdict: dict[str, Any]) -> str:
    return "pass" if verdict["passed"] else "NO" if verdict["severity"] == "block" else "warn"


COMMANDS = (evaluate, gate, predict)
