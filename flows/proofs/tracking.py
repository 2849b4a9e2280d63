"""A run that is killed again and again is one MLflow run, each step once; an overtaken attempt adds nothing to it."""

import os
import signal
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows.prove import Options, Say
from flows.scratch import LONGEST_WAIT_S, STEPS, Scratch, break_and_mend, scratch
from infra import tracking
from infra.errors import SlipwayError
from infra.settings import load_settings


def prove(options: Options, say: Say) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="slipway-prove-") as folder,
        scratch(Path(folder), options.workers, load_settings().ray_address) as place,
    ):
        command = ["train", "scratch", "--workers", str(options.workers)]
        run, kills = break_and_mend(place, command, options.kills, options.seed, options.workers, say)
        found = {"kills": [asdict(one) for one in kills], **_count(place, run)}
        found["overtaken"] = _overtake(place, [*command, "--set", f"seed={options.seed + 1}"], say)
    clean = all(_is_clean(one) for one in (found, found["overtaken"]))
    return {"held": clean and found["overtaken"]["counted"] == 0 and len(kills) == options.kills, **found}


def _is_clean(found: dict[str, Any]) -> bool:
    return (found["runs"], found["duplicate_steps"], found["missing_steps"]) == (1, 0, 0)


def _count(place: Scratch, run: str) -> dict[str, Any]:
    """What MLflow itself holds."""
    histories = tracking.metric_history(place.settings, "scratch", run, "loss")
    steps = [step for history in histories.values() for step, _ in history]
    tags = [tracking.run_tags(place.settings, one) for one in histories]
    return {
        "runs": len(histories),
        "steps": len(set(steps)),
        "duplicate_steps": len(steps) - len(set(steps)),
        "missing_steps": len(set(range(1, STEPS + 1)) - set(steps)),
        "replayed_differently": ",".join(tag.get("slipway.replayed_differently", "") for tag in tags),
    }


def _overtake(place: Scratch, command: list[str], say: Say) -> dict[str, Any]:
    """Stop an attempt (SIGSTOP), let another take over and finish, continue the first: it ends itself."""
    say("an attempt is stopped, overtaken, and continued")
    before = place.newest_run().run
    first = place.start(*command)
    deadline = time.monotonic() + LONGEST_WAIT_S
    state = place.newest_run()
    while state.run == before or place.last_step(state.run, 1) < STEPS // 4:
        if first.poll() is not None or time.monotonic() > deadline:
            raise SlipwayError(f"proof: the run did not begin: {first.communicate()[1].strip()[-300:]}")
        time.sleep(0.02)
        state = place.newest_run()
    frozen = [first.pid, *(place.pid_of(state.run, 1, rank) for rank in range(state.attempt_entry["workers"]))]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        place.ask(*command, "--take-over")
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    _, said = first.communicate(timeout=LONGEST_WAIT_S)
    entries = list(place.log(state.run).entries())
    taken = next(entry["sequence"] for entry in entries if entry["kind"] == "attempt" and entry["attempt"] == 2)
    late = [entry for entry in entries if entry["attempt"] == 1 and entry["sequence"] > taken]
    return {
        "said": said.strip().splitlines()[-1],
        "exit_code": first.returncode,
        "counted": len(late),
        **_count(place, state.run),
    }
