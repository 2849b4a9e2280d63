"""Gates: each looks at a candidate and its evidence and says yes or no. Without evidence it says no.

A gate is one file in `flows/gates/`, found by its name. Its docstring's first line is what `slipway gates` prints; it
defines one final subclass of `Gate`, whose fields are its settings in an experiment's `gates` section:

    gates:
      threshold: {metric: accuracy, minimum: 0.5}
      beats_baseline: {severity: warn}
"""

import ast
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from flows.judging.evidence import Cited, Evidence, MissingEvidence, Subject
from infra.errors import SlipwayError, WrongInput, choices

GATES = Path(__file__).parents[1] / "gates"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    gate: str
    severity: str
    passed: bool
    measure: str
    """What `observed` and `threshold` count, e.g. "accuracy minus the champion's"."""
    observed: float | None
    threshold: float | None
    interval: tuple[float, float] | None
    """Confidence interval of `observed`."""
    evidence: str
    """Key in the object store of the file that proves it; "" when it was missing, which is a no."""
    evidence_digest: str
    sentence: str
    also_cited: tuple[Cited, ...] = ()
    """Further files it rests on, such as the champion's."""
    details: tuple[dict[str, Any], ...] = ()
    """Rows of one table that says more, equal keys in each; may be empty."""


class Gate(BaseModel, ABC):
    """The settings of one gate, and its judgement. Subclasses are final; their fields are what an experiment sets."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    evaluations: ClassVar[tuple[str, ...]] = ()
    """The kinds of evaluation that it can judge by; empty: every kind."""

    severity: Literal["block", "warn"] = "block"
    """`block`: a no stops promotion; `warn`: a no stands on the scorecard."""

    @property
    def name(self) -> str:
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        """Judge. May raise anything: `run_gates` makes a no of it."""

    def verdict(
        self,
        passed: bool,
        sentence: str,
        proof: Cited,
        *,
        measure: str = "",
        observed: float | None = None,
        threshold: float | None = None,
        interval: tuple[float, float] | None = None,
        also_cited: Sequence[Cited] = (),
        details: Sequence[dict[str, Any]] = (),
    ) -> Verdict:
        return Verdict(
            gate=self.name,
            severity=self.severity,
            passed=passed,
            measure=measure,
            observed=observed,
            threshold=threshold,
            interval=interval,
            evidence=proof.key,
            evidence_digest=proof.digest,
            sentence=sentence,
            also_cited=tuple(also_cited),
            details=tuple(details),
        )

    def nothing_to_compare(self, candidate: Subject, evidence: Evidence, measure: str) -> Verdict:
        proof = evidence.no_champion(candidate.name)
        log = "its promotion log is empty" if proof.key.endswith("/") else f"its promotion log ends at {proof.key}"
        sentence = f"Nothing to compare: {candidate.name} has no champion; {log}."
        return self.verdict(True, sentence, proof, measure=measure)


def gate_names() -> list[str]:
    return sorted(path.stem for path in GATES.glob("*.py") if path.stem != "__init__")


def list_gates() -> list[tuple[str, str]]:
    """(name, first line of its docstring) of every gate there is. Imports none of them."""
    listing = []
    for name in gate_names():
        docstring = ast.get_docstring(ast.parse((GATES / f"{name}.py").read_text(encoding="utf-8"))) or ""
        listing.append((name, docstring.partition("\n")[0]))
    return listing


def load_gate(name: str) -> type[Gate]:
    """The gate defined in `flows/gates/<name>.py`. Raises WrongInput naming the nearest."""
    if name not in gate_names():
        raise WrongInput(f"gate '{name}' is unknown; {choices(name, gate_names())}")
    import importlib

    module = importlib.import_module(f"flows.gates.{name}")
    (found,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Gate) and value.__module__ == module.__name__
    )
    return found


def parse_gates(section: Mapping[str, Any], where: str) -> list[Gate]:
    """The configured gates of an experiment's `gates` section, in its order. Raises WrongInput: which field, what."""
    gates = []
    for name, settings in section.items():
        if name not in gate_names():
            raise WrongInput(f"{where}: gates.{name}: there is no such gate; {choices(name, gate_names())}")
        if not isinstance(settings or {}, Mapping):
            raise WrongInput(f"{where}: gates.{name}: found '{settings}'; write settings, such as {{severity: warn}}")
        kind = load_gate(name)
        try:
            gates.append(kind(**(settings or {})))
        except ValidationError as error:
            # An unknown key before the one it leaves missing: it is what the user wrote.
            first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
            place = ".".join(str(part) for part in ("gates", name, *first["loc"]))
            if first["type"] == "extra_forbidden":
                reason = f"unknown key; {choices(str(first['loc'][-1]), kind.model_fields)}"
            elif first["type"] == "missing":
                reason = f"is missing; {name} needs it"
            else:
                reason = f"found {first['input']!r}; {first['msg'].removeprefix('Value error, ')}"
            raise WrongInput(f"{where}: {place}: {reason}") from error
    return gates


def refuse_misfits(gates: Sequence[Gate], recipe: str, kind: str, where: str) -> None:
    """Raises WrongInput for gates that judge by another kind of evaluation than the recipe's models get."""
    from training.evaluation import load_kind

    evaluated = f"recipe {recipe} is evaluated by {kind}"
    for gate in gates:
        if gate.evaluations and kind not in gate.evaluations:
            raise WrongInput(f"{where}: gates.{gate.name}: is for {', '.join(gate.evaluations)}; {evaluated}")
        metric = getattr(gate, "metric", None)
        known = load_kind(kind).metrics
        if metric is not None and metric not in known:
            raise WrongInput(
                f"{where}: gates.{gate.name}.metric: there is no {metric}; {evaluated}, which has {', '.join(known)}"
            )


def run_gates(
    gates: Sequence[Gate],
    candidate: Subject,
    champion: Subject | None,
    evidence: Evidence,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Verdict]:
    """Every gate's verdict, in order. A gate that cannot judge, or cites nothing, has said no.

    `progress(done, total, gate name)` is called before each.
    """
    verdicts = []
    for position, gate in enumerate(gates):
        if progress:
            progress(position, len(gates), gate.name)
        try:
            verdict = gate.check(candidate, champion, evidence)
            if not verdict.evidence or not verdict.evidence_digest:
                raise MissingEvidence("it cited no file")
        except Exception as error:  # whatever went wrong, an unjudged candidate has not passed
            reason = str(error) if isinstance(error, SlipwayError) else f"{type(error).__name__}: {error}"
            sentence = f"Could not be judged, which is a no: {' '.join(reason.split()).rstrip('.')}."
            verdict = gate.verdict(False, sentence, Cited("", ""))
        verdicts.append(verdict)
    return verdicts


def passed(verdicts: Sequence[Verdict]) -> bool:
    """Whether nothing blocks promotion. No verdict at all is a no."""
    return bool(verdicts) and all(verdict.passed or verdict.severity == "warn" for verdict in verdicts)
