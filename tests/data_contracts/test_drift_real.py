"""Drift in real data, through time: what is known to have changed is found, and little else."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_contracts.contract import Contract
from data_contracts.drift import DriftResult, compare
from data_contracts.profile import read_profile
from data_contracts.registry import register
from infra.store import FolderStore

pytestmark = pytest.mark.shared_data
Maker = Callable[..., Contract]


def halves(
    folder: Path, file: Path, contract: Maker, columns: dict[str, str], where: Callable[[int, dict[str, str]], bool],
    **settings: Any,
) -> dict[str, DriftResult]:  # fmt: skip
    """Register the rows before and after `where` turns true, and compare: column -> its largest change."""
    with open(file, encoding="utf-8-sig") as text:
        rows = list(csv.DictReader(text))
    store, profiles = FolderStore(folder / "store"), {}
    for name, later in (("older", False), ("newer", True)):
        with open(folder / f"{name}.csv", "w", newline="") as out:
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(row for index, row in enumerate(rows) if where(index, row) == later)
        made = contract(columns, **settings)
        version, _ = register(store, made, str(folder / f"{name}.csv"), cache=folder / "cache")
        profiles[name] = read_profile(store, version)
    results = compare(profiles["older"], profiles["newer"], contract(columns, **settings))
    return {result.column: result for result in reversed(results)}


def drifted(results: dict[str, DriftResult]) -> set[str]:
    return {column for column, result in results.items() if result.drifted}


def test_the_bikes_second_year_is_flagged(shared_data: Path, tmp_path: Path, contract: Maker) -> None:
    """More riders in 2012; calendar and weather of two whole years are alike, humidity a little less."""
    calendar = ("season", "mnth", "hr", "holiday", "weekday", "workingday", "weathersit")
    weather = ("temp", "atemp", "hum", "windspeed")
    columns = dict.fromkeys(calendar, "integer") | dict.fromkeys(weather, "number") | {"cnt": "integer"}
    found = halves(
        tmp_path, shared_data / "drift_bike/hour.csv", contract, columns, lambda _, row: row["yr"] == "1", label="cnt"
    )
    assert drifted(found) == {"cnt"}
    assert found["cnt"].effect > 0.2 and "median 10" in found["cnt"].sentence


def test_electricity_columns_that_were_constant_are_found(shared_data: Path, tmp_path: Path, contract: Maker) -> None:
    columns = dict.fromkeys(("period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"), "number")
    found = halves(
        tmp_path, shared_data / "drift_elec2/elec.csv", contract, columns | {"class": "integer"},
        lambda index, _: index >= 17_424, label="class",
    )  # fmt: skip
    assert {"vicprice", "vicdemand", "transfer"} < drifted(found)
    assert {found[name].effect > 0.5 for name in ("vicprice", "vicdemand", "transfer")} == {True}
    assert not drifted(found) & {"period", "class"}


def test_fifty_years_of_weather_drift_mildly(shared_data: Path, tmp_path: Path, contract: Maker) -> None:
    columns = {f"feat_{number}": "number" for number in range(1, 9)} | {"target": "integer"}
    found = halves(
        tmp_path, shared_data / "drift_weather/weather.csv", contract, columns, lambda index, _: index >= 9079,
        label="target",
    )  # fmt: skip
    assert not found["target"].drifted
    assert drifted(found) <= {"feat_4", "feat_6"}
    assert max(result.effect for result in found.values()) < 0.25


def test_weather_drawn_by_lot_is_quiet(shared_data: Path, tmp_path: Path, contract: Maker) -> None:
    columns = {f"feat_{number}": "number" for number in range(1, 9)} | {"target": "integer"}
    found = halves(
        tmp_path, shared_data / "drift_weather/weather.csv", contract, columns, lambda index, _: index % 2 == 1,
        label="target",
    )  # fmt: skip
    assert drifted(found) == set()
