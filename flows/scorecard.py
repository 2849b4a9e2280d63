"""The scorecard: every verdict with its evidence on one page that needs nothing else, and the same as JSON.

`scorecard.json` is what a promotion is bound to; `scorecard.html` is for people: no script, no outside resource, light
and dark, phone and paper. Neither holds the time it was made, so the same evidence gives the same scorecard. Texts come
from the data and may be hostile: the template escapes everything, and a content security policy forbids scripts.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flows.evidence import Evidence, MissingEvidence, Subject
from flows.gate import Verdict, passed
from flows.page import pages

FORMAT = 1
MAX_CURVE_POINTS = 400
MAX_CONFUSION_LABELS = 24
MAX_MISTAKES = 12
MAX_MISTAKES_OF_A_KIND = 2


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Where the candidate comes from, as the page prints it."""

    contract: str
    """Digest of the data contract."""
    dataset: dict[str, str | int]
    """More about the dataset version: its digests and how many rows each split has."""
    experiment: str
    """The experiment as YAML."""
    code: dict[str, str]
    """Step -> key of its code."""
    base: str
    """What the weights started from: a model, a folder, or "random weights"."""
    libraries: dict[str, str]
    author: str
    created: str
    """When the run finished: ISO 8601, UTC."""
    accepted: list[str] = field(default_factory=list)
    """One sentence for each result that was kept through a change of code: step, who, why."""


def build_scorecard(
    folder: Path,
    *,
    candidate: Subject,
    champion: Subject | None,
    verdicts: Sequence[Verdict],
    evidence: Evidence,
    curves: Mapping[str, Sequence[Sequence[float]]],
    lineage: Lineage,
    policy: str = "automatic",
) -> dict[str, Any]:
    """Write `scorecard.json` and `scorecard.html` into `folder`; returns what the JSON holds.

    curves: name -> [[step, value], ...], e.g. {"fine-tuning: train loss": [[10, 2.1], ...]}. A candidate whose
    evaluation is missing still gets its page, without figures: its gates have said no.
    """
    try:
        evaluation = evidence.evaluation(candidate)
        metrics: dict[str, Any] | None = evaluation.metrics
        mistakes = _mistakes(evaluation.predictions().to_pylist())
    except MissingEvidence:
        metrics, mistakes = None, []
    card = {
        "format": FORMAT,
        "passed": passed(verdicts),
        "verdict": headline(verdicts),
        "candidate": {**_facts(candidate), "package": candidate.package, "contract": lineage.contract},
        "compared_with": champion.sequence if champion else None,
        "champion": {**_facts(champion), "sequence": champion.sequence} if champion else None,
        "policy": policy,
        "notes": _notes(metrics or {}),
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "metrics": metrics,
        "curves": {name: _thinned(points) for name, points in curves.items()},
        "mistakes": mistakes,
        "lineage": asdict(lineage),
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "scorecard.json").write_text(text, encoding="utf-8")
    (folder / "scorecard.html").write_text(render(json.loads(text)), encoding="utf-8")
    return card


def headline(verdicts: Sequence[Verdict]) -> str:
    """The outcome in a few plain words."""
    blocked = [verdict for verdict in verdicts if not verdict.passed and verdict.severity == "block"]
    warned = [verdict for verdict in verdicts if not verdict.passed and verdict.severity == "warn"]
    if not verdicts:
        return "No gate was run, which is a no"
    if blocked:
        names = ", ".join(verdict.gate for verdict in blocked)
        return f"{len(blocked)} of {len(verdicts)} gates {'says' if len(blocked) == 1 else 'say'} no: {names}"
    if warned:
        warnings = f"{len(warned)} warning{'s' if len(warned) > 1 else ''}"
        return f"May be promoted, with {warnings}: {', '.join(verdict.gate for verdict in warned)}"
    return f"May be promoted: all {len(verdicts)} gates say yes"


def render(card: Mapping[str, Any]) -> str:
    """The page of a scorecard's JSON."""
    environment = pages()
    environment.filters.update(figure=_figure, scale=_scale)
    metrics = card["metrics"]
    return environment.get_template("scorecard.html").render(
        card=card,
        tone="no" if not card["passed"] else "yes" if all(v["passed"] for v in card["verdicts"]) else "warn",
        figures=_compared(metrics) if metrics else [],
        confusion=_confusion(metrics) if metrics else None,
        charts=[chart for name, points in card["curves"].items() if (chart := _chart(name, points))],
        lists=_lists(card),
    )


