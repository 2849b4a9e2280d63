"""What tracking costs: the same run with its metrics recorded and brought to MLflow, and with nobody listening.

One metric set a step, checkpoints out of the way, one process, SQLite. The arm `tracked` runs what a worker and its
driver run: recorder, run log, heartbeats, projection. Equality: every step's loss is in MLflow once, with the value the
bare arm had.

    .venv/bin/python bench/tracking.py
"""

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from arms import answer_as_arm, report, run_arms

STEPS = 400
GOAL = 0.01
ROUNDS = 5
RUN = "bench-000000000000-1"


def arm(name: str, folder: Path) -> dict[str, Any]:
    import torch

    from training import loop
    from training.examples import open_recipe
    from training.experiment import Training

    torch.set_num_threads(1)
    recipe = open_recipe("text_classifier", folder / "prepared", num_train=400, hidden_size=128, intermediate_size=512)
    config = Training(steps=STEPS, batch_size=32, checkpoint_every_s=1e6, validate_every=1e6)
    if name == "bare":
        return _bare(loop, recipe, config)
    return _tracked(loop, recipe, config, folder / "tracked")


def _bare(loop: Any, recipe: Any, config: Any) -> dict[str, Any]:
    class Silent(loop.Observer):
        def __init__(self) -> None:
            self.points: list[tuple[int, float]] = []

        def metrics(self, step: int, values: dict[str, float]) -> None:
            self.points.append((step, float(f"{values['loss']:.9g}")))

    observer = Silent()
    seconds, cpu = _timed(lambda: loop.train(recipe, config, loop.World(), observer))
    return {"losses": observer.points, "seconds": seconds, "thread_cpu": cpu}


def _tracked(loop: Any, recipe: Any, config: Any, folder: Path) -> dict[str, Any]:
    from infra import tracking
    from infra.settings import Settings
    from training.projection import Projection
    from training.recorder import Recorder
    from training.run_log import RunLog, begin_attempt, read_tail

    shutil.rmtree(folder, ignore_errors=True)
    settings = Settings(workspace=str(folder))
    log = RunLog(settings.object_store, RUN)
    log.append("run", key="k")
    facts = {"parameters": {}, "tags": {}, "dataset": {"name": "bench", "digest": "0" * 64, "counts": {}}}
    with Projection(settings, log, "bench", facts) as projection:
        projection.sync()  # a new database is migrated once and not in every run
        state = read_tail(log)
        writer = begin_attempt(log, state, state.attempt, "driver", workers=1, from_step=0, checkpoint=None)
        spent = 0.0

        class Timed(Recorder):
            def metrics(self, step: int, values: dict[str, float]) -> None:
                nonlocal spent
                begun = time.perf_counter()
                super().metrics(step, values)
                spent += time.perf_counter() - begun

        with Timed(log, 1, loop.World(), config, STEPS, 0, writer=writer) as recorder:
            seconds, cpu = _timed(lambda: loop.train(recipe, config, loop.World(), recorder))
            recorder.end("stopped")
    projection.sync()
    (history,) = tracking.metric_history(settings, "bench", RUN, "loss").values()
    return {"losses": history, "seconds": seconds, "thread_cpu": cpu, "in_metrics": spent}


def _timed(train: Any) -> tuple[float, float]:
    """Seconds by the clock, and CPU-seconds of the thread that trains."""
    clock, cpu = time.perf_counter(), time.thread_time()
    train()
    return time.perf_counter() - clock, time.thread_time() - cpu


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as scratch:
        arms = run_arms(__file__, ("bare", "tracked"), Path(scratch), ROUNDS)
    bare, tracked = arms["bare"], arms["tracked"]
    losses = [json.dumps(one["losses"]) for one in (*bare.answers, *tracked.answers)]
    equal = len(set(losses)) == 1 and len(bare.answer["losses"]) == STEPS
    share = max(one["in_metrics"] / one["seconds"] for one in tracked.answers)
    cpu = tracked.least("thread_cpu") / bare.least("thread_cpu") - 1
    clock = tracked.least("seconds") / bare.least("seconds") - 1
    print(f"{STEPS} steps of {1000 * bare.least('seconds') / STEPS:.1f} ms, one metric set each")
    print(f"share of the step time spent in reporting: {100 * share:.3f} % (goal <= {100 * GOAL:.0f} %)")
    print(
        f"tracked beside bare: {100 * cpu:+.2f} % CPU-seconds of the training thread, {100 * clock:+.2f} % by the clock"
    )
    report("tracking", arms, equal, share=share, more_thread_cpu=cpu, more_by_the_clock=clock, goal=GOAL, steps=STEPS)


if __name__ == "__main__":
    if not answer_as_arm(arm):
        main()
