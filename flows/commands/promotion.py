"""Commands about the champion: promote, rollback, champion, history, verify."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

import click

from flows.commands.output import as_json, emit, table, workplace
from flows.commands.review import key_option, scored, signer, statement_option, statements_in
from infra.errors import Refused, WrongInput


@click.command()
@click.argument("model")
@click.option("--reason", default="", help="Kept in the log.")
@statement_option
@click.option("--wait", is_flag=True, help="As a Prefect flow that pauses until the approvals are there.")
@as_json
def promote(model: str, reason: str, files: tuple[str, ...], wait: bool, as_json: bool) -> None:
    """Make a gated model champion; refused unless its scorecard says yes and its policy is satisfied.

    Example: slipway promote library-docs@candidate
    """
    from flows.orchestration.orchestration import run_flow
    from flows.promote import promote_version, record_promotion, todays

    settings = workplace()
    version, card = scored(settings, model)
    section = todays(version).promotion
    statements = statements_in(files)
    if wait:
        from flows.promotion.pause import promote_when_approved

        done = promote_when_approved(settings, version, card, reason=reason, policy=section, statements=statements)
    else:
        promoted = partial(
            promote_version, settings, version, card, reason=reason, policy=section, statements=statements
        )
        done = run_flow(
            settings, "promote", version.ref, lambda run: run.task(f"promote {version.name}", lambda _: promoted())
        )
    record_promotion(settings, version, card, done.entry)
    document = {"model": version.ref, "entry": done.entry.sequence, "created": done.created}
    emit(document, as_json, lambda _: click.echo(done.sentence))


@click.command()
@click.argument("model")
@click.option("--to", required=True, help="A version that was champion, or 'previous': the one before the present.")
@click.option("--reason", required=True, help="Kept in the log.")
@key_option
@statement_option
@as_json
def rollback(model: str, to: str, reason: str, key_name: str | None, files: tuple[str, ...], as_json: bool) -> None:
    """Make an earlier champion champion again. Where the policy asks for approvals, one reviewer signs it.

    Example: slipway rollback library-docs --to previous --reason "answers got slower"
    """
    from flows import references
    from flows.orchestration import events
    from flows.promotion import approvals
    from flows.promotion import decisions as promotion
    from flows.promotion.alias import mirror
    from flows.promotion.binding import package_files
    from flows.promotion.log import load_log

    settings = workplace()
    store = settings.object_store
    name = references.resolve(store, model).name
    reigning, target = promotion.rollback_target(store, name, to)
    statements, packaged = statements_in(files), ""
    if target.version != reigning.version:
        version = references.resolve(store, target.ref)
        packaged = package_files(settings, version)
        policy = load_log(store, name).policy
        if policy and policy.approvals and not statements:
            bound = promotion.bind_rollback(store, target, packaged)[1]
            try:
                reviewer, key = signer(settings, policy, key_name)
            except WrongInput:
                if key_name:
                    raise
            else:
                about = approvals.about_version(bound)
                statements.append(
                    approvals.sign("rollback", about, reigning.sequence, reviewer=reviewer, key=key, reason=reason)
                )
    done = promotion.rollback(store, name, to, author=settings.author_name, reason=reason, statements=statements,
                              package_files=packaged)  # fmt: skip
    mirror(store, settings, name)
    if done.created:
        told = {"model": done.entry.ref, "before": reigning.ref, "entry": done.entry.sequence, "reason": reason}
        events.emit(settings, events.ROLLED_BACK, name, told)
    document = {"model": done.entry.ref, "entry": done.entry.sequence, "created": done.created}
    emit(document, as_json, lambda _: click.echo(done.sentence))


@click.command()
@click.argument("model")
@click.option("--at", metavar="TIME", help="ISO 8601, UTC where it names no zone: who was champion then.")
@as_json
def champion(model: str, at: str | None, as_json: bool) -> None:
    """Which version of a model is champion, or was at a time, since when, on what evidence.

    Example: slipway champion library-docs --at 2026-03-01T12:00
    """
    from dataclasses import asdict

    from flows import references
    from flows.promotion import log as promotion_log
    from flows.promotion.alias import mirror

    settings = workplace()
    store = settings.object_store
    model = references.resolve(store, model).name
    entry = promotion_log.champion(store, model, _moment(at) if at else None)
    if entry is None and at:
        raise Refused(f"model {model}: had no champion at {at}")
    if entry is None:
        raise Refused(f"model {model}: has no champion yet; slipway gate {model}, then slipway promote {model}")
    mirror(store, settings, model)

    def human(body: dict[str, Any]) -> None:
        click.echo(f"{model}/{body['version']}  champion since {body['time']}")
        for name, value in (("run", body["run"]), ("data", body["dataset"]), ("scorecard", body["scorecard"])):
            click.echo(f"{name:<10} {value}")

    emit(asdict(entry), as_json, human)


@click.command()
@click.argument("model")
@as_json
def history(model: str, as_json: bool) -> None:
    """The promotion log of a model, newest entry first.

    Example: slipway history library-docs
    """
    from flows import references
    from flows.promotion import log as promotion_log
    from flows.promotion.alias import mirror

    settings = workplace()
    store = settings.object_store
    model = references.resolve(store, model).name
    document = list(promotion_log.history(store, model))
    mirror(store, settings, model)

    def human(body: list[dict[str, Any]]) -> None:
        rows = [
            [
                e["sequence"],
                e["time"][:19],
                e["kind"],
                f"{e['name']}/{e['version']}" if e["version"] else e["name"],
                e["statement"].get("reviewer", e["author"]),
                e["reason"],
            ]
            for e in body
        ]
        table(rows, ["entry", "time (UTC)", "what", "model", "by", "reason"])

    emit(document, as_json, human)


@click.command()
@click.argument("model", required=False)
@as_json
def verify(model: str | None, as_json: bool) -> None:
    """Check the promotion log and everything it names; exit 3 when anything is not as it was written.

    Example: slipway verify library-docs
    """
    from flows import models, references
    from flows.promotion import log as promotion_log
    from flows.promotion.verify import verify as walk

    settings = workplace()
    store = settings.object_store
    names = [references.resolve(store, model).name] if model else models.names(store)
    document: list[dict[str, Any]] = []
    for name in names:
        entries = len(promotion_log.keys(store, name))
        document.append({"model": name, "entries": entries, "problems": walk(store, name, settings)})

    def human(body: list[dict[str, Any]]) -> None:
        for one in body:
            click.echo(f"{one['model']}  {one['entries']} entries" + ("" if one["problems"] else ", whole"))
            for problem in one["problems"]:
                click.echo(f"  {problem}")

    emit(document, as_json, human)
    wrong = [one["model"] for one in document if one["problems"]]
    if wrong:
        raise Refused(f"promotion log of {', '.join(wrong)}: is not whole; restore what is named above from a backup")


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise WrongInput(f"--at {text}: is no time; write it as 2026-03-01T12:00") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


COMMANDS = (promote, rollback, champion, history, verify)
