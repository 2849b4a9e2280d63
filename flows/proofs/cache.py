"""A cached result is used exactly while nothing that made it has changed; what has is rerun and named, and no more."""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.code_key import ROOT
from flows.orchestration.server import prefect_server
from flows.prove import Options, Say
from flows.scratch import Scratch, scratch
from infra.settings import load_settings

NAME = "scratch"
EXPERIMENT = """\
recipe: text_classifier
dataset: scratch
contract: scratch.odcs.yaml
settings: {vocab_size: 300, max_length: 24, hidden_size: 32, intermediate_size: 64}
training: {steps: 40, batch_size: 24, learning_rate: 1.0e-3}
gates:
  threshold: {metric: accuracy, minimum: 0.01}
"""
PACKAGES = ("flows", "training", "data_contracts", "infra")
ALL = ("register", "prepare", "train", "evaluate", "gate", "promote")
JUDGED = ("evaluate", "gate", "promote")
"""An evaluation that is made again counts one more look at the test split, so its scorecard is another."""


@dataclass
class Bench:
    """A scratch workspace with a copy of Slipway's code to edit, and what the unbroken steps gave."""

    place: Scratch
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def code(self) -> Path:
        assert self.place.code
        return self.place.code

    def stored(self, key: str) -> Path:
        return self.place.settings.folder / "store" / key

    def output(self, kind: str) -> dict[str, Any]:
        return self.outputs[f"{kind} {NAME}"]

    def retrain(self) -> list[dict[str, Any]]:
        steps: list[dict[str, Any]] = self.place.ask("retrain", NAME)["steps"]
        self.outputs = {one["step"]: one["output"] for one in steps}
        return steps


