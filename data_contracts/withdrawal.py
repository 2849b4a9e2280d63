"""Versions that may no longer be used: withdrawn by a person, or past what their contract's retention allows.

    datasets/<name>/withdrawn/<digest>/000000000001.json    {"who", "reason", "time"}; for good

A withdrawn version is barred from training and promotion. It stays readable, so that what was made of it can be
explained, until `slipway gc` removes its rows: what is left tells how many they were, under which contract.

    datasets/<name>/erased/<digest>/000000000001.json       {"who", "reason", "files": names in the manifest, "time"}
"""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from data_contracts import sequence
from infra.errors import Refused, WrongInput, choices
from infra.store import Store

if TYPE_CHECKING:
    from data_contracts.contract import Contract
    from data_contracts.registry import Version

FORMAT = 1
UNIT_DAYS = {"y": 365, "yr": 365, "year": 365, "m": 30, "month": 30, "w": 7, "week": 7, "d": 1, "day": 1}
"""ODCS's units of slaProperties, singular; hours and less are no retention."""


def retention_days(contract: "Contract") -> float | None:
    """The shortest `slaProperties` entry of property `retention`, in days. Raises WrongInput for one it cannot read."""
    found = []
    for entry in contract.document.get("slaProperties") or []:
        if str(entry.get("property", "")).lower() != "retention":
            continue
        value, unit = entry.get("value"), str(entry.get("unit", "")).lower()
        days = UNIT_DAYS.get(unit) or UNIT_DAYS.get(unit.removesuffix("s"))
        where = f"contract {contract.path}: slaProperties.retention"
        if days is None:
            raise WrongInput(f"{where}: unit '{unit}' is unknown; {choices(unit, UNIT_DAYS)}")
        try:
            number = float(str(value))
        except ValueError:
            number = 0.0
        if isinstance(value, bool) or not 0 < number < 1e5:
            raise WrongInput(f"{where}: value {value!r} is not a number above 0; write one with its unit")
        found.append(number * days)
    return min(found, default=None)


def expiry(contract: "Contract", created: str) -> str | None:
    """When a version made at `created` (ISO 8601) expires; None: never."""
    days = retention_days(contract)
    return None if days is None else (datetime.fromisoformat(created) + timedelta(days=days)).isoformat()


HOLD_ROWS = ("data/train", "data/validation", "data/test", "quarantine", "filtered", "repeats", "corrections")
"""Files of a version with values of rows in them. Reports and profiles have counts, and personal columns as hashes."""


def _prefix(version: "Version") -> str:
    return f"datasets/{version.name}/withdrawn/{version.digest}/"


def withdraw(store: Store, version: "Version", who: str, reason: str) -> tuple[dict[str, Any], bool]:
    """Bar a version for good; the entry that says so, and whether it is new. Raises WrongInput without a reason."""
    if not reason.strip():
        raise WrongInput(f"dataset {version.ref}: withdrawing needs a reason; write --reason 'why'")
    facts = {"digest": version.digest, "who": who, "reason": " ".join(reason.split())}
    written = sequence.append(store, _prefix(version), FORMAT, lambda newest: None if newest else facts)
    entry = sequence.entries(store, _prefix(version), FORMAT)[0]
    return entry, written is not None


def withdrawn(store: Store, version: "Version") -> dict[str, Any] | None:
    """The entry that withdrew it: who, reason, time."""
    return sequence.newest(store, _prefix(version), FORMAT)


def barred_since(store: Store, version: "Version") -> datetime | None:
    """When it was withdrawn or expires, whichever comes first; None: neither."""
    entry, expires = withdrawn(store, version), version.manifest.get("expires")
    moments = [datetime.fromisoformat(one) for one in (entry["time"] if entry else None, expires) if one]
    return min(moments, default=None)


def erase(store: Store, version: "Version", who: str) -> list[str]:
    """Remove the rows of a barred version: first the entry that says so, then the files. Returns the files' keys.

    Raises Refused for a version that may be used. Doing it again removes what an interrupted first time left.
    """
    why = barred(store, version)
    if why is None:
        raise Refused(f"dataset {version.ref}: may be used; withdraw it first (slipway data withdraw)")
    names = [name for name in HOLD_ROWS if name in version.manifest["files"]]
    facts = {"who": who, "reason": why, "files": names}
    sequence.append(store, _erased(version), FORMAT, lambda newest: None if newest else facts)
    keys = [version.key(version.manifest["files"][name]["name"]) for name in names]
    for key in keys:
        store.delete(key)
    return keys


def erased(store: Store, version: "Version") -> dict[str, Any] | None:
    """The entry that says that its rows were removed: who, reason, files, time."""
    return sequence.newest(store, _erased(version), FORMAT)


def _erased(version: "Version") -> str:
    return f"datasets/{version.name}/erased/{version.digest}/"


def barred(store: Store, version: "Version", now: datetime | None = None) -> str | None:
    """Why a version may not be used, as one phrase; None when it may."""
    entry = withdrawn(store, version)
    if entry is not None:
        return f"was withdrawn by {entry['who']} on {entry['time'][:10]}: {entry['reason']}"
    expires = version.manifest.get("expires")
    if expires and datetime.fromisoformat(expires) <= (now or datetime.now(UTC)):
        return f"expired on {expires[:10]} by its contract's retention"
    return None


def refuse_withdrawn(store: Store, version: "Version") -> None:
    """Raises Refused for a version that was withdrawn or has expired."""
    why = barred(store, version)
    if why is not None:
        raise Refused(f"dataset {version.ref}: {why}; register another version (slipway data register)")
