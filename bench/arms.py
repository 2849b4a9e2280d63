"""What benchmarks share: arms run in turn, each in its own process, weighed in CPU-seconds, checked for equality.

A benchmark is a file here with `arm(name, folder)`, which does the work of one arm and returns what the arms must agree
in (JSON), and a `main` that calls `run_arms`. Arms take turns, so that a machine that slows down slows all of them;
CPU-seconds and not the clock decide, because other load is on the cores; the smallest of the rounds counts, because
noise only adds.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass
class Weighed:
    """One arm: the smallest of its rounds."""

    cpu_seconds: float = float("inf")
    """User and system time of the process and its children."""
    seconds: float = float("inf")
    """By the clock."""
    peak_bytes: int = 0
    """Resident memory of the process at its fullest; the largest of the rounds."""
    answers: list[Any] = field(default_factory=list, repr=False)
    """What `arm` returned, round by round."""

    @property
    def answer(self) -> Any:
        """What `arm` returned last."""
        return self.answers[-1]

    def least(self, name: str) -> float:
        """The smallest of the rounds of a figure that the arm measured itself."""
        return min(answer[name] for answer in self.answers)


def run_arms(file: str, arms: Sequence[str], folder: Path, rounds: int = 3) -> dict[str, Weighed]:
    """Run `arm(name, folder)` of a benchmark's file, in turn, `rounds` times each."""
    found = {name: Weighed() for name in arms}
    for _ in range(rounds):
        for name in arms:
            cpu, clock, peak, answer = _child(file, name, folder)
            one = found[name]
            one.cpu_seconds, one.seconds = min(one.cpu_seconds, cpu), min(one.seconds, clock)
            one.peak_bytes = max(one.peak_bytes, peak)
            one.answers.append(answer)
    return found


def _child(file: str, name: str, folder: Path) -> tuple[float, float, int, Any]:
    """CPU-seconds, seconds, peak bytes and answer of one arm in a fresh process."""
    answer = folder / f"answer-{name}.json"
    answer.unlink(missing_ok=True)
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, file, "--arm", name, str(folder)], env=os.environ)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"{file}: arm {name} ended with {process.returncode}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return usage.ru_utime + usage.ru_stime, seconds, peak, json.loads(answer.read_text())


def answer_as_arm(arm: Callable[[str, Path], Any]) -> bool:
    """In the process of an arm: do its work, leave the answer, and return True."""
    if sys.argv[1:2] != ["--arm"]:
        return False
    name, folder = sys.argv[2], Path(sys.argv[3])
    (folder / f"answer-{name}.json").write_text(json.dumps(arm(name, folder)))
    return True


def report(name: str, arms: dict[str, Weighed], equal: bool, **facts: Any) -> None:
    """Write bench/results/<name>.json, with the load of the machine; exit 1 where the arms disagree."""
    RESULTS.mkdir(exist_ok=True)
    weighed = {arm: {key: value for key, value in asdict(one).items() if key != "answers"} for arm, one in arms.items()}
    body = {"benchmark": name, "equal": equal, "arms": weighed, **facts,
            "load_average": os.getloadavg(), "cores": os.cpu_count(), "python": sys.version.split()[0]}  # fmt: skip
    (RESULTS / f"{name}.json").write_text(json.dumps(body, indent=1) + "\n")
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{name}: load average {load} on {os.cpu_count()} cores; the arms {'agree' if equal else 'DISAGREE'}")
    if not equal:
        sys.exit(1)
