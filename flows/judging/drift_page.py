"""The drift report of two dataset versions: one JSON document and one HTML page that needs nothing else.

Both are made from the two profiles; no row of either version is read. Neither holds the time it was made, so the same
versions give the same report. What a personal column holds shows as hashes, because its profile holds no more.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.judging.page import pages

if TYPE_CHECKING:
    from data_contracts.contract import Contract
    from data_contracts.drift import DriftResult
    from data_contracts.registry import Version

FORMAT = 1
BINS = 30
SHOWN_CATEGORIES = 8
SHOWN_PLOTS = 60


def drift_report(
    before: "Version", after: "Version", profiles: list[dict[str, Any]], contract: "Contract"
) -> dict[str, Any]:
    """What drifted from `before` to `after` by the policy of `contract`, with what the page draws.

    profiles: of the older and the newer version.
    """
    from data_contracts.drift import compare, not_compared

    results = compare(profiles[0], profiles[1], contract)
    drifted = [result for result in results if result.drifted]
    return {
        "format": FORMAT,
        "before": _facts(before),
        "after": _facts(after),
        "policy": {"contract": contract.name, "alpha": contract.drift["alpha"], "effect": contract.drift["effect"]},
        "drifted": len(drifted),
        "blocked": any(result.blocks for result in drifted),
        "not_compared": not_compared(profiles[0], profiles[1], contract),
        "results": [{**asdict(result), "plot": plot_of(result, profiles)} for result in results],
    }


def _facts(version: "Version") -> dict[str, Any]:
    return {"ref": version.ref, "name": version.name, "digest": version.digest, "rows": version.counts["rows_in"],
            "kept": sum(version.counts[split] for split in ("train", "validation", "test")),
            "created": version.manifest["created"]}  # fmt: skip


def headline(report: Mapping[str, Any]) -> str:
    """The outcome in one sentence."""
    results = report["results"]
    if not results:
        return "Nothing could be compared, which proves nothing"
    columns = list(dict.fromkeys(result["column"] for result in results if result["drifted"]))
    if not columns:
        return f"No drift: none of {len(results)} comparisons is beyond chance and large enough to matter"
    named = ", ".join(columns[:4]) + (f" and {len(columns) - 4} more" if len(columns) > 4 else "")
    return f"{'Drifted' if report['blocked'] else 'Drifted, which only warns here'}: {named}"


def write_report(folder: Path, report: Mapping[str, Any]) -> Path:
    """Write drift.json and drift.html into `folder`; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "drift.json").write_text(text, encoding="utf-8")
    page = folder / "drift.html"
    page.write_text(render(json.loads(text)), encoding="utf-8")
    return page


def render(report: Mapping[str, Any]) -> str:
    """The page of a report's JSON."""
    results = report["results"]
    template = pages().get_template("drift_page.html")
    return template.render(
        report=report,
        headline=headline(report),
        tone="no" if report["blocked"] else "warn" if report["drifted"] or not results else "yes",
        plots=[drawn(result) for result in results if result["plot"]][:SHOWN_PLOTS],
    )


# What is drawn ------------------------------------------------------------------------------------------------------


