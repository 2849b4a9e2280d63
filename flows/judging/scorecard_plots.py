"""What the scorecard's page draws, as numbers that its template puts in place: percentages, points, shares."""

from collections.abc import Mapping, Sequence
from typing import Any

from training.metrics import told

MAX_CONFUSION_LABELS = 24
MINUS = "\N{MINUS SIGN}"


def figure(value: float | None, measure: str = "") -> str:
    """A number as the page writes it: signed where it is a difference, whole where it is a count."""
    if value is None:
        return "none"
    if "minus" in measure and value:
        return told(value, "+").replace("-", MINUS)
    if abs(value) > 1:
        return f"{value:,.0f}" if value == int(value) else f"{value:,.4g}"
    return told(value)


def scale(verdict: Mapping[str, Any]) -> dict[str, float] | None:
    """Where threshold, observed value and interval stand on one line, in percent of its width; None without them."""
    observed, threshold = verdict["observed"], verdict["threshold"]
    if observed is None or threshold is None:
        return None
    low, high = verdict["interval"] or (observed, observed)
    least, most = min(low, observed, threshold), max(high, observed, threshold)
    room = (most - least or abs(most) or 1.0) * 0.12

    def place(value: float) -> float:
        return round(100 * (value - least + room) / (most - least + 2 * room), 2)

    return {
        "low": place(low),
        "width": round(place(high) - place(low), 2),
        "observed": place(observed),
        "threshold": place(threshold),
    }


def compared(metrics: Mapping[str, Any], both: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The figures side by side: one block a metric, one bar a model, on a line from 0 to 1; of a metric that is no
    share, to the largest there is."""
    from training.evaluation import load_kind

    blocks = []
    kind = load_kind(metrics["task"])
    for metric in kind.compared:
        bars = [("this model", metrics["model"][metric])]
        if both and metric in both["figures"] and both["rows"] == metrics["rows"]:
            bars.append((f"the champion {both['champion']}", both["figures"][metric]["champion"]))
        bars.append((metrics["baseline"]["name"], metrics["baseline"][metric]))
        if metric in metrics["majority"]:
            label = metrics["majority"]["label"]
            bars.append((f"always “{label}”" if kind.needs_label else label, metrics["majority"][metric]))
        end = 1.0 if kind.metrics[metric].share else 1.05 * max(found["high"] for _, found in bars)
        rows = [
            {
                "name": name,
                **found,
                "left": round(100 * found["low"] / end, 2),
                "width": round(100 * (found["high"] - found["low"]) / end, 2),
                "at": round(100 * found["value"] / end, 2),
            }
            for name, found in bars
        ]
        about = kind.metrics[metric]
        blocks.append(
            {
                "title": about.title,
                "end": end,
                "rows": rows,
                "minus": "This model minus the baseline" if about.higher_is_better else "The baseline minus this model",
                "difference": metrics["difference"][metric],
            }
        )
    return blocks


def confusion(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """The confusion matrix as shares of each true class; of many classes, those with the most mistakes. None where
    there are no classes."""
    if "confusion" not in metrics["model"]:
        return None
    labels, counts = metrics["labels"], metrics["model"]["confusion"]
    errors = [sum(row) - row[index] for index, row in enumerate(counts)]
    worst = sorted(range(len(labels)), key=lambda index: -errors[index])[:MAX_CONFUSION_LABELS]
    shown = sorted(worst)
    rows = []
    for truth in shown:
        total = sum(counts[truth])
        cells = [
            {
                "count": counts[truth][answer],
                "share": round(counts[truth][answer] / total, 4) if total else 0.0,
                "right": truth == answer,
            }
            for answer in shown
        ]
        rows.append({"label": labels[truth], "cells": cells})
    return {"labels": [labels[index] for index in shown], "rows": rows, "left_out": len(labels) - len(shown)}


def chart(name: str, points: Sequence[Sequence[float]], other: Sequence[Sequence[float]] = ()) -> dict[str, Any] | None:
    """One curve, and the champion's beneath it, in a box of 300 x 100 units; None for fewer than two points."""
    if len(points) < 2:
        return None
    together = [*points, *other]
    steps, values = [point[0] for point in together], [point[1] for point in together]
    width, height = (max(steps) - min(steps)) or 1, (max(values) - min(values)) or 1

    def line(points: Sequence[Sequence[float]]) -> str:
        return " ".join(
            f"{300 * (step - min(steps)) / width:.1f},{96 - 92 * (value - min(values)) / height:.1f}"
            for step, value in points
        )

    return {
        "name": name,
        "line": line(points),
        "other": line(other) if len(other) > 1 else "",
        "top": max(values),
        "bottom": min(values),
        "first": min(steps),
        "last": max(steps),
        "final": points[-1][1],
    }


def reliability(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Bins of a reliability plot in a square of 100 x 100 units, y downwards; None for an evaluation without them."""
    found = metrics.get("calibration") or {}
    bins = found.get("reliability")
    if not bins:
        return None
    points = [
        {
            "x": round(100 * one["confidence"], 2),
            "y": round(100 - 100 * one["accuracy"], 2),
            "low": round(100 - 100 * one["low"], 2),
            "high": round(100 - 100 * one["high"], 2),
        }
        for one in bins
    ]
    return {"points": points, "bins": bins, "ece": found.get("ece")}


def drift(verdicts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each comparison of the gate `drift`: how far the column moved, and from where that matters, on a line 0 to 1."""
    rows = [row for verdict in verdicts if verdict["gate"] == "drift" for row in verdict["details"]]
    return [
        {
            "name": f"{row['compared']} of {row['column']}",
            "effect": row["effect"],
            "threshold": row["matters from"],
            "width": round(100 * min(1.0, max(0.0, row["effect"])), 2),
            "limit": round(100 * min(1.0, max(0.0, row["matters from"])), 2),
            "drifted": row["drifted"] == "yes",
        }
        for row in rows
        if {"compared", "column", "effect", "matters from", "drifted"} <= row.keys()
    ]


def slices(verdicts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each slice of the gate `slices`: candidate and champion on a line from 0 to 1; of metrics that are no shares
    nothing is drawn."""
    rows = [row for verdict in verdicts if verdict["gate"] == "slices" for row in verdict["details"]]
    found = []
    for row in rows:
        own, before = row.get("candidate"), row.get("champion")
        values = [value for value in (own, before) if value is not None]
        if own is None or not all(0 <= value <= 1 for value in values):
            continue
        found.append(
            {
                "name": row["slice"],
                "rows": row["rows"],
                "candidate": own,
                "champion": before,
                "at": round(100 * own, 2),
                "was": None if before is None else round(100 * before, 2),
                "left": round(100 * min(values), 2),
                "width": round(100 * (max(values) - min(values)), 2),
                "bad": row.get("verdict") != "fine",
            }
        )
    return found
