"""Release from quarantine: rows that a person corrected are validated again and become part of a new version."""

import json
from pathlib import Path
from typing import Any

from data_contracts import registry, sequence
from data_contracts.contract import load_contract
from data_contracts.corrections import Correction, in_force, read_fixed, record
from data_contracts.registry import Version
from infra.errors import Refused, WrongInput, choices
from infra.progress import Progress
from infra.store import Store


def release(
    store: Store,
    name: str,
    fixed: Path,
    who: str,
    progress: Progress | None = None,
    cache: Path | None = None,
    memory_limit: int | None = None,
) -> tuple[Version, bool, list[Correction]]:
    """Register `name`'s source again with the corrections of the file `fixed` beside those in force.

    The corrections are recorded once all of them lead to kept rows, and before the version is. Raises WrongInput for
    rows that are not in quarantine, Refused when a corrected row still violates the contract; in both cases nothing is
    written.
    """
    version = registry.resolve(store, name)
    entry = registry.registered_from(store, version.name)
    if entry is None:
        raise WrongInput(f"dataset {version.ref}: was never registered as latest; register it (slipway data register)")
    path = entry["contract_path"]
    contract = load_contract(path) if Path(path).is_file() else registry.contract_of(store, version)
    wanted = read_fixed(fixed, contract)
    quarantine = {row["row_id"]: row for row in registry.read_quarantine(store, version).to_pylist()}
    for row_id in wanted:
        if row_id not in quarantine:
            known = choices(row_id, sorted(quarantine)[:5])
            raise WrongInput(
                f"file {fixed}: row_id {row_id[:16]} is not in the quarantine of {version.ref}; {known[:400]}"
            )
    new = [
        Correction(row_id=row_id, after=after, before=_before(quarantine[row_id]), who=who, time="")
        for row_id, after in wanted.items()
    ]
    corrections = in_force(store, version.name)
    corrections.state += 1  # the entry that `accept` writes
    corrections.by_row |= {
        one.row_id: Correction(row_id=one.row_id, after=one.after, before=one.before, who=who, time=sequence.now())
        for one in new
    }

    def accept(draft: Any) -> None:
        kept = {draft.intake.ids[index] for index in draft.kept}
        reasons = {row.row_id: row.reason for row in draft.intake.quarantined}
        for one in new:
            mended = corrections.applied.get(one.row_id)
            if mended is None and one.row_id not in reasons:
                raise Refused(f"file {fixed}: row {one.row_id[:16]} is no longer in {draft.where}; register it first")
            if mended is None or mended not in kept:
                why = reasons.get(mended or one.row_id, "is a repeat of another row")
                raise Refused(f"file {fixed}: row {one.row_id[:16]} still violates {contract.path}: {why[:300]}")
        record(store, version.name, new)

    made, created = registry.register(
        store,
        contract,
        entry["source"],
        progress,
        cache=cache,
        memory_limit=memory_limit,
        corrections=corrections,
        accept=accept,
    )
    return made, created, new


def _before(row: dict[str, Any]) -> Any:
    if row["values"] is not None:
        return json.loads(row["values"])
    return row["raw"].decode("utf-8", "backslashreplace")