@dataclass(frozen=True)
class Change:
    do: Callable[[Bench], Any]
    undo: Callable[[Bench], Any] | None = None
    """After which the first results count again. None: what runs mends it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    change: Change
    reruns: tuple[str, ...] = ()
    """The kinds of steps that must run again; all others must not."""
    says: str = ""
    """What the first of them must name."""
    also: str = ""
    """What one of the others must name."""


def _edit(path: Callable[[Bench], Path], old: str, new: str) -> Change:
    """Replace a text in a file."""

    def replace(bench: Bench, old: str, new: str) -> None:
        text = path(bench).read_text(encoding="utf-8")
        if text.count(old) != 1:
            raise AssertionError(f"{path(bench)} does not hold {old!r} once; the proof has to follow the code")
        path(bench).write_text(text.replace(old, new), encoding="utf-8")

    return Change(lambda bench: replace(bench, old, new), lambda bench: replace(bench, new, old))


def _experiment(bench: Bench) -> Path:
    return bench.place.folder / f"{NAME}.yaml"


def _module(name: str) -> Callable[[Bench], Path]:
    return lambda bench: bench.code / name


def _flip(step: str, output: str, folder: str, suffix: str) -> Change:
    """Change one bit in the middle of a file that a step made."""

    def flip(bench: Bench) -> None:
        path = _one_of(bench, f"{folder}/{bench.output(step)[output]}", suffix)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    return Change(flip)


def _library(name: str, version: str) -> Change:
    """Another version of a library, as far as its metadata tells."""

    def folder(bench: Bench) -> Path:
        return bench.code / f"{name}-{version}.dist-info"

    def install(bench: Bench) -> None:
        folder(bench).mkdir()
        (folder(bench) / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    return Change(install, lambda bench: shutil.rmtree(folder(bench)))


def _one_of(bench: Bench, folder: str, suffix: str) -> Path:
    return next(path for path in sorted(bench.stored(folder).rglob("*")) if path.name.endswith(suffix))


def _delete_prepared(bench: Bench) -> None:
    folder = bench.stored(f"prepared/{bench.output('prepare')['prepared']}")
    max((path for path in folder.iterdir() if path.name != "manifest.json"), key=lambda p: p.stat().st_size).unlink()


def _add_row(bench: Bench) -> None:
    path = bench.place.folder / "scratch.csv"
    stat = path.stat()
    path.with_suffix(".before").write_bytes(path.read_bytes())
    with path.open("a") as file:
        file.write("word1 word2 one row more,label0\n")
    os.utime(path.with_suffix(".before"), ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _take_row(bench: Bench) -> None:
    os.replace(bench.place.folder / "scratch.before", bench.place.folder / "scratch.csv")


CASES = (
    Case(name="nothing", change=Change(lambda bench: None)),
    Case(name="a comment in the code",
         change=_edit(_module("flows/evaluate.py"), "def load_predictor(", "# A thought.\n\n\ndef load_predictor(")),
    Case(name="a comment in the experiment", change=_edit(_experiment, "gates:", "# A thought.\ngates:")),
    Case(name="the number of workers", change=_edit(_experiment, "gates:", "scaling: {workers: 2}\ngates:")),
    Case(name="a file of what was prepared deleted", reruns=("prepare",), says="is missing",
         change=Change(_delete_prepared)),
    Case(name="the record of a step torn", reruns=("prepare",), says="never ran here",
         change=Change(lambda bench: _one_of(bench, f"steps/prepare/{NAME}", ".json").write_bytes(b"{"))),
    Case(name="a bit of the evaluation flipped", reruns=JUDGED, says="was altered",
         change=_flip("evaluate", "evaluation", "evaluations", "metrics.json")),
    Case(name="the data's manifest deleted", reruns=("register",), says="manifest is missing",
         change=Change(lambda bench: _one_of(bench, "datasets/scratch", "manifest.json").unlink())),
    Case(name="a gate's setting", reruns=("gate", "promote"), says="gates.threshold.minimum: from 0.01 to 0.02",
         change=_edit(_experiment, "minimum: 0.01", "minimum: 0.02")),
    Case(name="a function's body, in evaluating", reruns=JUDGED, says="flows/evaluate.py: load_predictor",
         change=_edit(_module("flows/evaluate.py"), 'artifacts.load(store, "models", model)',
                      'artifacts.load(store, "models", str(model))')),
    Case(name="a library's version", reruns=("register",), says="libraries.great_expectations: from",
         change=_library("great_expectations", "99.0")),
    Case(name="a bit of the model's weights flipped", reruns=("train",), says="was altered",
         change=_flip("train", "model", "models", ".safetensors")),
    Case(name="a setting of the training", reruns=ALL[2:], says="training.learning_rate: from 0.001 to 0.002",
         change=_edit(_experiment, "learning_rate: 1.0e-3", "learning_rate: 2.0e-3")),
    Case(name="a library's version, of training", reruns=ALL[2:], says="libraries.torch: from",
         change=_library("torch", "99.0")),
    Case(name="one row more", change=Change(_add_row, _take_row), reruns=ALL, says="scratch.csv changed from",
         also="dataset.counts.rows_in: from 500 to 501"),
)  # fmt: skip
QUICK = (
    "a comment in the code",
    "a file of what was prepared deleted",
    "a gate's setting",
    "a function's body, in evaluating",
    "a library's version",
)
"""What starts no training, and of each kind of change one."""


def prove(options: Options, say: Say, cases: Sequence[str] = (), address: str = "") -> dict[str, Any]:
    """cases: names of those to try; none: all. address: of a Ray cluster to join."""
    wanted = [case for case in CASES if not cases or case.name in cases]
    with tempfile.TemporaryDirectory(prefix="slipway-prove-") as folder:
        code = Path(folder) / "code"
        for package in PACKAGES:
            shutil.copytree(ROOT / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
        with (
            scratch(Path(folder), 1, address or load_settings().ray_address, code) as place,
            prefect_server(place.settings) as server,
        ):
            place.prefect = server
            (place.folder / f"{NAME}.yaml").write_text(EXPERIMENT)
            bench = Bench(place)
            say("the first time")
            bench.retrain()
            found = []
            for number, case in enumerate(wanted, start=1):
                say(f"{number} of {len(wanted)}: {case.name}")
                found.append(_try(bench, case))
            stale = [one["step"] for one in place.ask("plan", NAME) if one["status"] != "cached"]
    return {"cases": found, "stale_at_the_end": stale, "held": not stale and all(one["held"] for one in found)}


def _try(bench: Bench, case: Case) -> dict[str, Any]:
    case.change.do(bench)
    steps = bench.retrain()
    ran = [one for one in steps if one["status"] == "ran"]
    named = ["; ".join(one["reasons"]) for one in ran]
    if case.change.undo:
        case.change.undo(bench)  # what this leaves stale would run in the next case, which must not run it
    exactly = tuple(one["step"].split()[0] for one in ran) == case.reruns
    said = (not case.says or case.says in named[0]) if ran else not case.says
    said = said and (not case.also or any(case.also in one for one in named))
    return {
        "case": case.name,
        "reran": ", ".join(one["step"].split()[0] for one in ran) or "nothing",
        "must": ", ".join(case.reruns) or "nothing",
        "because": named[0] if named else "",
        "held": exactly and said,
    }
