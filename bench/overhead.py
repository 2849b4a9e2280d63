"""What the flow machinery costs: stages of a second as bare functions, and as tasks of a flow on a Prefect server.

A stage hashes for about a second and commits what came of it. The arm `flow` runs what `slipway retrain` runs: the
plan, decisions, keys and records, a task a stage with its live progress; the server is up before, for it is started
once and not for a stage. Equality: both arms' stages give the same digests. Printed beside: what the flow run itself
costs, once, and how long `slipway status` takes in a workspace with runs and models.

    .venv/bin/python bench/overhead.py
"""

import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from arms import answer_as_arm, report, run_arms

STAGES = 5
ROUNDS = 5
GOAL = 1.1
STATUS_GOAL_S = 1.0
RUNS = 20
"""In the workspace whose status is asked."""


def _work(number: int, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", b"slipway", str(number).encode(), iterations)


def arm(name: str, folder: Path) -> dict[str, Any]:
    from infra.settings import Settings, quiet_environment

    given = json.loads((folder / "given.json").read_text())
    with tempfile.TemporaryDirectory(dir=folder) as workspace:
        settings = Settings(workspace=workspace, prefect_api=given["address"] if name == "flow" else "")
        quiet_environment(settings)
        steps = _steps(settings, given["iterations"], Path(workspace))
        return _bare(steps) if name == "bare" else _flow(settings, steps)


def _steps(settings: Any, iterations: int, folder: Path) -> list[Any]:
    from flows.steps import Step, artifact_damage
    from infra import artifacts

    def step(number: int) -> Any:
        def run(outputs: Any, progress: Any, key: str) -> dict[str, Any]:
            path = folder / f"made-{number}"
            path.write_bytes(_work(number, iterations))
            return {"prepared": artifacts.commit(settings.object_store, "prepared", {"made": path}).digest}

        return Step(
            kind="prepare",
            subject=f"stage-{number}",
            needs=(f"prepare stage-{number - 1}",) if number else (),
            ingredients=lambda outputs: {"number": number},
            run=run,
            damage=lambda output: artifact_damage(settings, "prepared", output["prepared"]),
        )

    return [step(number) for number in range(STAGES)]


def _bare(steps: list[Any]) -> dict[str, Any]:
    outputs, seconds = [], []
    for step in steps:
        begun = time.perf_counter()
        outputs.append(step.run({}, None, ""))
        seconds.append(time.perf_counter() - begun)
    return {"outputs": outputs, "stage": min(seconds), "whole": sum(seconds)}


def _flow(settings: Any, steps: list[Any]) -> dict[str, Any]:
    import prefect  # noqa: F401 (its import is a command's start and not a stage's)

    from flows.retrain import run_steps

    begun = time.perf_counter()
    found = run_steps(settings, steps, "bench")
    whole = time.perf_counter() - begun
    return {
        "outputs": [found.outputs[step.name] for step in steps],
        "stage": min(found.seconds.values()),
        "whole": whole,
        "around": whole - sum(found.seconds.values()),
    }


def _status(folder: Path) -> tuple[float, float]:
    """Seconds by the clock and CPU-seconds that `slipway status` takes, the smallest of the rounds each."""
    from flows import models
    from infra.settings import Settings, child_environment
    from training.run_log import RunLog

    settings = Settings(workspace=str(folder / ".slipway"))
    for number in range(RUNS):
        log = RunLog(settings.object_store, f"bench-{number:012d}-1")
        log.append("run", experiment={"name": "bench"}, key="k", author="a", dataset=None)
        log.append("attempt", 1, from_step=0, host="h", pid=1, checkpoint=None, driver="d", workers=1)
        for step in range(0, 500, 100):
            log.append("metrics", 1, points=[[step + one, {"loss": 1.0}, 0.0] for one in range(100)])
        log.append("finished", 1, model="0" * 64, steps=500)
        models.add_version(
            settings.object_store, name="bench", run=log.run, experiment={}, model="0" * 64, package="models:/none",
            package_digest="0" * 64, dataset="none", author="a", created="2026-01-01T00:00:00+00:00",
        )  # fmt: skip
    seconds, cpu = [], []
    for _ in range(ROUNDS):
        begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-P", "-m", "flows.cli", "status"],
            cwd=folder, env=child_environment(), check=True, capture_output=True,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(time.perf_counter() - begun)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(seconds), min(cpu)


def main() -> None:
    from flows.orchestration.server import prefect_server
    from infra.settings import Settings, quiet_environment

    begun = time.perf_counter()
    _work(0, 100_000)
    iterations = int(1.1 * 100_000 / (time.perf_counter() - begun))
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as scratch:
        folder = Path(scratch)
        settings = Settings(workspace=str(folder / "server"))
        settings.create_workspace()
        quiet_environment(settings)
        with prefect_server(settings) as address:
            (folder / "given.json").write_text(json.dumps({"address": address, "iterations": iterations}))
            arms = run_arms(__file__, ("bare", "flow"), folder, ROUNDS)
        status, status_cpu = _status(folder)
    bare, flow = arms["bare"], arms["flow"]
    outputs = {json.dumps(one["outputs"]) for one in (*bare.answers, *flow.answers)}
    equal = len(outputs) == 1 and len(bare.answer["outputs"]) == STAGES
    ratio = flow.least("stage") / bare.least("stage")
    print(f"a stage of {bare.least('stage'):.2f} s costs {ratio:.3f} times that in a flow (goal <= {GOAL})")
    print(f"the flow run itself: {flow.least('around'):.2f} s once, beside {STAGES} stages")
    print(
        f"slipway status with {RUNS} runs: {status:.2f} s, {status_cpu:.2f} CPU-seconds (goal < {STATUS_GOAL_S:.0f} s)"
    )
    report(
        "overhead",
        arms,
        equal,
        ratio=ratio,
        goal=GOAL,
        stage_seconds=bare.least("stage"),
        flow_run_seconds=flow.least("around"),
        status_seconds=status,
        status_cpu_seconds=status_cpu,
        status_goal=STATUS_GOAL_S,
    )


if __name__ == "__main__":
    if not answer_as_arm(arm):
        main()
