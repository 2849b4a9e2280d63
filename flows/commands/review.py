"""Commands of reviewers: keygen, review, approve, reject, policy."""

from pathlib import Path
from typing import Any

import click

from flows.commands.output import as_json, emit, table, workplace
from infra.errors import Refused, WrongInput
from infra.settings import Settings


def scored(settings: Settings, reference: str) -> tuple[Any, str]:
    """The version a reference means, and the digest of its newest scorecard."""
    from flows import references
    from flows.promote import newest_scorecard

    version = references.resolve(settings.object_store, reference)
    card = newest_scorecard(settings, version)
    if card is None:
        raise Refused(f"model {version.ref}: has not been gated; run slipway gate {version.ref} first")
    return version, card


def statements_in(files: tuple[str, ...]) -> list[dict[str, Any]]:
    from flows.promotion.approvals import read

    found = []
    for file in files:
        try:
            with click.open_file(file, encoding="utf-8") as source:
                found.append(read(source.read(), file))
        except (OSError, UnicodeDecodeError) as error:
            raise WrongInput(f"--statement {file}: cannot be read ({error})") from error
    return found


def signer(settings: Settings, policy: Any, name: str | None) -> tuple[str, Path]:
    """Reviewer and private key: of that name, else the only one here that the policy lists."""
    from infra import keys

    folder = settings.keys_folder
    if name is None:
        here = {one: keys.public_key(folder, one) for one in keys.names(folder)}
        listed = [one for one, public in here.items() if public in policy.reviewers.values()]
        if len(listed) > 1 and settings.author_name in listed:
            listed = [settings.author_name]
        if len(listed) != 1:
            have = f"{folder} holds {', '.join(listed)}; say which" if listed else f"none of its keys is in {folder}"
            raise WrongInput(f"key: the policy in force is {policy}, and {have} (--key NAME)")
        name = listed[0]
    path = keys.private_path(folder, name)
    public = keys.public_half(path)
    return next((one for one, key in policy.reviewers.items() if key == public), name), path


statement_option = click.option(
    "--statement", "files", multiple=True, metavar="FILE", help="A signed statement (approve --print); '-' is stdin."
)
key_option = click.option("--key", "key_name", metavar="NAME", help="Sign with this key; by default the only listed.")


@click.command()
@click.argument("name")
@as_json
def keygen(name: str, as_json: bool) -> None:
    """Make a key pair for a reviewer, an author or a scheduler, and print the line for the policy.

    What NAME trains under SLIPWAY_AUTHOR=NAME is signed with it, and so is what NAME approves.

    Example: slipway keygen ada
    """
    from infra import keys

    settings = workplace()
    folder, store = settings.keys_folder.resolve(), settings.store_uri.removeprefix("file://")
    for place in (settings.folder, Path(store)):
        if folder.is_relative_to(place.resolve()):
            raise WrongInput(
                f"setting keys: {folder} is in the workspace, which others read; set SLIPWAY_KEYS elsewhere"
            )
    public = keys.generate(folder, name)
    document = {"name": name, "private": str(folder / f"{name}.pem"), "public": public}

    def human(body: dict[str, Any]) -> None:
        click.echo(f"private key {body['private']} (keep it; whoever has it can approve as {name})\nfor the policy:\n")
        click.echo(f"promotion:\n  policy: approvals\n  approvals: 1\n  reviewers:\n    {name}: {public}")

    emit(document, as_json, human)


@click.command()
@click.argument("model", required=False)
@click.option("--open", "show", is_flag=True, help="Open the scorecard in a browser.")
@as_json
def review(model: str | None, show: bool, as_json: bool) -> None:
    """The candidates that could be promoted now; of one model, with their verdicts.

    Example: slipway review library-docs
    """
    from flows import models, references
    from flows.promotion.alias import mirror
    from flows.promotion.review import candidates

    settings = workplace()
    store = settings.object_store
    names = [references.resolve(store, model).name] if model else models.names(store)
    wanted = references.resolve(store, model).version if model and ("/" in model or "@" in model) else None
    sorted_out = [candidates(settings, name) for name in names]
    document = [one for found, _ in sorted_out for one in found if wanted in (None, one["version"])]

    def human(body: list[dict[str, Any]]) -> None:
        if not body:
            click.echo("no open candidate" + (f" of {model}" if model else ""))
        for one in body:
            click.echo(f"{one['model']}  {one['verdict']}")
            click.echo(f"  trained by {one['author']} on {one['dataset'][:60]}, compared with {one['against']}")
            if one["hindrance"]:
                click.echo(f"  can never be promoted: {one['hindrance']}")
            click.echo(f"  policy {one['policy']}; approved by {', '.join(one['approved']) or 'nobody yet'}")
            if model:
                table([["", _mark(v), v["gate"], v["sentence"]] for v in one["verdicts"]], ["", "", "gate", ""])
            click.echo(f"  scorecard {one['page']}\n")
        for ref, why in (closed for _, others in sorted_out for closed in others.items()) if model else ():
            if wanted is None or ref.endswith(f"/{wanted}"):
                click.echo(f"{ref}  {why}")

    emit(document, as_json, human)
    for name in names:
        mirror(store, settings, name)
    if show and document:
        click.launch(Path(document[-1]["page"]).as_uri())


