"""A workspace of its own for proofs: a small generated dataset, one small experiment, and the real command on it.

One Ray cluster stays up through all attempts, because starting one takes longer than all else; drivers and workers are
processes of their own and are killed as such.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from infra import cluster
from infra.errors import SlipwayError
from infra.settings import Settings, child_environment, quiet_environment
from training.run_log import RunLog, RunState, read_state, read_tail, run_names

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: scratch
version: 1.0.0
status: active
servers:
  - {server: files, type: local, path: scratch.csv, format: csv}
schema:
  - name: scratch
    properties:
      - {name: text, logicalType: string, required: true}
      - {name: label, logicalType: string, required: true}
customProperties:
  - {property: slipway.label, value: label}
"""
STEPS = 300
EXPERIMENT = f"""\
recipe: text_classifier
dataset: scratch
settings: {{vocab_size: 300, max_length: 24, hidden_size: 32, intermediate_size: 64}}
training: {{steps: {STEPS}, batch_size: 24, learning_rate: 1.0e-3, validate_every: 5, checkpoint_every_steps: 3}}
scaling: {{max_failures: 3}}
"""
LONGEST_WAIT_S = 1800.0


@dataclass
class Scratch:
    folder: Path
    address: str
    """Of the Ray cluster."""
    code: Path | None = None
    """A folder with a copy of the four packages that the command is run from; None: these here."""
    prefect: str = ""
    """API address of a Prefect server for its flows; "": each starts its own."""

    @property
    def settings(self) -> Settings:
        return Settings(workspace=str(self.folder / ".slipway"), ray_address=self.address)

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    def log(self, run: str) -> RunLog:
        return RunLog(self.settings.object_store, run)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """`slipway ARGUMENTS`, as a user would type it."""
        own = {
            f"SLIPWAY_{one.name.upper()}": "" for one in fields(Settings)
        }  # the user's own settings are not for this
        own |= {"SLIPWAY_RAY_ADDRESS": self.address, "SLIPWAY_LEDGER": str(self.ledger), "SLIPWAY_AUTHOR": "proof"}
        own |= {"SLIPWAY_PREFECT_API": self.prefect, **({"PYTHONPATH": str(self.code)} if self.code else {})}
        environment = child_environment(**own)
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "flows.cli", *arguments], cwd=self.folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def ask(self, *arguments: str) -> Any:
        """The document of a command that has to succeed."""
        child = self.start(*arguments, "--json")
        out, err = child.communicate()
        if child.returncode:
            raise SlipwayError(f"slipway {' '.join(arguments)} ended with {child.returncode}: {err.strip()[-300:]}")
        return json.loads(out)

    def newest_run(self) -> RunState:
        """The run that began last."""
        begun = {run: self.log(run).read(1)["time"] for run in run_names(self.settings.object_store)}
        return read_tail(self.log(max(begun, key=lambda run: begun[run]))) if begun else RunState("")

    def last_step(self, run: str, attempt: int) -> int:
        """The newest step whose samples rank 0 of an attempt has been given; 0 before the first."""
        path = self.ledger / run / f"{attempt}-0.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        return json.loads(whole[-1]).get("step", 0) if whole else 0

    def pid_of(self, run: str, attempt: int, rank: int) -> int:
        with (self.ledger / run / f"{attempt}-{rank}.jsonl").open(encoding="utf-8") as file:
            return json.loads(file.readline())["pid"]


