"""The command that compares two versions of a dataset."""

from pathlib import Path
from typing import Any

import click

from flows.commands.data import data
from flows.commands.output import as_json, emit, table, workplace
from infra.errors import Refused, WrongInput


@data.command()
@click.argument("before")
@click.argument("after")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for drift.html and drift.json.")
@as_json
def drift(before: str, after: str, out: Path | None, as_json: bool) -> None:
    """Compare two versions of a dataset, the older first; exit 3 when its contract says that drift blocks.

    No row is read: both versions' profiles hold all that is compared. The policy is that of the newer one's contract.

    Example: slipway data drift reviews@2f8a reviews
    """
    from data_contracts import registry
    from data_contracts.profile import read_profile
    from flows.judging.drift_page import drift_report, headline, write_report
    from flows.judging.page import VISIBLE

    settings = workplace()
    store = settings.object_store
    older, newer = (registry.resolve(store, ref) for ref in (before, after))
    contract = registry.contract_of(store, newer)
    report = drift_report(older, newer, [read_profile(store, version) for version in (older, newer)], contract)
    if not report["results"]:
        raise WrongInput(
            f"{older.ref} and {newer.ref}: have no column that could be compared; no input or label of "
            f"contract {contract.name} is in both with the same type (slipway data diff shows both schemas)"
        )
    names = "--".join(version.ref.replace("@", "-") for version in (older, newer))
    page = write_report(out or settings.folder / "drift" / names, report)

    def human(body: dict[str, Any]) -> None:
        header = ["column", "compared", "effect", "matters from", "p", "", "largest change"]
        rows = []
        for one in body["results"]:
            figures = (f"{one['effect']:.3f}", f"{one['threshold']:g}", f"{one['p_value']:.2g}")
            drifted = "drifted" if one["drifted"] else ""
            rows.append([one["column"], one["kind"], *figures, drifted, one["change"].translate(VISIBLE)])
        rows += [[name, "not compared", "", "", "", "", reason] for name, reason in body["not_compared"].items()]
        table(rows, header)
        click.echo(f"\n{headline(body)}\npage: {page}")

    emit({**report, "page": str(page)}, as_json, human)
    if report["blocked"]:
        raise Refused(f"{newer.ref}: {headline(report)} (slipway.drift of contract {contract.name}); see {page}")
