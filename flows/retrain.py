"""The whole way as one Prefect flow: every step of the graph is a task, and runs only if it is stale.

`plan` and the decision that nothing is stale import neither Prefect nor Ray.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from flows.alias import mirror
from flows.steps import Decision, Step, accept, decide, execute
from infra.progress import stage
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


def plan(settings: Settings, steps: list[Step], check_data: bool = False) -> Report:
    """What would run, and why. Runs nothing."""
    report = Report()
    for step in steps:
        decision = decide(settings.object_store, step, report.outputs, _forced(step, check_data))
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


def run_steps(settings: Settings, steps: list[Step], title: str, check_data: bool = False) -> Report:
    """Run what is stale, under Prefect when anything is. Returns what was done."""
    report = plan(settings, steps, check_data)
    if all(decision.cached for decision in report.decisions):
        mirror(settings.object_store, settings, title)  # a promotion elsewhere may have died before MLflow heard of it
        return report
    from flows.prefect_server import prefect_server

    with ExitStack() as open_for_the_flow:
        with stage("orchestrate") as progress:
            progress.say("starting Prefect")
            address = open_for_the_flow.enter_context(prefect_server(settings))
            flow = _prefect_flow(title)
        from prefect.settings import PREFECT_API_URL, temporary_settings

        open_for_the_flow.enter_context(temporary_settings({PREFECT_API_URL: address}))
        return flow(settings, steps, check_data)


def _prefect_flow(title: str) -> Callable[[Settings, list[Step], bool], Report]:
    from prefect import flow, task
    from prefect.cache_policies import NO_CACHE

    @task(name="step", task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
    def run_task(name: str, step: Step, settings: Settings, outputs: dict[str, dict[str, Any]]) -> dict[str, Any]:
        with stage(name.replace(" ", ": ", 1), unit=_UNITS.get(step.kind, "")) as progress:
            return execute(settings.object_store, step, outputs, progress)

    @flow(name="retrain", flow_run_name=title, persist_result=False, validate_parameters=False)
    def retrain(settings: Settings, steps: list[Step], check_data: bool) -> Report:
        report = Report()
        for step in steps:
            decision = decide(settings.object_store, step, report.outputs, _forced(step, check_data))
            report.decisions.append(decision)
            started = time.monotonic()
            if decision.output is not None:
                report.outputs[step.name] = decision.output
            else:
                report.outputs[step.name] = run_task(step.name, step, settings, report.outputs)
            report.seconds[step.name] = time.monotonic() - started
        return report

    return retrain


_UNITS = {"train": "steps", "register": "", "gate": "gates"}


def _forced(step: Step, check_data: bool) -> str:
    return "asked to read the source again (--check data)" if check_data and step.kind == "register" else ""