@contextmanager
def scratch(folder: Path, workers: int, address: str = "", code: Path | None = None) -> Iterator[Scratch]:
    """A workspace in `folder` with its dataset registered, and a cluster: the one at `address`, else one started here
    for two runs of `workers` at once. code: see `Scratch`."""
    settings = Settings(workspace=str(folder / ".slipway"), ray_address=address)
    quiet_environment(settings)
    settings.create_workspace()
    (folder / "scratch.odcs.yaml").write_text(CONTRACT)
    (folder / "scratch.yaml").write_text(EXPERIMENT)
    (folder / "scratch.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows(500)))
    cluster.connect(settings, workers if address else 2 * workers + 2)
    try:
        made = Scratch(folder, cluster.address(), code)
        made.ask("data", "register", "scratch.odcs.yaml")
        yield made
    finally:
        if not address:
            cluster.disconnect()


def rows(count: int) -> list[tuple[str, str]]:
    """Texts of 3 to 12 words; each of three labels has some words of its own."""
    source = random.Random(0)
    found = []
    for number in range(count):
        label = number % 3
        words = [f"word{source.randrange(label * 20, label * 20 + 60)}" for _ in range(source.randint(3, 12))]
        found.append((f"{' '.join(words)} {number}", f"label{label}"))
    return found


@dataclass(frozen=True, kw_only=True)
class Kill:
    what: str
    """worker | driver | checkpoint: a worker, while a checkpoint is written"""
    step: int
    """That a worker had begun when the signal was sent."""
    attempt: int
    rank: int | None


def break_and_mend(
    scratch: Scratch,
    command: list[str],
    kills: int,
    seed: int,
    workers: int,
    say: Callable[[str], None],
    again: list[str] | None = None,
) -> tuple[str, list[Kill]]:
    """Run the command again and again, killing at random until `kills` are done, then to its end.

    again: the command after the first time, where it is another; then the driver is killed.

    Returns the run's name and what was killed. Raises SlipwayError where it does not get on.
    """
    source = random.Random(seed)
    done: list[Kill] = []
    before = scratch.newest_run().run
    child, seen, starts = scratch.start(*command), 0, 1
    try:
        while True:
            ended, state = _next_attempt(scratch, child, before, seen)
            if ended:
                _, err = child.communicate()
                if child.returncode == 0:
                    return scratch.newest_run().run, done
                starts += 1
                if starts > 2 * kills + 5:
                    raise SlipwayError(f"proof: {starts} starts and no end; the last said: {err.strip()[-300:]}")
                child = scratch.start(*(again or command), "--take-over")
                continue
            seen = state.attempt
            if len(done) == kills:
                continue
            room = STEPS - state.attempt_entry["from_step"] - 10
            span = max(1, room // (kills - len(done) + 1))  # a few steps more go by before the signal arrives
            target = state.attempt_entry["from_step"] + source.randint(1, span)
            what, rank = source.choice(["worker", "driver", "checkpoint"]), source.randrange(workers)
            what = "driver" if again else what
            if _kill(scratch, child, state, what, rank, target):
                step = scratch.last_step(state.run, seen)
                done.append(Kill(what=what, step=step, attempt=seen, rank=None if what == "driver" else rank))
                say(f"{len(done)} of {kills}: {what} killed at step {step} of attempt {seen}")
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)


def _next_attempt(scratch: Scratch, child: Any, before: str, seen: int) -> tuple[bool, RunState]:
    """(whether the command ended first, the run in whose log an attempt after `seen` has begun)."""
    deadline = time.monotonic() + LONGEST_WAIT_S
    while time.monotonic() < deadline:
        ended = child.poll() is not None
        state = scratch.newest_run()
        if ended:
            return True, state
        if state.run != before and state.attempt > seen:
            return False, state
        time.sleep(0.2)
    raise SlipwayError(f"proof: no attempt began within {LONGEST_WAIT_S:.0f} s")


def _kill(scratch: Scratch, child: Any, state: RunState, what: str, rank: int, target: int) -> bool:
    """Send SIGKILL when the attempt is at the step; False where it ended before."""
    run, attempt = state.run, state.attempt
    deadline = time.monotonic() + LONGEST_WAIT_S
    while scratch.last_step(run, attempt) < target:
        if child.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    if what == "checkpoint":
        place = scratch.settings.folder / "store" / "runs" / run / "checkpoints" / str(attempt)
        before = set(place.iterdir()) if place.is_dir() else set()
        while not (place.is_dir() and set(place.iterdir()) - before):
            if child.poll() is not None or time.monotonic() > deadline:
                return False
    try:
        os.kill(child.pid if what == "driver" else scratch.pid_of(run, attempt, rank), signal.SIGKILL)
    except ProcessLookupError:
        return False
    if what == "driver":
        child.wait()
    return True


def compare_runs(scratch: Scratch, one: str, other: str) -> dict[str, Any]:
    """Whether two finished runs came to the same bits: weights, optimiser, loss curve, model files, ledger; and which
    tensors of their last checkpoints, of which steps, did not."""
    from safetensors.numpy import load_file

    from training.feed import read_ledger

    first, second = (read_state(scratch.log(run)) for run in (one, other))
    store = scratch.settings.object_store

    def last_checkpoint(state: RunState) -> dict[str, list[bytes]]:
        """Every tensor's bytes by its name, whichever worker wrote it into whichever file."""
        found: dict[str, list[bytes]] = {}
        for key in store.list(f"{state.checkpoints[-1]['place']}/"):
            if key.endswith(".safetensors"):
                for name, value in load_file(store.local_path(key)).items():
                    found[name] = sorted([*found.get(name, ()), value.tobytes()])
        return found

    def curves(state: RunState) -> dict[str, Any]:
        return {name: points for name, points in state.curves().items() if not name.startswith("system/")}

    def ledger(state: RunState) -> dict[int, list[int]]:
        attempts = [entry for entry in scratch.log(state.run).entries() if entry["kind"] == "attempt"]
        return read_ledger(scratch.ledger, state.run, attempts)

    tensors, others = last_checkpoint(first), last_checkpoint(second)
    different = sorted(name for name in tensors.keys() | others.keys() if tensors.get(name) != others.get(name))
    return {
        "last_checkpoints": [first.checkpoints[-1]["step"], second.checkpoints[-1]["step"]],
        "different_tensors": different,
        "weights_and_optimizer_equal": not different,
        "model_equal": first.ending["model"] == second.ending["model"],
        "curves_equal": curves(first) == curves(second),
        "ledgers_equal": ledger(first) == ledger(second) and len(ledger(first)) == STEPS,
    }
