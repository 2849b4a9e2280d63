"""On real data that drifted: bike's second year, after training on the first."""

import csv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.monitor import asked_of, monitor_step, read_report
from flows.steps import execute
from infra.progress import Progress
from infra.settings import Settings
from tests.flows.shop import Shop

INPUTS = (
    "season", "mnth", "hr", "holiday", "weekday", "workingday", "weathersit", "temp", "atemp", "hum", "windspeed",
)  # fmt: skip
FIRST = datetime(2012, 1, 1, tzinfo=UTC)


def second_year(source: Path, folder: Path) -> None:
    """rows.csv, without what is not known when a model is asked, and labels.csv, which come later."""
    with source.open() as file:
        rows = [row for row in csv.DictReader(file) if row["yr"] == "1"]
    asked = [
        [row["instant"], f"{row['dteday']}T{int(row['hr']):02}:00:00", *(row[name] for name in INPUTS)] for row in rows
    ]
    with (folder / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "at", *INPUTS], *asked])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "busy"], *([row["instant"], int(row["cnt"]) > 109] for row in rows)])


def compared(settings: Settings, labels: Path | None = None) -> list[dict[str, Any]]:
    step = monitor_step(settings, asked_of(settings, "bike/1", since=FIRST, labels=labels))
    return read_report(settings.object_store, execute(settings.object_store, step, {}, Progress("monitor"))["report"])[
        "windows"
    ]


@pytest.mark.slow
@pytest.mark.shared_data
def test_the_alarm_on_bikes_second_year_comes_before_its_labels(shared_data, tmp_path):
    """In the first full week the predictions are unlike any January's, and no label is needed to see it. The estimate
    does not see what happened: demand grew in the same weather, which is concept drift, and only labels tell that."""
    shop = Shop(tmp_path, "")
    source = shared_data / "drift_bike" / "hour.csv"
    shop.run("data", "register", "bike", "--source", str(source))
    shop.run("train", "bike")
    shop.run("evaluate", "bike/1")
    second_year(source, tmp_path)
    told = shop.ask("predict", "bike/1", "--file", "rows.csv", "--out", "out.parquet", "--id", "id", "--time", "at")
    assert told["answered"] == told["rows"] == 8734
    settings = Settings(workspace=str(tmp_path / ".slipway"))
    before = compared(settings)
    alarms = [one["start"][:10] for one in before if one["alarms"]]
    assert alarms[0] <= "2012-01-09" and 1 <= len(alarms) <= 15, alarms
    assert {said["kind"] for one in before for said in one["alarms"]} <= {"input", "prediction"}
    after = compared(settings, tmp_path / "labels.csv")
    january = next(one for one in after if one["start"] > "2012-01-08")
    assert january["real"]["high"] < 0.85 < january["estimated"]["low"]
    summer = [one for one in after if "2012-05" < one["start"] < "2012-09" and one["judged"]]
    gaps = [abs(one["estimated"]["value"] - one["real"]["value"]) for one in summer]
    assert sum(gaps) / len(gaps) < 0.03
