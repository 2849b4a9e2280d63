"""A drifted week is found and no other; accuracy is estimated before labels come; an alarm is told once."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.inference.page import headline
from flows.orchestration import events
from infra.errors import WrongInput
from tests.flows import rider
from tests.flows.rider import MONDAY, Rides, draw, write_labels

PLANTED = 2


@pytest.fixture(scope="module")
def four_weeks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Rides, dict[str, bool]]:
    """Four weeks of 600 answers, warmer ones in the third; and their labels."""
    rides = Rides(tmp_path_factory.mktemp("rides"), draw(0, 4000))
    labels: dict[str, bool] = {}
    for week in range(4):
        labels |= rides.log(week, draw(10 + week, 600, shift=0.5 if week == PLANTED else 0.0))
    return rides, labels


def test_the_planted_week_is_flagged_and_no_other(four_weeks):
    rides, _ = four_weeks
    report = rides.monitor()
    assert [one["start"][:10] for one in report["windows"]] == [
        str((MONDAY + week * rider.WEEK).date()) for week in range(4)
    ]
    assert [bool(one["alarms"]) for one in report["windows"]] == [week == PLANTED for week in range(4)]
    drifted = {(one["column"], one["kind"]) for one in report["windows"][PLANTED]["drift"] if one["drifted"]}
    assert drifted == {("heat", "values"), ("busy", "predictions")}
    assert report["alarm"] and "Alarm in 1 of 4 windows" in headline(report)


def test_estimated_accuracy_is_near_the_real_one(four_weeks, tmp_path):
    """Within 3 points on the weeks without drift, though the model says far more than it knows; and its interval holds
    the real one in the drifted week too, for only the inputs moved."""
    rides, labels = four_weeks
    report = rides.monitor(labels=write_labels(tmp_path / "labels.csv", labels))
    assert len(report["windows"]) == 4
    for week, one in enumerate(report["windows"]):
        assert one["real"]["rows"] == 600
        assert one["estimated"]["low"] <= one["real"]["value"] <= one["estimated"]["high"]
        if week != PLANTED:
            assert abs(one["estimated"]["value"] - one["real"]["value"]) < 0.03
    assert report["estimate"]["ece"]["as_said"]["value"] > 3 * report["estimate"]["ece"]["calibrated"]["value"]


def test_labels_that_lie_in_the_store_count_as_they_come(four_weeks, tmp_path):
    rides, labels = four_weeks
    first = {name: label for name, label in labels.items() if name.startswith("w0-")}
    rides.store.put("labels/rides/first.csv", write_labels(tmp_path / "first.csv", first).read_bytes())
    rides.store.put("labels/rides/other.csv", b"name,busy\nw1-0,True\n")
    report = rides.monitor()
    assert [one["real"] and one["real"]["rows"] for one in report["windows"]] == [600, None, None, None]
    assert any("labels/rides/other.csv" in line and "has no column 'id'" in line for line in report["misfits"])
    for key in list(rides.store.list("labels/")):
        rides.store.delete(key)


def test_a_world_that_answers_otherwise_is_seen_by_labels_alone(tmp_path):
    """Concept drift: the estimate keeps what it assumed, and the real accuracy is the alarm."""
    rides = Rides(tmp_path, draw(0, 3000))
    rows = [{**row, "busy": not row["busy"]} for row in draw(7, 500)]
    labels = rides.log(0, rows)
    before = rides.monitor()
    assert not before["alarm"] and not before["windows"][0]["said"]
    after = rides.monitor(labels=write_labels(tmp_path / "labels.csv", labels))
    assert [one["kind"] for one in after["windows"][0]["alarms"]] == ["real"]
    assert not rides.monitor(labels=tmp_path / "labels.csv", alarm=("input",))["alarm"]


def test_a_season_is_compared_with_its_own(tmp_path):
    """A winter week has drifted beside the whole year, and not beside the winter; a warm winter has."""
    rides = Rides(tmp_path, rider.seasonal(0, 8000))
    rides.log(0, draw(50, 600, season=1))
    rides.log(1, draw(51, 600, season=1, shift=0.5))
    assert [bool(one["alarms"]) for one in rides.monitor()["windows"]] == [True, True]
    within = rides.monitor(within="season")
    assert [bool(one["alarms"]) for one in within["windows"]] == [False, True]
    assert within["windows"][0]["compared_with"] == 2000
    with pytest.raises(WrongInput, match="'seasn' is no input column; did you mean 'season'"):
        rides.monitor(within="seasn")


def test_what_differs_from_week_to_week_anyway_is_no_drift(tmp_path):
    """Each week has a mood of its own: beside rows that count as independent any week has drifted, beside the training
    data's own weeks only one that is like none of them."""
    rides = Rides(tmp_path, rider.moody(100, weeks=20, count=120))
    rides.log(0, draw(200, 300, shift=0.4))
    rides.log(1, draw(201, 300, shift=-0.4))
    rides.log(2, draw(202, 300, shift=1.6))
    assert [bool(one["alarms"]) for one in rides.monitor()["windows"]] == [True, True, True]
    report = rides.monitor(time="day")
    assert [bool(one["alarms"]) for one in report["windows"]] == [False, False, True]
    heat = next(one for one in report["windows"][0]["drift"] if one["column"] == "heat")
    assert heat["threshold"] > heat["effect"] > 0.1 and "usual up to" in heat["sentence"]
    with pytest.raises(WrongInput, match=r"monitor\.time: 'heat' is no date column; there is: day"):
        rides.monitor(time="heat")


def test_an_alarm_is_told_once_for_each_window(four_weeks, monkeypatch):
    rides, _ = four_weeks
    heard: list[Any] = []

    def hear(*what: Any) -> bool:
        heard.append(what)
        return True

    monkeypatch.setattr(events, "emit", lambda *what: False)  # no server, or one that is away
    rides.monitor()
    monkeypatch.setattr(events, "emit", hear)
    rides.monitor()
    rides.monitor(minimum_rows=51)  # another report of the same weeks
    assert [(name, subject) for _, name, subject, _ in heard] == [(events.DRIFT_FOUND, "rides")]
    start = (MONDAY + PLANTED * rider.WEEK).isoformat()
    assert heard[0][3]["windows"] == [{"start": start, "alarms": ["input", "prediction"]}]
    rides.monitor(window="24h", minimum_rows=50)  # each day of the week is a window of its own
    days = {(MONDAY + PLANTED * rider.WEEK + timedelta(days=day)).isoformat() for day in range(7)}
    assert len(heard) == 2 and days <= {one["start"] for one in heard[1][3]["windows"]}


def test_what_happened_before_and_too_few_answers_are_not_judged(four_weeks):
    rides, _ = four_weeks
    report = rides.monitor(since=MONDAY + 3 * rider.WEEK + timedelta(days=6.5))
    assert [(one["rows"], one["judged"], one["drift"]) for one in report["windows"]] == [(41, False, [])]
    assert headline(report) == "Nothing could be judged: no window has enough answers"


def test_a_model_that_nobody_asked_is_named(four_weeks, tmp_path):
    rides, _ = four_weeks
    with pytest.raises(WrongInput, match="nothing is in its inference log since"):
        rides.monitor(since=MONDAY + timedelta(days=4000))


def test_the_page_tells_no_personal_value_and_runs_nothing(four_weeks):
    rides, _ = four_weeks
    report = rides.monitor()
    html = Path(report["page"]).read_text(encoding="utf-8")
    assert "<script" not in html and "default-src 'none'" in html
    assert "example.org" not in html + json.dumps(report)
    assert html.count("<figure") == 3  # accuracy through time, and the two comparisons that drifted
