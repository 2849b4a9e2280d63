"""What the shipped experiments are to reach, and whether what was recorded of them reaches it.

The goals are one data file beside the records, training/experiments/records/goals.yaml: a list of lines a group.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from flows import records
from infra.artifacts import check_format
from infra.errors import WrongInput, choices
from training.experiment import load_experiment
from training.sections import Strict

FORMAT = 1
MET, SHORT, REPORTED, NOT_MEASURED = "met", "falls short", "reported", "not measured"


class Goal(Strict):
    """One line: a figure of an experiment's record, and what it is held against."""

    experiment: str
    metric: str
    """A figure of the record: `test_accuracy`, `validation_loss`, `seconds`."""
    at_least: float | None = None
    at_most: float | None = None
    ratio_to: str | None = None
    """The experiment by whose figure this one is divided."""
    difference_to: str | None = None
    """The experiment whose figure is taken off this one."""
    known: str = ""
    """What is known of the task, and from where."""
    seeds: int = Field(3, ge=1)
    """Runs that the figure is the mean of, at least."""

    @model_validator(mode="after")
    def _one_of_each(self) -> "Goal":
        for one, other in (("at_least", "at_most"), ("ratio_to", "difference_to")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"give one of {one} and {other}")
        return self

    @property
    def wanted(self) -> str:
        """As a table writes it."""
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"

    @property
    def title(self) -> str:
        if self.ratio_to:
            return f"{self.metric} / {self.ratio_to}'s"
        return f"{self.metric} - {self.difference_to}'s" if self.difference_to else self.metric


@dataclass(frozen=True)
class Line:
    goal: Goal
    status: str
    """met | falls short | reported | not measured"""
    figure: dict[str, float] | None = None
    """value, low, high and seeds, as recorded."""
    why: str = ""
    """What stands against it beside the figure."""

    def to_json(self) -> dict[str, Any]:
        told = self.goal.model_dump(mode="json", exclude_none=True)
        shown = {"title": self.goal.title, "wanted": self.goal.wanted}
        return {**told, **shown, "figure": self.figure, "status": self.status, "why": self.why}


def read_goals(folder: Path | None = None) -> dict[str, list[Goal]]:
    """Group -> its lines, in order. Raises WrongInput naming line and field."""
    path = (folder or records.FOLDER) / "goals.yaml"
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise WrongInput(f"goals {path}: cannot be read ({error})") from error
    check_format(body, FORMAT, str(path))
    found: dict[str, list[Goal]] = {}
    for group, lines in body.items():
        for number, line in enumerate(lines if group != "format" else [], 1):
            try:
                found.setdefault(group, []).append(Goal(**line))
            except (ValidationError, TypeError) as error:
                said = str(error)
                if isinstance(error, ValidationError):
                    first = error.errors()[0]
                    said = f"{'.'.join(map(str, first['loc'])) or 'its keys'}: {first['msg']}"
                raise WrongInput(f"goals {path}: {group}, line {number}: {said}") from error
    return found


def wanted_of(experiment: str, folder: Path | None = None) -> set[str]:
    """The figures that some line asks of an experiment, those that others are held against included."""
    lines = [line for group in read_goals(folder).values() for line in group]
    return {line.metric for line in lines if experiment in (line.experiment, line.ratio_to, line.difference_to)}


def verify(groups: list[str], folder: Path | None = None) -> list[Line]:
    """Every line of these groups. Raises WrongInput for a group there is none of."""
    goals = read_goals(folder)
    for group in groups:
        if group not in goals:
            raise WrongInput(f"goals: there is no group '{group}'; {choices(group, goals)}")
    return [judge(goal) for group in groups or goals for goal in goals[group]]


def judge(goal: Goal) -> Line:
    """A goal is met when the interval over seeds and examples covers or exceeds it."""
    record = records.read(goal.experiment)
    if record is None or goal.metric not in record["figures"]:
        return Line(goal, NOT_MEASURED)
    figure = record["figures"][goal.metric]
    if other := goal.ratio_to or goal.difference_to:
        beside = records.read(other)
        if beside is None or goal.metric not in beside["figures"]:
            return Line(goal, NOT_MEASURED, why=f"{other} has no record of it")
        figure = against(figure, beside["figures"][goal.metric], ratio=bool(goal.ratio_to))
    if goal.at_least is None and goal.at_most is None:
        return Line(goal, REPORTED, figure)
    reasons = []
    if goal.at_least is not None and figure["high"] < goal.at_least:
        reasons.append("below the goal")
    if goal.at_most is not None and figure["low"] > goal.at_most:
        reasons.append("above the goal")
    if figure["seeds"] < goal.seeds:
        reasons.append(f"{figure['seeds']:g} of {goal.seeds} seeds")
    if changed := records.changed_since(record, load_experiment(goal.experiment)):
        reasons.append(f"recorded with other settings ({'; '.join(changed)})")
    return Line(goal, SHORT if reasons else MET, figure, ", ".join(reasons))


def against(figure: dict[str, float], other: dict[str, float], *, ratio: bool) -> dict[str, float]:
    """A ratio or difference of two figures, their errors taken as independent (which widens the interval of two models
    asked the same rows) and, in a ratio, as small."""
    value = figure["value"] / other["value"] if ratio else figure["value"] - other["value"]
    scale, weight = (1 / other["value"], value / other["value"]) if ratio else (1.0, 1.0)
    low = math.hypot(scale * (figure["value"] - figure["low"]), weight * (other["high"] - other["value"]))
    high = math.hypot(scale * (figure["high"] - figure["value"]), weight * (other["value"] - other["low"]))
    seeds = min(figure["seeds"], other["seeds"])
    return {"value": value, "low": value - low, "high": value + high, "seeds": seeds}
