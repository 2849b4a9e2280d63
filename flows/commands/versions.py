"""Commands on dataset versions: audit, diff, tag, release from quarantine, withdraw."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from flows.commands.data import SHOWN, data
from flows.commands.output import as_json, emit, table, workplace
from infra.errors import Refused


@data.command()
@click.argument("ref")
@as_json
def audit(ref: str, as_json: bool) -> None:
    """Check a version again: its row arithmetic and every digest; exit 3 when something does not add up.

    Example: slipway data audit library-docs
    """
    from data_contracts import audit as auditing
    from data_contracts import registry
    from infra.progress import stage

    store = workplace().object_store
    version = registry.resolve(store, ref)
    with stage("audit"):
        checks = auditing.audit(store, version)
    document = {"ref": f"{version.name}@{version.digest}", "passed": all(one.passed for one in checks),
                "checks": [asdict(one) for one in checks]}  # fmt: skip

    def human(body: dict[str, Any]) -> None:
        table([["ok" if one.passed else "NO", one.name, one.found] for one in checks], ["", version.ref, ""])

    emit(document, as_json, human)
    wrong = [one.name for one in checks if not one.passed]
    if wrong:
        raise Refused(f"dataset {version.ref}: {', '.join(wrong)} do not add up; register it again")


@data.command()
@click.argument("before")
@click.argument("after")
@as_json
def diff(before: str, after: str, as_json: bool) -> None:
    """What two versions differ in: schema, rows, labels, distribution.

    Example: slipway data diff library-docs@1f2e3d library-docs
    """
    from data_contracts import diff as differing
    from data_contracts import registry

    store = workplace().object_store
    old, new = registry.resolve(store, before), registry.resolve(store, after)
    emit(differing.diff(store, old, new), as_json, _show_diff)


def _show_diff(body: dict[str, Any]) -> None:
    rows, schema = body["rows"], body["schema"]
    changes = [["column", "added", name] for name in schema["added"]]
    changes += [["column", "removed", name] for name in schema["removed"]]
    changes += [
        ["column", "changed", f"{one['column']}: {one['field']} {one['before']} -> {one['after']}"]
        for one in schema["changed"]
    ]
    changes += [[key, "changed", f"{schema[key][0]} -> {schema[key][1]}"] for key in ("inputs", "label") if schema[key]]
    changes += [["rows", name, f"{rows[name]:,}"] for name in ("same", "added", "removed", "changed", "moved")]
    changes += [["counts", name, f"{was:,} -> {now:,}"] for name, (was, now) in body["counts"].items() if was != now]
    changes += [
        ["column", name, f"differs in {count:,} changed rows"] for name, count in rows.get("columns", {}).items()
    ]
    changes += [["label", name, f"{was:,} -> {now:,}"] for name, (was, now) in body["labels"].items() if was != now]
    changes += [["drift", one["column"], one["sentence"]] for one in body["distribution"] if one["drifted"]]
    table(changes, ["what", "", f"rows matched by {rows['matched_by']}"])


@data.command()
@click.argument("ref")
@click.argument("name")
@as_json
def tag(ref: str, name: str, as_json: bool) -> None:
    """Let a tag name a version: `production`, `latest` or one of your own.

    Example: slipway data tag library-docs@1f2e3d production
    """
    from data_contracts import tags

    settings = workplace()
    version, written = tags.tag(settings.object_store, ref, name, settings.author_name)
    document = {"ref": f"{version.name}@{version.digest}", "tag": name, "written": written}
    said = "now is" if written else "already was"
    emit(document, as_json, lambda _: click.echo(f"{version.name}@{name} {said} {version.ref}"))


@data.command("tags")
@click.argument("name")
@as_json
def list_tags(name: str, as_json: bool) -> None:
    """The tags of a dataset, and which version each names.

    Example: slipway data tags library-docs
    """
    from data_contracts import registry, tags

    store = workplace().object_store
    version = registry.resolve(store, name)
    document = [
        {"tag": one, "ref": f"{version.name}@{entry['digest']}", "time": entry["time"], "who": entry.get("who", "")}
        for one, entry in tags.tags(store, version.name).items()
    ]

    def human(body: list[dict[str, Any]]) -> None:
        rows = [[one["tag"], one["ref"][: len(version.name) + 13], one["time"], one["who"]] for one in body]
        table(rows, ["tag", "version", "since", "by"])

    emit(document, as_json, human)


@data.command()
@click.argument("name")
@click.option("--rows", "fixed", required=True, type=click.Path(path_type=Path), help="CSV, JSONL or Parquet.")
@click.option("--source", help="Where the data lies now, when it is not where it was registered from.")
@as_json
def release(name: str, fixed: Path, source: str | None, as_json: bool) -> None:
    """Let corrected rows out of quarantine, as a new version.

    The file holds `row_id` (as `slipway data show` has it, or its beginning) and the corrected columns. Corrections are
    kept, and every later register applies them until they are withdrawn (slipway data withdraw NAME#ROW_ID). The source
    is read again: what else changed in it since is in the new version too, and is said.

    Example: slipway data release reviews --rows fixed.csv
    """
    from data_contracts.release import release as released
    from flows.ingest import record_release, tell_registered
    from infra.progress import stage

    settings, started = workplace(), time.time()
    with stage("release") as progress:
        done = released(
            settings.object_store,
            name,
            fixed,
            settings.author_name,
            progress,
            settings.folder / "cache",
            settings.memory_limit,
            source,
        )
    version = done.version
    record_release(settings, version, started)
    if version.digest != done.before.digest:
        tell_registered(settings, version)
    document = {
        "ref": f"{version.name}@{version.digest}",
        "corrected": [{"row_id": old, "corrected_row_id": new} for old, new in done.new_ids.items()],
        "counts": version.counts,
        "added": done.added,
        "removed": done.removed,
        "contract_changed": done.contract_changed,
    }

    def human(body: dict[str, Any]) -> None:
        count = len(done.corrected)
        released_rows = "1 row released" if count == 1 else f"{count:,} rows released"
        click.echo(f"{version.ref}  {released_rows}, {version.counts['quarantined']:,} quarantined")
        click.echo("a row id is of its values, so it has changed:")
        for one in body["corrected"][:SHOWN]:
            click.echo(f"  {one['row_id'][:12]} -> {one['corrected_row_id'][:12]}")
        if count > SHOWN:
            click.echo(f"  and {count - SHOWN:,} more (--json lists all)")
        if done.added or done.removed:
            changed = f"{done.added:,} new, {done.removed:,} gone"
            click.echo(f"its source changed since {done.before.ref}: rows beside the corrections: {changed}")
        if done.contract_changed:
            click.echo(f"its contract changed since {done.before.ref}: see slipway data diff {done.before.ref} {name}")

    emit(document, as_json, human)


@data.command()
@click.argument("ref")
@click.option("--reason", required=True, help="Why; it is kept with the version.")
@as_json
def withdraw(ref: str, reason: str, as_json: bool) -> None:
    """Bar a version from training and promotion, and name the models trained on it.

    NAME#ROW_ID takes back the correction of one row instead.

    Example: slipway data withdraw reviews@1f2e3d --reason "scraped without consent"
    """
    from data_contracts import corrections, registry, withdrawal
    from flows import models
    from flows.promotion import decisions as promotion

    settings = workplace()
    store = settings.object_store
    name, hash_sign, row_id = ref.partition("#")
    version = registry.resolve(store, name)
    if hash_sign:
        taken_back = corrections.withdraw(store, version.name, row_id, settings.author_name, reason)
        sentence = f"the correction of row {taken_back.row_id[:16]} no longer counts; register {version.name} again"
        emit({"row_id": taken_back.row_id, "withdrawn": True}, as_json, lambda _: click.echo(sentence))
        return
    entry, written = withdrawal.withdraw(store, version, settings.author_name, reason)
    trained = []
    for model in models.names(store):
        reigning = promotion.champion(store, model)
        trained += [
            {"model": one.ref, "champion": reigning is not None and reigning.version == one.version}
            for one in models.versions(store, model)
            if one.dataset == f"{version.name}@{version.digest}"
        ]
    document = {"ref": f"{version.name}@{version.digest}", "written": written, **entry, "models": trained}

    def human(body: dict[str, Any]) -> None:
        said = "is withdrawn" if written else f"was withdrawn by {entry['who']} on {entry['time'][:10]} already"
        click.echo(f"{version.ref} {said}: {entry['reason']}")
        for one in trained:
            click.echo(f"  {one['model']} was trained on it{' and is champion' if one['champion'] else ''}")
        if not trained:
            click.echo("  no model was trained on it")

    emit(document, as_json, human)
