"""Commands that run steps: demo, plan, train, retrain; and those about runs."""

import json
from typing import Any

import click

from flows.commands.output import as_json, emit, table, workplace
from infra.errors import Refused, WrongInput
from infra.store import Store

override = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set a field of the experiment.")
every_reason = click.option("--explain", is_flag=True, help="Say every reason, not only the first.")


@click.command()
@click.argument("experiment")
@override
@every_reason
@as_json
def plan(experiment: str, overrides: tuple[str, ...], explain: bool, as_json: bool) -> None:
    """What `retrain` would run, and why; runs nothing.

    A step is cached, stale, or open: whether it runs is known when the one it follows has run, and it stays cached
    where that gives what it gave before.

    Example: slipway plan library-docs --set masking_rate=0.2 --explain
    """
    from flows.config import load_config
    from flows.graph import build_graph
    from flows.retrain import plan as make_plan

    config = load_config(experiment, overrides)
    settings = workplace()
    report = make_plan(settings, build_graph(settings, config))
    emit(report.to_json(), as_json, lambda body: _show_steps(body, explain))


@click.command()
@click.argument("experiment")
@override
@click.option("--workers", type=click.IntRange(1), help="Number of workers; changes no result.")
@click.option("--fresh", is_flag=True, help="Train again although there is a finished run.")
@click.option("--resume", metavar="RUN", default="", help="Go on with this run, refused if it was begun otherwise.")
@click.option("--accept", type=click.Choice(["code"]), help="With --resume: go on although the code has changed.")
@click.option("--reason", default="", help="Why that is safe; recorded in the run's log.")
@click.option("--take-over", is_flag=True, help="Go on with a run although somebody seems to be training it.")
@every_reason
@as_json
def train(
    experiment: str,
    overrides: tuple[str, ...],
    workers: int | None,
    fresh: bool,
    resume: str,
    accept: str | None,
    reason: str,
    take_over: bool,
    explain: bool,
    as_json: bool,
) -> None:
    """Train an experiment on its registered dataset, and what it builds on where that is stale.

    An interrupted run is taken up again by the same command.

    Example: slipway train library-docs --set base=FOLDER_WITH_A_PRETRAINED_ENCODER
    """
    from flows.config import load_config
    from flows.graph import build_graph
    from flows.resume import Going
    from flows.retrain import run_steps

    if bool(accept) != bool(reason) or (accept and not resume):
        raise WrongInput("train: --resume RUN, --accept code and --reason TEXT go together; give all three")
    if fresh and resume:
        raise WrongInput("train: --fresh begins a run and --resume goes on with one; give one of them")
    scaled = (*overrides, f"scaling.workers={workers}") if workers else overrides
    config = load_config(experiment, scaled)
    settings = workplace(create=True)
    going = Going(fresh=fresh, run=resume, accepted=reason, take_over=take_over)
    asked = "asked for a fresh run (--fresh)" if fresh else f"asked to go on with {resume}" if resume else ""
    steps = build_graph(settings, config, until="train", read_sources_again=False, going=going)
    forced = {f"train {config.name}": asked} if asked else {}
    report = run_steps(settings, steps, config.name, flow="train", asked=forced, whole_way=False)
    output = report.outputs[f"train {config.name}"]
    document = {
        "model": f"{config.name}/{output['version']}",
        "run": output["run"],
        "digest": output["model"],
        "steps": report.to_json(),
    }

    def human(body: dict[str, Any]) -> None:
        _show_steps(body["steps"], explain)
        last = "" if not config.recipe_settings.evaluates else f"; next: slipway gate {body['model']}"
        click.echo(f"\n{body['model']} from run {body['run']}{last}")

    emit(document, as_json, human)


@click.command()
@click.argument("name")
@override
@click.option("--check", type=click.Choice(["data"]), help="Read the source again although it says nothing moved.")
@click.option("--accept", type=click.Choice(["code"]), help="Keep results of which only the code changed.")
@click.option("--reason", help="Why the results are kept; recorded, and on the scorecard.")
@every_reason
@as_json
def retrain(
    name: str,
    overrides: tuple[str, ...],
    check: str | None,
    accept: str | None,
    reason: str | None,
    explain: bool,
    as_json: bool,
) -> None:
    """Bring a model up to date: from its data's source to the promotion, whatever is stale and nothing else.

    Example: slipway retrain library-docs
    """
    from flows.config import load_config
    from flows.graph import build_graph
    from flows.orchestration.events import retraining
    from flows.retrain import accept_code, run_steps

    if (accept is None) != (reason is None):
        raise WrongInput("retrain: --accept code and --reason TEXT go together; give both")
    config = load_config(name, overrides)
    settings = workplace(create=True)
    with retraining(settings, config.name):
        steps = build_graph(settings, config)
        kept = accept_code(settings, steps, reason) if reason else []
        report = run_steps(settings, steps, config.name, check_data=check == "data")
    document = {"model": config.name, "accepted": kept, "steps": report.to_json()}
    emit(document, as_json, lambda body: _show_steps(body["steps"], explain))
    _refuse_if_rejected(settings.object_store, config.name, report.outputs)


