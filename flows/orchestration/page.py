"""What a flow run shows on Prefect's page: the plan, live progress, the scorecard, drift, the run in MLflow.

Keys end in the subject's name, so that Prefect lists one artifact's history over all runs of a model. A page that
cannot be written is no reason to fail what it would have told of.
"""

import json
import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from infra.progress import Progress
from infra.settings import Settings

if TYPE_CHECKING:
    from flows.orchestration.orchestration import Run
    from flows.steps import Step

LIVE_S = 2.0
"""Between two looks of the page at a task's progress; a task that ends sooner shows none."""


def key(*parts: str) -> str:
    """Prefect allows small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def show_table(name: str, rows: Sequence[dict[str, Any]], description: str) -> None:
    from prefect.artifacts import create_table_artifact

    _try(create_table_artifact, list(rows), key=key(name), description=description)


def show_markdown(name: str, text: str, description: str) -> None:
    from prefect.artifacts import create_markdown_artifact

    _try(create_markdown_artifact, text, key=key(name), description=description)


def show_link(name: str, address: str, text: str, description: str) -> None:
    from prefect.artifacts import create_link_artifact

    _try(create_link_artifact, address, link_text=text, key=key(name), description=description)


def log(line: str) -> None:
    """A line of the run's log, past the level that keeps Prefect's own lines and tracebacks off terminal and page."""
    from prefect import get_run_logger

    def write() -> None:
        about: Any = get_run_logger()
        logger = about.logger
        logger.propagate = False
        logger.handle(logger.makeRecord(logger.name, logging.INFO, "slipway", 0, line, (), None, extra=about.extra))

    _try(write)


@contextmanager
def live_progress(name: str, progress: Progress) -> Iterator[None]:
    """Keep the task's progress artifact up to date while the block runs, from a thread: the work waits for no page."""
    import contextvars

    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    ended = threading.Event()

    def show() -> None:
        made: Any = None
        said = ""
        last = False
        while not last:
            last = ended.wait(LIVE_S)
            if last and made is None:
                return
            share = 100.0 * min(progress.done / progress.total, 1.0) if progress.total else 0.0
            if progress.line() == said:
                continue
            said = progress.line()
            if made is None:
                made = _try(create_progress_artifact, share, key=key("progress", name), description=said)
            else:
                _try(update_progress_artifact, made, progress=share, description=said)

    context = contextvars.copy_context()  # of which task run it is, Prefect reads from the context
    shower = threading.Thread(target=context.run, args=(show,), daemon=True)
    shower.start()
    try:
        yield
    finally:
        ended.set()
        shower.join()


def _try(show: Callable[..., Any], *given: Any, **named: Any) -> Any:
    try:
        return show(*given, **named)
    except Exception:  # a server that is away, or of another version
        return None


def show_plan(run: "Run", subject: str, steps: Sequence[dict[str, Any]]) -> None:
    """The plan as a table: each step, whether it runs, and why. steps: `Report.to_json()`."""
    rows = [{"step": one["step"], "state": one["status"], "why": "; ".join(one["reasons"])} for one in steps]
    stale = sum(one["status"] != "cached" for one in steps)
    said = f"{stale} of {len(steps)} steps to look at" if stale else "Up to date: nothing it depends on has changed"
    run.table(f"plan-{subject}", rows, f"Plan of {subject}. {said}.")


def show_output(run: "Run", settings: Settings, step: "Step", output: dict[str, Any]) -> None:
    """What a step gave, where a person would want to look at it."""
    if step.kind == "train":
        _show_run(run, settings, step.subject, output)
    elif step.kind == "gate":
        _show_scorecard(run, settings, step.subject, output["scorecard"])
    elif step.kind == "monitor":
        _show_windows(run, settings, step.subject, output["report"])


def _show_run(run: "Run", settings: Settings, name: str, output: dict[str, Any]) -> None:
    from training.run_log import RunLog, read_tail

    mlflow_run = read_tail(RunLog(settings.object_store, output["run"])).mlflow_run
    description = f"{name}/{output['version']}, trained by run {output['run']}"
    page = _mlflow_page(settings)
    if page:
        from infra.tracking import experiment_id

        address = f"{page}/#/experiments/{experiment_id(settings, name)}/runs/{mlflow_run}"
        run.link(f"mlflow-{name}", address, f"Run {output['run']} in MLflow", description)
    else:
        run.markdown(f"mlflow-{name}", f"MLflow run `{mlflow_run}`: `slipway up` opens MLflow's pages.", description)


def _mlflow_page(settings: Settings) -> str:
    """The address of MLflow's pages, without a password that may stand in it; "" where no server shows them."""
    from infra.service_records import running

    started = running(settings.folder).get("mlflow")
    parts = urlsplit(started.url if started else settings.tracking_uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path.rstrip('/')}"


def _show_scorecard(run: "Run", settings: Settings, name: str, scorecard: str) -> None:
    store = settings.object_store
    where = f"scorecards/{scorecard}"
    card = json.loads(store.get(f"{where}/scorecard.json"))
    lines = [f"## {card['candidate']['ref']}: {card['verdict']}", "", "| | gate | |", "| --- | --- | --- |"]
    for one in card["verdicts"]:
        mark = "pass" if one["passed"] else "**NO**" if one["severity"] == "block" else "warning"
        lines.append(f"| {mark} | {one['gate']} | {one['sentence'].replace('|', '/')} |")
    page = f"{store.uri}/{where}/scorecard.html"
    lines += ["", f"With its evidence: [scorecard.html]({page}), or `slipway review {name} --open`."]
    run.markdown(f"scorecard-{name}", "\n".join(lines), f"Scorecard of {card['candidate']['ref']}")
    for one in card["verdicts"]:
        if one["gate"] == "drift" and one.get("details"):
            run.table(f"drift-{name}", one["details"], one["sentence"])


def _show_windows(run: "Run", settings: Settings, name: str, report: str) -> None:
    from flows.inference.page import headline
    from flows.monitor import read_report

    body = read_report(settings.object_store, report)
    rows = [
        {
            "from": one["start"][:16],
            "answers": one["rows"],
            "alarm": "; ".join(said["sentence"] for said in one["alarms"][:3]),
            "estimated accuracy": f"{one['estimated']['value']:.3f}" if one["estimated"] else "",
            "real accuracy": f"{one['real']['value']:.3f}" if one["real"] else "",
        }
        for one in body["windows"]
    ]
    run.table(f"monitor-{name}", rows, f"{headline(body)}. Page: {settings.object_store.uri}/monitors/{report}")
