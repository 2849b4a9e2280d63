"""Commands of data engineers: register, validate, list and show dataset versions; what sources there are."""

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from flows.commands.output import as_json, emit, first_line, table, workplace
from infra.errors import Refused

if TYPE_CHECKING:
    from data_contracts.contract import Contract

SHOWN = 20
"""Quarantined rows that `show` names, and released ones that `release` does."""


@click.group()
def data() -> None:
    """Register data sets under a contract, and look at their versions.

    Example: slipway data register library-docs
    """


@data.command()
@click.argument("contract")
@click.option("--source", help="Where the data lies, instead of the contract's server.")
@as_json
def register(contract: str, source: str | None, as_json: bool) -> None:
    """Validate a data set and keep it as an immutable version.

    CONTRACT is a file (*.odcs.yaml) or the name of a shipped contract.

    Example: slipway data register reviews.odcs.yaml --source reviews.csv
    """
    from data_contracts.contract import load_contract
    from flows.ingest import ingest

    checked = load_contract(contract)
    settings = workplace(create=True)
    version, created = ingest(settings, checked, source)
    repeated = version.manifest.get("repeated", 0)
    document = {
        "ref": f"{version.name}@{version.digest}",
        "created": created,
        "counts": version.counts,
        "repeated": repeated,
    }

    def human(body: dict[str, Any]) -> None:
        click.echo(f"{version.ref}  {'registered' if created else 'was there already: nothing written'}")
        click.echo("  ".join(f"{name} {count:,}" for name, count in version.counts.items()))
        _show_filtered(version.manifest.get("filtered_by", {}))
        if version.counts["quarantined"]:
            click.echo(f"why rows were quarantined: slipway data show {version.ref}")
        _show_repeated(repeated, checked)
        _show_warnings(version.manifest["warnings"])

    emit(document, as_json, human)


@data.command()
@click.argument("contract")
@click.option("--source", help="Where the data lies, instead of the contract's server.")
@as_json
def validate(contract: str, source: str | None, as_json: bool) -> None:
    """Check a data set against a contract and write nothing; exit 3 when rows violate it.

    Rows that were corrected count as corrected, as they do when it is registered.

    Example: slipway data validate reviews.odcs.yaml --source reviews.csv
    """
    from data_contracts import registry
    from data_contracts.contract import load_contract
    from data_contracts.corrections import in_force
    from infra.progress import stage

    checked = load_contract(contract)
    settings = workplace()
    with stage("validate") as progress:
        found = registry.validate_source(
            checked,
            source,
            progress,
            cache=settings.folder / "cache",
            memory_limit=settings.memory_limit,
            corrections=in_force(settings.object_store, checked.name),
        )
    counts = found["counts"]

    def human(body: dict[str, Any]) -> None:
        verb = "violates" if counts["quarantined"] == 1 else "violate"
        click.echo(f"{counts['rows_in']:,} rows read, {counts['quarantined']:,} {verb} the contract")
        for one in body["quarantined"]:
            click.echo(f"  {one['file']}, row {one['row']}: {one['reason']}")
        _show_filtered(body["filtered_by"])
        _show_corrected(body["corrected"])
        _show_repeated(body["repeated"], checked)
        _show_warnings(body["warnings"])

    emit(found, as_json, human)
    if counts["quarantined"]:
        raise Refused(f"contract {checked.path}: violated by {counts['quarantined']:,} of {counts['rows_in']:,} rows")


@data.command("list")
@as_json
def list_versions(as_json: bool) -> None:
    """All dataset versions, the newest first.

    Example: slipway data list
    """
    from data_contracts import registry

    versions = registry.list_versions(workplace().object_store)
    document = [{"ref": f"{one.name}@{one.digest}", **one.counts} for one in reversed(versions)]

    def human(body: list[dict[str, Any]]) -> None:
        if not body:
            click.echo("none yet: slipway data register CONTRACT")
            return
        names = [name for name in body[0] if name != "ref"]
        table([[_short(one["ref"]), *(one[name] for name in names)] for one in body], ["version", *names])

    emit(document, as_json, human)


