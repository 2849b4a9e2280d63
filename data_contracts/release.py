"""Release from quarantine: rows that a person corrected are validated again and become part of a new version.

The source is read again: what else has changed in it since comes along, and is counted.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_contracts import registry, sequence
from data_contracts.contract import Contract, load_contract
from data_contracts.corrections import Correction, Corrections, in_force, read_fixed, record
from data_contracts.registry import Version
from data_contracts.source import at, load_source
from data_contracts.splits import SPLITS
from infra.errors import Refused, WrongInput, choices
from infra.progress import Progress
from infra.store import Store


@dataclass(frozen=True, kw_only=True)
class Released:
    version: Version
    before: Version
    corrected: list[Correction]
    new_ids: dict[str, str]
    """Row id in quarantine -> that of the corrected row, of each in `corrected`."""
    added: int
    """Rows that the source has now and had not, beside the corrected ones."""
    removed: int
    """Rows that it had and has no more."""
    contract_changed: bool
    """Whether the contract is another than that of the version before."""


def release(
    store: Store,
    name: str,
    fixed: Path,
    who: str,
    progress: Progress | None = None,
    cache: Path | None = None,
    memory_limit: int | None = None,
    source: str | None = None,
) -> Released:
    """Register `name`'s source again with the corrections of the file `fixed` beside those in force.

    `source` is where it lies now; by default where it lay. The corrections are recorded once all of them lead to kept
    rows, and before the version is. Raises WrongInput for rows that are not in quarantine and a source that is gone,
    Refused when a corrected row still violates the contract; in these cases nothing is written.
    """
    version = registry.resolve(store, name)
    entry = registry.registered_from(store, version.name)
    if entry is None:
        raise WrongInput(f"dataset {version.ref}: was never registered as latest; register it (slipway data register)")
    path = entry["contract_path"]
    contract = load_contract(path) if Path(path).is_file() else registry.contract_of(store, version)
    quarantine = {row["row_id"]: row for row in registry.read_quarantine(store, version).to_pylist()}
    wanted = by_whole_id(read_fixed(fixed, contract), quarantine, f"file {fixed}", f"the quarantine of {version.ref}")
    address = source or entry["source"]
    if source is None:
        _check_there(contract, version, address, cache)
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
        reasons = {draft.intake.ids[index]: f"is filtered ({reason[:40]})" for index, reason in draft.filtered()}
        reasons |= {row.row_id: row.reason for row in draft.intake.quarantined}
        for one in new:
            mended = corrections.applied.get(one.row_id)
            if mended is None and one.row_id not in reasons:
                raise Refused(f"file {fixed}: row {one.row_id[:16]} is no longer in {draft.where}; register it first")
            if mended is None or mended not in kept:
                why = reasons.get(mended or one.row_id, "is a repeat of another row")
                raise Refused(f"file {fixed}: row {one.row_id[:16]} still violates {contract.path}: {why[:300]}")
        record(store, version.name, new)

    made, _ = registry.register(
        store,
        contract,
        address,
        progress,
        cache=cache,
        memory_limit=memory_limit,
        corrections=corrections,
        accept=accept,
    )
    added, removed = _other_changes(store, version, made, corrections)
    return Released(
        version=made,
        before=version,
        corrected=new,
        new_ids={one.row_id: corrections.applied[one.row_id] for one in new},
        added=added,
        removed=removed,
        contract_changed=made.contract_digest != version.contract_digest,
    )


def by_whole_id(
    wanted: dict[str, dict[str, Any]], known: Collection[str], where: str, quarantine: str
) -> dict[str, dict[str, Any]]:
    """What is wanted, its row ids completed: each may be the beginning of one that is known. Raises WrongInput."""
    whole: dict[str, dict[str, Any]] = {}
    for beginning, after in wanted.items():
        exact = [beginning] if beginning in known else []
        matching = exact or [row_id for row_id in known if row_id.startswith(beginning)]
        if len(matching) != 1:
            shown = choices(beginning, [row_id[:16] for row_id in sorted(matching or known)[:5]])
            what = f"begins {len(matching)} rows of" if matching else "is not in"
            raise WrongInput(f"{where}: row_id {beginning[:16]} {what} {quarantine}; {shown}")
        if matching[0] in whole:
            raise WrongInput(f"{where}: row_id {beginning[:16]} stands there twice; keep one")
        whole[matching[0]] = after
    return whole


def _check_there(contract: Contract, version: Version, address: str | None, cache: Path | None) -> None:
    """Raises WrongInput, with the way out, for a source that is no longer where it was registered from."""
    contract = at(contract, address)
    try:
        load_source(contract.source).fingerprint(contract, address, cache or registry.default_cache())
    except WrongInput as error:
        raise WrongInput(
            f"dataset {version.ref}: its source is read again for a release, and cannot be ({error}); "
            "say where it is now with --source"
        ) from None


def _other_changes(store: Store, before: Version, after: Version, corrections: Corrections) -> tuple[int, int]:
    """(rows that are new, rows that are gone), corrected ones aside."""
    old, new = _all_ids(store, before), _all_ids(store, after)
    return len(new - old - set(corrections.applied.values())), len(old - new - corrections.applied.keys())


def _all_ids(store: Store, version: Version) -> set[str]:
    """The id of every row that came in: kept, quarantined or filtered."""
    import pyarrow.parquet as pq

    files = [*(f"data/{split}" for split in SPLITS), "quarantine", "filtered"]
    tables = [pq.read_table(registry.read_file(store, version, file), columns=["row_id"]) for file in files]
    return {row_id for table in tables for row_id in table.column("row_id").to_pylist()}


def _before(row: dict[str, Any]) -> Any:
    if row["values"] is not None:
        return json.loads(row["values"])
    return row["raw"].decode("utf-8", "backslashreplace")