@click.command()
@click.argument("model")
@click.option("--reason", required=True, help="Why; part of what is signed.")
@key_option
@click.option("--print", "only_print", is_flag=True, help="Print the signed statement; store nothing.")
@click.option("--rollback", "to_rollback", is_flag=True, help="Approve going back to this version.")
@click.option("--policy", "the_policy", is_flag=True, help="Approve the policy that the experiment now says.")
@as_json
def approve(
    model: str, reason: str, key_name: str | None, only_print: bool, to_rollback: bool, the_policy: bool, as_json: bool
) -> None:
    """Sign that a candidate may be promoted, naming by digest everything this rests on.

    Example: slipway approve library-docs/3 --reason "reads well, slices are fine"
    """
    from flows.promote import todays
    from flows.promotion import approvals
    from flows.promotion import decisions as promotion
    from flows.promotion.binding import bind, package_files
    from flows.promotion.log import Bound, load_log
    from flows.promotion.policy import refuse_unsatisfiable

    settings = workplace()
    store = settings.object_store
    if to_rollback and the_policy:
        raise WrongInput("approve: --rollback and --policy exclude each other; give one")
    version, card_digest = scored(settings, model)
    log = load_log(store, version.name)
    section = todays(version).promotion
    in_force = promotion.policy_for(store, version, section)
    if not in_force.approvals:
        raise Refused(f"model {version.name}: its promotion policy is automatic, so there is nothing to approve; list "
                      "reviewers in the experiment's promotion section")  # fmt: skip
    reviewer, key = signer(settings, in_force, key_name)
    against = log.champion.sequence if log.champion else None
    if the_policy:
        bound, action, against = Bound(name=version.name), "policy", log.policy_since
        about = approvals.about_policy(version.name, promotion.parse_policy(section, f"experiment {version.name}"))
    elif to_rollback:
        _, target = promotion.rollback_target(store, version.name, str(version.version))
        bound, action = promotion.bind_rollback(store, target, package_files(settings, version))[1], "rollback"
        about = approvals.about_version(bound)
    else:
        bound, card = bind(store, version, card_digest, package_files(settings, version))
        promotion.refuse_unfit(store, version, bound, card)
        promotion.refuse_overtaken(log, version, card["compared_with"])
        where = f"model {version.ref}: run {bound.run}"
        refuse_unsatisfiable(in_force, bound.run_author, bound.run_author_key, where)
        action, about = "promotion", approvals.about_version(bound)
    signed = approvals.sign(action, about, against, reviewer=reviewer, key=key, reason=reason)
    if only_print:
        emit(signed, True, lambda _: None)
        return
    wished = promotion.parse_policy(section, f"experiment {version.name}")
    done = promotion.store_approval(store, action, bound, signed, author=settings.author_name, policy=wished)
    subject = bound.ref if bound.version else bound.name
    document = {"model": subject, "entry": done.entry.sequence, "created": done.created, "reviewer": reviewer}
    emit(document, as_json, lambda _: click.echo(done.sentence))


@click.command()
@click.argument("model")
@click.option("--reason", required=True, help="Kept in the log.")
@as_json
def reject(model: str, reason: str, as_json: bool) -> None:
    """Turn a candidate down on its scorecard; earlier approvals count no more.

    Example: slipway reject library-docs/3 --reason "worse on short texts"
    """
    from flows.promote import todays
    from flows.promotion import decisions as promotion

    settings = workplace()
    version, card = scored(settings, model)
    done = promotion.reject(settings.object_store, version, card, author=settings.author_name, reason=reason,
                            policy=todays(version).promotion)  # fmt: skip
    document = {"model": version.ref, "entry": done.entry.sequence, "created": done.created}
    emit(document, as_json, lambda _: click.echo(done.sentence))


@click.command()
@click.argument("model")
@click.option("--change", is_flag=True, help="Put the experiment's policy in force, as the present one allows.")
@click.option("--reason", default="", help="Why it is changed; kept in the log.")
@statement_option
@as_json
def policy(model: str, change: bool, reason: str, files: tuple[str, ...], as_json: bool) -> None:
    """The promotion policy in force, and what the experiment says.

    Example: slipway policy library-docs
    """
    from flows import references
    from flows.promote import todays
    from flows.promotion import decisions as promotion

    settings = workplace()
    store = settings.object_store
    version = references.resolve(store, model)
    wished = promotion.parse_policy(todays(version).promotion, f"experiment {version.name}")
    if change:
        if not reason.strip():
            raise WrongInput("policy: --change needs a reason; write --reason 'why'")
        promotion.change_policy(store, version.name, wished, author=settings.author_name, reason=reason,
                                statements=statements_in(files))  # fmt: skip
    in_force = promotion.policy_for(store, version, wished.section())
    document = {"model": version.name, "in_force": in_force.section(), "experiment": wished.section()}

    def human(body: dict[str, Any]) -> None:
        click.echo(f"in force    {in_force}\nexperiment  {wished}")
        if in_force != wished:
            click.echo(f"to change it: slipway approve {version.name} --policy --reason WHY, then "
                       f"slipway policy {version.name} --change --reason WHY")  # fmt: skip

    emit(document, as_json, human)


def _mark(verdict: dict[str, Any]) -> str:
    return "pass" if verdict["passed"] else "NO" if verdict["severity"] == "block" else "warn"


COMMANDS = (keygen, review, approve, reject, policy)