@click.command()
@click.option("--ablation", is_flag=True, help="Also fine-tune from random weights, and compare.")
@as_json
def demo(ablation: bool, as_json: bool) -> None:
    """The whole way on built-in data: the docstrings of the libraries installed here.

    Example: slipway demo
    """
    from flows.demo import run_demo, show

    settings = workplace(create=True)
    document = run_demo(settings, ablation)
    emit(document, as_json, show)
    if not document["promoted"]:
        raise Refused("demo: the gates said no; the scorecard says why")


@click.command()
@as_json
def runs(as_json: bool) -> None:
    """Training runs, the newest last: state, step, time left, last validation, and the model each became.

    Example: slipway runs
    """
    from flows.runs import list_runs

    def human(body: list[dict[str, Any]]) -> None:
        if not body:
            click.echo("none yet: slipway train EXPERIMENT")
            return
        rows = [
            [
                one["run"],
                one["began"][:16].replace("T", " "),
                one["status"],
                one["step"],
                one["num_steps"],
                one["attempts"],
                f"{one['eta_s']} s" if one["eta_s"] else "",
                _validation(one["validation"] or {}),
                one["model"],
            ]
            for one in body
        ]
        table(rows, ["run", "began (UTC)", "state", "step", "of", "attempts", "ETA", "last validation", "model"])

    emit(list_runs(workplace().object_store), as_json, human)


def _validation(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name.removeprefix('validation_')} {metrics[name]:.4g}" for name in metrics if name != "step")


@click.command()
@click.argument("run")
@as_json
def stop(run: str, as_json: bool) -> None:
    """End a run after a checkpoint; the same train command goes on from there.

    Example: slipway stop library-docs-3fa9c1d2e4b5-1
    """
    from infra.errors import choices
    from training.run_log import RunLog, live_beat, read_tail, run_names

    store = workplace().object_store
    known = run_names(store)
    if run not in known:
        raise WrongInput(f"run '{run}': is unknown; {choices(run, known)}")
    log = RunLog(store, run)
    state = read_tail(log)
    if not live_beat(log, state):
        now = "its process has died" if state.status == "running" else state.status
        raise WrongInput(f"run '{run}': is not running ({now}); nothing to stop")
    store.put(f"runs/{run}/attempts/{state.attempt}/stop", b"{}")
    document = {"run": run, "asked": True}
    emit(document, as_json, lambda body: click.echo(f"{run}: asked to stop after its next step, with a checkpoint"))


def _show_steps(steps: list[dict[str, Any]], explain: bool) -> None:
    rows = []
    for one in steps:
        reasons = one["reasons"] or [""]
        more = f" (+{len(reasons) - 1} more: --explain)" if len(reasons) > 1 and not explain else ""
        rows.append(
            [one["step"], one["status"], f"{one['seconds']:.1f} s" if one["seconds"] >= 0.05 else "", reasons[0] + more]
        )
        rows += [["", "", "", reason] for reason in reasons[1:] if explain]
    table(rows, ["step", "state", "time", "why"])


def _refuse_if_rejected(store: Store, name: str, outputs: dict[str, dict[str, Any]]) -> None:
    gated = outputs.get(f"gate {name}")
    if gated and not gated["passed"]:
        where = f"scorecards/{gated['scorecard']}"
        verdicts = json.loads(store.get(f"{where}/scorecard.json"))["verdicts"]
        failed = [one["gate"] for one in verdicts if not one["passed"] and one["severity"] == "block"]
        page = store.local_path(f"{where}/scorecard.html")
        raise Refused(f"model {name}: the gates said no ({', '.join(failed)}); the scorecard is {page}")


COMMANDS = (plan, train, retrain, demo, runs, stop)