@data.command()
@click.argument("ref")
@as_json
def show(ref: str, as_json: bool) -> None:
    """One version: its counts, digests, and which rows were quarantined, by row id, and why.

    `--json` lists all of them, with their values; those of personal columns as hashes.

    Example: slipway data show library-docs
    """
    from data_contracts import registry
    from data_contracts.quarantine import quarantined_rows
    from data_contracts.withdrawal import erased

    store = workplace().object_store
    version = registry.resolve(store, ref)
    gone = erased(store, version)
    broken = [] if gone else registry.read_quarantine(store, version).column("rules").to_pylist()
    reasons = Counter(rule for rules in broken for rule in rules)
    quarantine = [] if gone else quarantined_rows(store, version, None if as_json else SHOWN)
    document = {**version.manifest, "quarantine_reasons": reasons, "quarantine": quarantine, "erased": gone}

    def human(body: dict[str, Any]) -> None:
        click.echo(f"{version.name}@{version.digest}")
        click.echo(f"rows digest     {version.rows}\ncontract digest {version.contract_digest}")
        click.echo("  ".join(f"{name} {count:,}" for name, count in version.counts.items()))
        _show_corrected(version.manifest.get("corrected", 0))
        _show_filtered(version.manifest.get("filtered_by", {}))
        if gone:
            click.echo(f"its rows were removed by {gone['who']} on {gone['time'][:10]}: the version {gone['reason']}")
        if reasons:
            click.echo()
            table([[count, reason] for reason, count in reasons.most_common()], ["rows", "quarantined by rule"])
            for one in body["quarantine"]:
                click.echo(f"  {one['row_id'][:12]}  {one['file']}, row {one['row']}: {one['reason']}")
            if len(broken) > SHOWN:
                click.echo(f"  and {len(broken) - SHOWN:,} more (--json lists all)")
            click.echo(f"to correct some: slipway data release {version.name} --rows FILE (row_id and mended columns)")
        _show_warnings(version.manifest["warnings"])

    emit(json.loads(json.dumps(document)), as_json, human)


def _show_filtered(counts: dict[str, int]) -> None:
    if counts:
        click.echo("filtered: " + ", ".join(f"{name} {rows:,}" for name, rows in counts.items()))


def _show_corrected(rows: int) -> None:
    if rows:
        counted = "1 row counts as it was" if rows == 1 else f"{rows:,} rows count as they were"
        click.echo(f"{counted} corrected (slipway data release)")


def _show_repeated(rows: int, contract: "Contract") -> None:
    if rows and contract.duplicates is None:
        repeating = "1 row repeats" if rows == 1 else f"{rows:,} rows repeat"
        click.echo(f"{repeating} an earlier one in every column; all are kept (slipway.duplicates filters them)")


def _show_warnings(warnings: list[dict[str, Any]]) -> None:
    for warning in warnings:
        named = warning.get("named", [])
        click.echo(f"warning: {warning['reason']}" + (f" (first: {named[0]})" if named else ""))


def _short(ref: str) -> str:
    name, _, digest = ref.partition("@")
    return f"{name}@{digest[:12]}"


@click.command()
@click.argument("name", required=False)
@as_json
def sources(name: str | None, as_json: bool) -> None:
    """The kinds of data source there are; of one, the options of a contract's server.

    Example: slipway sources images
    """
    from data_contracts.source import SOURCES, source_sheet
    from data_contracts.source import sources as names

    if name is None:
        document = [{"source": one, "summary": first_line(SOURCES / f"{one}.py")} for one in names()]
        emit(document, as_json, lambda body: table([[one["source"], one["summary"]] for one in body], ["source", ""]))
        return
    said, options = source_sheet(name)
    emit({"source": name, "text": said, "options": options}, as_json, _show_source)


def _show_source(body: dict[str, Any]) -> None:
    click.echo(f"{body['text']}\n\nOptions, as custom properties of the contract's server (slipway.OPTION):\n")
    click.echo(body["options"])


COMMANDS = (data, sources)