def plot_of(result: "DriftResult", profiles: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The two versions' shares beside each other: by bin of a range, or by category. None for an unknown test."""
    from data_contracts.drift import load_test

    columns = [profile["columns"][result.column] for profile in profiles]
    samples = [profile["sample"]["columns"].get(result.column, []) for profile in profiles]
    if result.kind == "text length":
        names = ["0", *(f"{2 ** (k - 1)}-{2**k - 1}" for k in range(1, len(columns[0]["length"]["bins"])))]
        pairs = [dict(zip(names, column["length"]["bins"], strict=True)) for column in columns]
        return {"kind": "categories", **_shares(pairs, by_size=False)}
    if result.kind == "items":
        return {"kind": "categories", **_shares([column["item"]["categories"] for column in columns])}
    if result.kind == "missing values":
        pairs = [{"filled": column["rows"] - column["nulls"], "missing": column["nulls"]} for column in columns]
        return {"kind": "categories", **_shares(pairs)}
    if result.test not in ("categories", "numbers", "text", "images"):
        return None
    data = [load_test(result.test).take(column, sample) for column, sample in zip(columns, samples, strict=True)]
    if result.test == "categories":
        return {"kind": "categories", **_shares(data)}
    if result.test == "numbers":
        return _histogram(data)
    if result.test == "images":
        from data_contracts.pixels import brightness

        return _histogram([brightness(side).tolist() for side in data], "mean brightness, 0 to 255")
    words = [_word_counts(side) for side in data]
    return {"kind": "categories", "of": "share of texts with the word", **_shares(words, [len(side) for side in data])}


def _word_counts(texts: list[str]) -> dict[str, int]:
    from data_contracts.drift_tests.text import words_of

    return dict(Counter(word for text in texts for word in set(words_of(text))))


def _shares(
    sides: list[dict[str, int]], totals: list[int] | None = None, by_size: bool = True
) -> dict[str, list[tuple[str, float, float]]]:
    """(category, share of the older, of the newer): those that changed most, or all that are there, in their order."""
    sizes = totals or [sum(side.values()) for side in sides]
    old, new = (
        {name: count / max(size, 1) for name, count in side.items()} for side, size in zip(sides, sizes, strict=True)
    )
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) or new.get(name)]
    if by_size:
        names.sort(key=lambda name: (-abs(new.get(name, 0) - old.get(name, 0)), name))
        names = names[:SHOWN_CATEGORIES]
    return {"bars": [(name[:60], round(old.get(name, 0.0), 5), round(new.get(name, 0.0), 5)) for name in names]}


def _histogram(sides: list[list[float]], of: str = "") -> dict[str, Any] | None:
    """Shares of each version's values in equal bins between the 0.5th and the 99.5th percentile of both."""
    import numpy as np

    if not sides[0] and not sides[1]:
        return None
    low, high = (float(edge) for edge in np.quantile(np.concatenate(sides), [0.005, 0.995]))
    bins = BINS
    if high - low < BINS and all(value == int(value) for side in sides for value in side):
        low, high = low - 0.5, high + 0.5  # whole numbers: a bin each
        bins = round(high - low)
    elif not high > low:
        low, high = low - 0.5, high + 0.5
    shares = []
    for side in sides:
        counts = np.histogram(np.clip(side, low, high), bins=bins, range=(low, high))[0]
        shares.append([round(float(share), 5) for share in counts / max(len(side), 1)])
    return {"kind": "histogram", "of": of, "low": low, "high": high, "old": shares[0], "new": shares[1]}


def drawn(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result with its plot in the units of the page: a box of 300 x 100, or percent of the widest bar."""
    plot = result["plot"]
    if plot["kind"] == "histogram":
        top = max(*plot["old"], *plot["new"], 1e-9)
        steps = {}
        for side in ("old", "new"):
            width = 300 / len(plot[side])
            points = [f"{place * width:.1f},{100 - 96 * share / top:.1f}" for share, at in
                      zip(plot[side], range(len(plot[side])), strict=True) for place in (at, at + 1)]  # fmt: skip
            steps[side] = " ".join(points)
        return {**result, "kind_of_plot": "histogram", **steps, "low": plot["low"], "high": plot["high"], "top": top,
                "of": plot.get("of", "")}  # fmt: skip
    widest = max([share for _, *shares in plot["bars"] for share in shares] or [1.0]) or 1.0
    bars = [{"name": name, "old": old, "new": new, "old_width": round(100 * old / widest, 2),
             "new_width": round(100 * new / widest, 2)} for name, old, new in plot["bars"]]  # fmt: skip
    return {**result, "kind_of_plot": "bars", "bars": bars, "of": plot.get("of", "")}
