"""Retrain: plan, then only what is stale. Every step of the graph that runs is a task of one flow.

`plan` and the decision that nothing is stale import neither Prefect nor Ray.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flows.orchestration.orchestration import Run, run_flow
from flows.orchestration.page import show_output, show_plan
from flows.promotion.alias import mirror
from flows.steps import Decision, Outputs, Step, accept, decide, execute, refresh
from infra.settings import Settings


@dataclass
class Report:
    """What a run of the steps did."""

    decisions: list[Decision] = field(default_factory=list)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {
                "step": one.step,
                "status": "ran" if not one.cached and one.step in self.outputs else one.status,
                "reasons": one.reasons,
                "seconds": round(self.seconds.get(one.step, 0.0), 2),
                "output": self.outputs.get(one.step, one.output),
            }
            for one in self.decisions
        ]


def plan(
    settings: Settings,
    steps: list[Step],
    check_data: bool = False,
    *,
    asked: Mapping[str, str] | None = None,
    given: Outputs | None = None,
) -> Report:
    """What would run, and why. Runs nothing. asked, given: see `run_steps`."""
    report = Report(outputs=dict(given or {}))
    for step in steps:
        decision = decide(settings.object_store, step, report.outputs, _forced(step, check_data, asked or {}))
        report.decisions.append(decision)
        if decision.output is not None:
            report.outputs[step.name] = decision.output
    return report


def accept_code(settings: Settings, steps: list[Step], reason: str) -> list[str]:
    """Keep the results of steps of which nothing but the code changed. Returns their names."""
    kept = []
    outputs: dict[str, dict[str, Any]] = {}
    for step in steps:
        decision = decide(settings.object_store, step, outputs)
        if not decision.cached and all(name in outputs for name in step.needs):
            if accept(settings.object_store, step, outputs, reason):
                kept.append(step.name)
            decision = decide(settings.object_store, step, outputs)
        if decision.output is not None:
            outputs[step.name] = decision.output
    return kept


def run_steps(
    settings: Settings,
    steps: list[Step],
    title: str,
    check_data: bool = False,
    *,
    flow: str = "retrain",
    asked: Mapping[str, str] | None = None,
    given: Outputs | None = None,
    whole_way: bool = True,
) -> Report:
    """Run what is stale, each step a task of the flow `flow`. Returns what was done.

    asked: step name -> why it runs although it is cached. given: outputs of steps that are not among these. whole_way:
    also without a server of its own, Prefect keeps the books as soon as one step has to run.
    """
    first = plan(settings, steps, check_data, asked=asked, given=given)
    up_to_date = all(decision.cached for decision in first.decisions)
    if up_to_date:
        mirror(settings.object_store, settings, title)  # a promotion elsewhere may have died before MLflow heard of it
        if not settings.prefect_api:
            return first

    def body(run: Run) -> Report:
        show_plan(run, title, first.to_json())
        if up_to_date:
            return first
        return _run_stale(settings, steps, run, check_data, asked or {}, dict(given or {}))

    return run_flow(settings, flow, title, body, whole_way=whole_way)


def _run_stale(
    settings: Settings,
    steps: list[Step],
    run: Run,
    check_data: bool,
    asked: Mapping[str, str],
    outputs: dict[str, dict[str, Any]],
) -> Report:
    store = settings.object_store
    report = Report(outputs=outputs)
    for step in steps:
        decision = decide(store, step, report.outputs, _forced(step, check_data, asked))
        report.decisions.append(decision)
        started = time.monotonic()
        if decision.output is not None:
            refresh(store, step, decision.key)
            run.say(f"{step.name}: cached")
            report.outputs[step.name] = decision.output
        else:
            run.say(f"{step.name}: runs, because {'; '.join(decision.reasons)}")
            work = partial(execute, store, step, report.outputs)
            report.outputs[step.name] = run.task(step.name, work, step.gpus)
            show_output(run, settings, step, report.outputs[step.name])
        report.seconds[step.name] = time.monotonic() - started
    return report


def _forced(step: Step, check_data: bool, asked: Mapping[str, str]) -> str:
    if check_data and step.kind == "register":
        return "asked to read the source again (--check data)"
    return asked.get(step.name, "")
