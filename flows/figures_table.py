"""What was recorded of the shipped experiments, as a README's tables: figures beside goals, and what trained them."""

from collections.abc import Sequence
from typing import Any

from flows import records
from flows.goals import Line


def markdown(lines: Sequence[Line]) -> str:
    """Two tables: a row a line of the goals, a row an experiment with its command, and the time of one run."""
    figures = [
        [line.goal.experiment, line.goal.title, told(line.figure), line.goal.wanted, verdict(line), line.goal.known]
        for line in lines
    ]
    recorded = {name: records.read(name) for name in dict.fromkeys(line.goal.experiment for line in lines)}
    runs = [
        [f"`{record['command']}`", _minutes(record["figures"]["seconds"]["value"]), record["hardware"]]
        for record in recorded.values()
        if record
    ]
    return "\n\n".join((
        _table(["experiment", "figure", "recorded", "goal", "", "known"], figures),
        _table(["trained by", "minutes a run", "on"], runs),
    ))  # fmt: skip


def told(figure: dict[str, float] | None) -> str:
    """0.931 [0.919, 0.942], 3 seeds."""
    if figure is None:
        return ""
    interval = f" [{figure['low']:.4g}, {figure['high']:.4g}]" if figure["low"] != figure["high"] else ""
    return f"{figure['value']:.4g}{interval}, {figure['seeds']:g} seed{'s' * (figure['seeds'] != 1)}"


def verdict(line: Line) -> str:
    return line.status + (f" ({line.why})" if line.why else "")


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
