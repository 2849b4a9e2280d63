"""The page of a monitor report: accuracy through time, what drifted in which window, and what an estimate rests on."""

from collections.abc import Mapping, Sequence
from typing import Any

from flows.judging.drift_page import drawn
from flows.judging.page import pages

WIDTH, HEIGHT = 600, 160
"""Units of the chart's box."""
SHOWN_WINDOWS = 12
"""Windows whose drifted comparisons are drawn, the newest first."""
KINDS = {
    "input": "what it sees",
    "prediction": "what it says",
    "estimated": "estimated accuracy",
    "real": "real accuracy",
}


def headline(report: Mapping[str, Any]) -> str:
    """The outcome in one sentence."""
    windows = report["windows"]
    alarmed = [one for one in windows if one["alarms"]]
    if not any(one["judged"] for one in windows):
        return "Nothing could be judged: no window has enough answers"
    if not alarmed:
        said = sum(bool(one["said"]) for one in windows)
        return f"No alarm in {_windows(len(windows))}" + (f"; {said} with drift that is only said" if said else "")
    kinds = list(dict.fromkeys(KINDS[said["kind"]] for one in alarmed for said in one["alarms"]))
    named = ", ".join(one["start"][:10] for one in alarmed[:4]) + (" ..." if len(alarmed) > 4 else "")
    return f"Alarm in {len(alarmed)} of {_windows(len(windows))} ({named}): {', '.join(kinds)}"


def _windows(count: int) -> str:
    return f"{count} window{'s' * (count != 1)}"


def render(report: Mapping[str, Any]) -> str:
    """The page of a report's JSON."""
    shown = [one for one in reversed(report["windows"]) if any(result["drifted"] for result in one["drift"])]
    template = pages().get_template("monitor_page.html")
    return template.render(
        report=report,
        kinds=KINDS,
        headline=headline(report),
        tone="no" if report["alarm"] else "warn" if any(one["said"] for one in report["windows"]) else "yes",
        chart=chart(report),
        matrix=matrix(report["windows"]),
        shown=[
            {**one, "plots": [drawn(result) for result in one["drift"] if result["plot"]]}
            for one in shown[:SHOWN_WINDOWS]
        ],
        left_out=len(shown[SHOWN_WINDOWS:]),
    )


def chart(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Estimated accuracy with its interval, real accuracy, and the test split's, in the units of a WIDTH x HEIGHT box.
    None where nothing was estimated and no label has come."""
    windows = report["windows"]
    seen = [(place, one[kind]) for place, one in enumerate(windows) for kind in ("estimated", "real") if one[kind]]
    if not seen:
        return None
    tested = report["tested"]["accuracy"]
    values = [tested["low"], tested["value"] - report["policy"]["drop"], tested["high"]]
    values += [figure[end] for _, figure in seen for end in ("low", "high")]
    bottom, top = max(0.0, min(values) - 0.02), min(1.0, max(values) + 0.02)

    def x(place: int) -> float:
        return round(WIDTH * (place + 0.5) / len(windows), 1)

    def y(value: float) -> float:
        return round(HEIGHT * (top - value) / (top - bottom), 1)

    estimated = [(x(place), one["estimated"]) for place, one in enumerate(windows) if one["estimated"]]
    upper = [f"{at},{y(figure['high'])}" for at, figure in estimated]
    lower = [f"{at},{y(figure['low'])}" for at, figure in reversed(estimated)]
    return {
        "bottom": bottom,
        "top": top,
        "band": " ".join([*upper, *lower]),
        "line": " ".join(f"{at},{y(figure['value'])}" for at, figure in estimated),
        "estimated": [{"x": at, "y": y(figure["value"])} for at, figure in estimated],
        "real": [
            {"x": x(place), "y": y(one["real"]["value"]), "low": y(one["real"]["low"]), "high": y(one["real"]["high"])}
            for place, one in enumerate(windows)
            if one["real"]
        ],
        "tested": y(tested["value"]),
        "fallen": y(tested["value"] - report["policy"]["drop"]),
        "alarms": [x(place) for place, one in enumerate(windows) if one["alarms"]],
        "first": windows[0]["start"][:10],
        "last": windows[-1]["start"][:10],
    }


def matrix(windows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{"windows", "rows"}: each comparison in each window, its effect and how it stands; the most drifted first."""
    judged = [one for one in windows if one["judged"]]
    names = list(dict.fromkeys((result["column"], result["kind"]) for one in judged for result in one["drift"]))
    rows = []
    for column, kind in names:
        cells = []
        for one in judged:
            found = next((r for r in one["drift"] if (r["column"], r["kind"]) == (column, kind)), None)
            tone = "" if not found or not found["drifted"] else "no" if found["blocks"] else "warn"
            cells.append({"effect": found["effect"] if found else None, "tone": tone})
        rows.append({"column": column, "kind": kind, "cells": cells, "drifted": sum(c["tone"] != "" for c in cells)})
    rows.sort(key=lambda row: -row["drifted"])
    return {"windows": [one["start"][:10] for one in judged], "rows": rows}
