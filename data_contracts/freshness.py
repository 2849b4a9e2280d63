"""How old a version's data are, and how old its contract lets them be.

What a contract promises is the shortest of its `slaProperties` named `latency` or `freshness` (ODCS; a value with a
unit). With an `element` (`rows.updated`) it is held against the newest value of that date or timestamp column; else
against when the source last changed by its own clock, as registering recorded it; a source that tells no times
counts from when it was read.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from data_contracts import sequence
from data_contracts.withdrawal import UNIT_DAYS
from infra.errors import SlipwayError, WrongInput, choices

if TYPE_CHECKING:
    from data_contracts.contract import Contract
    from data_contracts.registry import Version
    from infra.store import Store

PROPERTIES = ("latency", "freshness")
UNITS = {**UNIT_DAYS, "h": 1 / 24, "hr": 1 / 24, "hour": 1 / 24, "min": 1 / 1440, "minute": 1 / 1440}
"""In days, singular."""


@dataclass(frozen=True)
class Promise:
    days: float
    column: str | None
    """The date or timestamp column that says how old the data are."""


@dataclass(frozen=True)
class DataTime:
    moment: datetime
    meaning: str
    """What happened then, as a clause: "its source last changed"."""
    key: str
    """The object in the store that says so."""


def promised(contract: "Contract") -> Promise | None:
    """The strictest promise; None where there is none. Raises WrongInput for one that cannot be read."""
    found = []
    for entry in contract.document.get("slaProperties") or []:
        name = str(entry.get("property", "")).lower()
        if name not in PROPERTIES:
            continue
        where = f"contract {contract.path}: slaProperties.{name}"
        value, unit = entry.get("value"), str(entry.get("unit", "")).lower()
        days = UNITS.get(unit) or UNITS.get(unit.removesuffix("s"))
        if days is None:
            raise WrongInput(f"{where}: unit '{unit}' is unknown; {choices(unit, UNITS)}")
        if isinstance(value, bool) or not _is_positive(value):
            raise WrongInput(f"{where}: value {value!r} is not a number above 0; write one with its unit")
        found.append(Promise(float(value) * days, _column(entry.get("element"), contract, where)))
    return min(found, key=lambda promise: promise.days, default=None)


def _is_positive(value: Any) -> bool:
    try:
        return 0 < float(str(value)) < 1e6
    except ValueError:
        return False


def _column(element: Any, contract: "Contract", where: str) -> str | None:
    if not element:
        return None
    name = str(element).rpartition(".")[2].strip()
    there = [column.name for column in contract.columns if column.type in ("date", "timestamp")]
    if name in there:
        return name
    if any(column.name == name for column in contract.columns) or "." in str(element) or not there:
        raise WrongInput(f"{where}: element '{element}' is no date or timestamp column; {choices(name, there)}")
    return None  # the table as a whole


def data_time(store: "Store", version: "Version", column: str | None = None) -> DataTime:
    """When the version's data are from. Raises SlipwayError where nothing says it."""
    return _newest_value(store, version, column) if column else _source_time(store, version)


def _newest_value(store: "Store", version: "Version", column: str) -> DataTime:
    from data_contracts.profile import read_profile

    newest = read_profile(store, version)["columns"].get(column, {}).get("max")
    if newest is None:
        raise SlipwayError(f"dataset {version.ref}: column '{column}' has no newest value in its profile")
    moment = datetime.fromisoformat(newest)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return DataTime(moment, f"the newest '{column}'", version.key(version.manifest["files"]["profile"]["name"]))


def _source_time(store: "Store", version: "Version") -> DataTime:
    from data_contracts.registry import FORMAT, tag_prefix

    prefix = f"datasets/{version.name}/refs/"
    tags = sorted({key.split("/")[3] for key in store.list(prefix)})
    found = []
    for tag in tags:
        for key in sequence.keys(store, tag_prefix(version.name, tag)):
            entry = sequence.read(store, key, FORMAT)
            # NOTE a tag set by hand (`who`) repeats what registering said, at a time that says nothing of the data.
            if entry["digest"] == version.digest and "fingerprint" in entry and "who" not in entry:
                changed = _changed(entry["fingerprint"])
                moment = changed or datetime.fromisoformat(entry["time"])
                found.append(DataTime(moment, "its source last changed" if changed else "its source was read", key))
    if not found:
        raise SlipwayError(f"dataset {version.ref}: nothing says when its source was read; register it again")
    return max(found, key=lambda one: one.moment)


def _changed(fingerprint: Any) -> datetime | None:
    """When the newest file of a source changed, where its fingerprint tells (path, size, ns) or (address, s)."""
    files = fingerprint.get("files") if isinstance(fingerprint, dict) else None
    if not isinstance(files, list) or not files:
        return None
    seconds = [file[2] / 1e9 if len(file) == 3 else file[1] for file in files]
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=max(seconds))
