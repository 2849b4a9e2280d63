"""What is known of a training run at a glance, without reading its whole log."""

import math
from datetime import UTC, datetime
from typing import Any

from flows import models
from infra.store import Store
from training.run_log import RunLog, RunState, live_beat, read_tail, run_names


def list_runs(store: Store) -> list[dict[str, Any]]:
    """All runs, the one that began last at the end."""
    became = {one.run: one.ref for name in models.names(store) for one in models.versions(store, name)}
    found = [{**_describe(RunLog(store, run)), "model": became.get(run)} for run in run_names(store)]
    return sorted(found, key=lambda one: (one["began"], one["run"]))


def _describe(log: RunLog) -> dict[str, Any]:
    state = read_tail(log)
    alive = live_beat(log, state)
    beat = log.heartbeat(state.attempt) or {}
    num_steps = beat.get("num_steps")
    step = state.ending.get("steps") or max(state.step, beat.get("step") or 0)
    rate = (alive or {}).get("rate")
    return {
        "run": log.run,
        "began": datetime.fromtimestamp(log.read(1)["time"], UTC).isoformat(timespec="seconds"),
        "status": "died" if state.status == "running" and not alive else state.status,
        "step": step,
        "num_steps": num_steps,
        "attempts": state.attempt,
        "steps_per_s": rate and round(rate, 3),
        "eta_s": round((num_steps - step) / rate) if rate and num_steps else None,
        "host": alive and alive["host"],
        "pid": alive and alive["pid"],
        "error": state.ending.get("message"),
        "validation": _last_validation(log, state),
        "test": state.ending.get("test"),
    }


def _last_validation(log: RunLog, state: RunState) -> dict[str, float] | None:
    """The newest validation metrics that count, read from the log's end: they may be older than the checkpoint that
    `read_tail` starts at."""
    attempt, furthest = state.attempt, math.inf
    for sequence in range(state.sequence, 0, -1):
        entry = log.read(sequence)
        if entry["kind"] == "attempt":
            attempt, furthest = entry["attempt"] - 1, min(furthest, entry["from_step"])
        elif entry["attempt"] == attempt:
            for step, values, _ in reversed(entry.get("points", ())):
                metrics = {name: value for name, value in values.items() if name.startswith("validation_")}
                if metrics and step <= furthest:
                    return {"step": step, **metrics}
    return None
