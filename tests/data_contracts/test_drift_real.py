"""Drift in real data through time, under the shipped contracts: what is known to have changed is found."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data_contracts.contract import load_contract
from data_contracts.drift import DriftResult, compare
from data_contracts.profile import read_profile
from data_contracts.registry import register
from infra.store import FolderStore

pytestmark = pytest.mark.shared_data


def halves(folder: Path, file: Path, name: str, later: Callable[[int, str], bool]) -> dict[str, DriftResult]:
    """Register the lines of which `later` is false, and those of which it is true: column -> its largest change."""
    with open(file, encoding="utf-8-sig") as text:
        header, *lines = text
    contract = load_contract(name)
    profiles = []
    for wanted in (False, True):
        half = folder / str(wanted)
        half.mkdir()
        kept = [line for index, line in enumerate(lines) if later(index, line) == wanted]
        (half / file.name).write_text(header + "".join(kept))
        store = FolderStore(folder / "store")
        version, _ = register(store, contract, str(half), cache=folder / "cache")
        assert sum(version.counts[split] for split in ("train", "validation", "test")) == len(kept)
        profiles.append(read_profile(store, version))
    results = compare(profiles[0], profiles[1], contract)
    return {result.column: result for result in reversed(results)}


def drifted(results: dict[str, DriftResult]) -> set[str]:
    return {column for column, result in results.items() if result.drifted}


def test_the_bikes_second_year_is_flagged(shared_data: Path, tmp_path: Path) -> None:
    """More riders in 2012; calendar and weather of two whole years are alike, humidity a little less."""
    found = halves(
        tmp_path, shared_data / "drift_bike/hour.csv", "drift-bike", lambda _, line: line.split(",")[1] >= "2012"
    )
    assert {"cnt"} <= drifted(found) <= {"cnt", "hum"}
    assert found["cnt"].effect > 0.2 and found["cnt"].blocks


def test_electricity_columns_that_were_constant_are_found(shared_data: Path, tmp_path: Path) -> None:
    found = halves(tmp_path, shared_data / "drift_elec2/elec.csv", "drift-elec2", lambda index, _: index >= 17_424)
    assert {"vicprice", "vicdemand", "transfer"} < drifted(found)
    assert all(found[name].effect > 0.5 for name in ("vicprice", "vicdemand", "transfer"))
    assert not drifted(found) & {"period", "class"}


def test_fifty_years_of_weather_drift_mildly(shared_data: Path, tmp_path: Path) -> None:
    found = halves(tmp_path, shared_data / "drift_weather/weather.csv", "drift-weather", lambda index, _: index >= 9079)
    assert drifted(found) <= {"feat_4", "feat_6"}
    assert max(result.effect for result in found.values()) < 0.25
    assert found["target"].effect < 0.05
    assert not any(result.blocks for result in found.values() if result.drifted)


def test_weather_dealt_out_by_turns_is_quiet(shared_data: Path, tmp_path: Path) -> None:
    found = halves(
        tmp_path, shared_data / "drift_weather/weather.csv", "drift-weather", lambda index, _: index % 2 == 1
    )
    assert drifted(found) == set()