def _notes(metrics: Mapping[str, Any]) -> list[str]:
    """What a reader must know before believing the figures."""
    reads = metrics.get("test_reads", 1)
    if reads < 2:
        return []
    return [
        f"This model has been evaluated on its test split {reads} times: whoever trained it may have known these rows' "
        "answers, and the figures flatter it."
    ]


def _facts(subject: Subject) -> dict[str, Any]:
    return {
        "ref": subject.ref,
        "name": subject.name,
        "version": subject.version,
        "run": subject.run,
        "model": subject.model,
        "package_digest": subject.package_digest,
        "dataset": subject.dataset,
        "evaluation": subject.evaluation,
    }


def _mistakes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The wrong answers it was surest of, at most two for each pair of classes."""
    kinds: Counter[tuple[str, str]] = Counter()
    chosen = []
    for row in sorted(rows, key=lambda row: (-row["confidence"], row["row_id"])):
        kind = (row["label"], row["prediction"])
        if row["label"] == row["prediction"] or kinds[kind] >= MAX_MISTAKES_OF_A_KIND:
            continue
        kinds[kind] += 1
        chosen.append(row)
        if len(chosen) == MAX_MISTAKES:
            break
    return chosen


def _thinned(points: Sequence[Sequence[float]]) -> list[list[float]]:
    """At most MAX_CURVE_POINTS of the finite points, evenly chosen, first and last among them."""
    finite = [[point[0], point[1]] for point in points if math.isfinite(point[1])]
    if len(finite) <= MAX_CURVE_POINTS:
        return finite
    last = MAX_CURVE_POINTS - 1
    return [finite[position * (len(finite) - 1) // last] for position in range(MAX_CURVE_POINTS)]


def _figure(value: float | None, measure: str = "") -> str:
    """A number as the page writes it: signed where it is a difference, whole where it is a count."""
    if value is None:
        return "none"
    if "minus" in measure and value:
        return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")
    if abs(value) > 1:
        return f"{value:,.0f}" if value == int(value) else f"{value:,.4g}"
    return f"{value:.3f}"


def _scale(verdict: Mapping[str, Any]) -> dict[str, float] | None:
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


def _compared(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures side by side: one block a metric, one bar a model, on a line from 0 to 1."""
    from training.evaluation import COMPARED
    from training.metrics import METRICS

    blocks = []
    for metric in COMPARED:
        bars = [("this model", metrics["model"]), (metrics["baseline"]["name"], metrics["baseline"])]
        if metric in metrics["majority"]:
            bars.append((f"always “{metrics['majority']['label']}”", metrics["majority"]))
        rows = [
            {
                "name": name,
                **found[metric],
                "left": round(100 * found[metric]["low"], 2),
                "width": round(100 * (found[metric]["high"] - found[metric]["low"]), 2),
                "at": round(100 * found[metric]["value"], 2),
            }
            for name, found in bars
        ]
        blocks.append({"title": METRICS[metric].title, "rows": rows, "difference": metrics["difference"][metric]})
    return blocks


def _confusion(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The confusion matrix as shares of each true class; of many classes, those with the most mistakes."""
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


def _chart(name: str, points: Sequence[Sequence[float]]) -> dict[str, Any] | None:
    """One curve in a box of 300 x 100 units; None for fewer than two points."""
    if len(points) < 2:
        return None
    steps, values = [point[0] for point in points], [point[1] for point in points]
    width, height = (max(steps) - min(steps)) or 1, (max(values) - min(values)) or 1

    def place(step: float, value: float) -> str:
        return f"{300 * (step - min(steps)) / width:.1f},{96 - 92 * (value - min(values)) / height:.1f}"

    return {
        "name": name,
        "line": " ".join(place(step, value) for step, value in points),
        "top": max(values),
        "bottom": min(values),
        "first": steps[0],
        "last": steps[-1],
        "final": values[-1],
    }


def _lists(card: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, Any]]]]:
    """Lineage as titled lists of name and value."""
    lineage, candidate = card["lineage"], card["candidate"]
    run = [
        ("run", candidate["run"]),
        ("author", lineage["author"]),
        ("finished", lineage["created"]),
        ("started from", lineage["base"]),
    ]
    bound = [(name, candidate[name]) for name in ("model", "package_digest", "dataset", "contract", "evaluation")]
    return [
        ("Run", run),
        ("Digests a promotion is bound to", [(name.replace("_", " "), value) for name, value in bound]),
        ("Data", list(lineage["dataset"].items())),
        ("Code", list(lineage["code"].items())),
        ("Libraries", list(lineage["libraries"].items())),
    ]
