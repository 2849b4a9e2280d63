"""Slipway from a notebook or a script:

    from training.api import train

    run = train("experiment.yaml", epochs=3, learning_rate=3e-4)
    run.curves()["loss"], run.files

It runs `slipway train` in a process of its own: a notebook has its own signal handlers, its own imports and a current
folder that Ray would put first on its workers' path; and what is trained here is what the command trains, under the
same run, cached or taken up again. Gates, promotion, schedule and monitor are left unread.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from infra import artifacts
from infra.errors import Refused, SlipwayError, WrongInput
from infra.settings import child_environment, load_settings
from infra.store import Store
from training.experiment import load_experiment
from training.run_log import RunLog, RunState, read_state

ERRORS = {2: WrongInput, 3: Refused}
UNREAD = ("gates", "promotion", "schedule", "monitor")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run."""

    name: str
    model: str
    """`name/version`, as commands take it."""
    digest: str
    """Of the model's files."""
    store: Store

    @property
    def state(self) -> RunState:
        return read_state(RunLog(self.store, self.name))

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Metric -> (step, value) in order."""
        return self.state.curves()

    @property
    def files(self) -> Path:
        """A local folder with weights, configuration and tokenizer."""
        return artifacts.fetch(self.store, artifacts.load(self.store, "models", self.digest))


def train(experiment: str | Path, *, workers: int | None = None, fresh: bool = False, **overrides: Any) -> Run:
    """Train an experiment, a name or a file, with fields set as by `--set` (`epochs=3`, `**{"from.base": folder}`).

    Progress goes to standard error. Raises WrongInput, Refused or SlipwayError with the command's own line, and
    KeyboardInterrupt where it was interrupted; the same call then goes on from there.
    """
    settings = [f"{name}={json.dumps(value)}" for name, value in overrides.items()]
    resolved = load_experiment(str(experiment), settings).model_dump(mode="json", by_alias=True, exclude=set(UNREAD))
    with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
        path = Path(scratch) / "experiment.yaml"
        path.write_text(yaml.safe_dump(resolved), encoding="utf-8")
        command = [sys.executable, "-P", "-m", "flows.cli", "train", str(path), "--json"]
        command += ["--workers", str(workers)] * (workers is not None) + ["--fresh"] * fresh
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=child_environment()
        ) as child:
            try:
                said = _pass_on(child)
            except KeyboardInterrupt:
                child.wait()  # it was interrupted as well, and writes down where it stands
                raise
            document = child.stdout.read() if child.stdout else ""
    if child.returncode == 130:
        raise KeyboardInterrupt
    if child.returncode:
        raise ERRORS.get(child.returncode, SlipwayError)(said.removeprefix("slipway: "))
    found = json.loads(document)
    return Run(name=found["run"], model=found["model"], digest=found["digest"], store=load_settings().object_store)


def _pass_on(child: "subprocess.Popen[str]") -> str:
    """Print the child's lines as they come, where a notebook shows them. Returns the last."""
    last = ""
    for line in child.stderr or ():
        print(line, end="", file=sys.stderr, flush=True)
        last = line.strip() or last
    return last
