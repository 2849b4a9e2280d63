"""Versions that may no longer be used: withdrawn by a person, or past what their contract's retention allows.

    datasets/<name>/withdrawn/<digest>/000000000001.json    {"who", "reason", "time"}; for good

A withdrawn version stays readable, so that what was made of it can be explained; it is barred from training and
promotion.
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
