"""Gates: each looks at a candidate and its evidence and says yes or no. Without evidence it says no.

A gate is one file in `flows/gates/`, found by its name. Its docstring's first line is what `slipway gates` prints; it
defines one final subclass of `Gate`, whose fields are its settings in an experiment's `gates` section:

    gates:
      threshold: {metric: accuracy, minimum: 0.5}
      beats_baseline: {severity: warn}
"""

import ast
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from flows import promotion
from flows.models import ModelVersion, versions
from infra import artifacts
from infra.digests import digest_bytes
from infra.errors import SlipwayError, WrongInput, choices
from infra.settings import Settings
from infra.store import NotFound, Store

if TYPE_CHECKING:
    import pyarrow

    from data_contracts.contract import Contract

GATES = Path(__file__).parent / "gates"


class MissingEvidence(SlipwayError):
    """What a gate had to look at is absent, altered, or about something else."""


@dataclass(frozen=True)
class Cited:
    """One object in the store that proves something."""

    key: str
    digest: str
    """SHA-256 of its bytes."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    gate: str
    severity: str
    """`block`: a no stops promotion; `warn`: a no stands on the scorecard."""
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


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model as gates see it. `evaluation` and `package` are "" where the record of them is lost."""

    name: str
    version: int
    run: str
    model: str
    """Digest of the model artifact."""
    package: str
    """MLflow address of the packaged model."""
    package_digest: str
    dataset: str
    """`name@digest` of the dataset version trained on."""
    evaluation: str
    """Digest of the artifact of kind `evaluations`."""
    sequence: int | None = None
    """For a champion: the log entry that made it champion."""

    @classmethod
    def of(cls, version: ModelVersion, evaluation: str) -> "Subject":
        return cls(
            name=version.name,
            version=version.version,
            run=version.run,
            model=version.model,
            package=version.package,
            package_digest=version.package_digest,
            dataset=version.dataset,
            evaluation=evaluation,
        )

    @property
    def ref(self) -> str:
        return f"{self.name}/{self.version}"


def find_champion(store: Store, name: str) -> Subject | None:
    """The champion by the promotion log, or None. Lost evidence leaves "" in its place: gates then say no."""
    entry = promotion.champion(store, name)
    if entry is None:
        return None
    evaluation = ""
    try:
        card = artifacts.load(store, "scorecards", entry.scorecard)
        if artifacts.damage(store, card) is None:
            evaluation = json.loads(store.get(f"{card.prefix}/scorecard.json"))["candidate"]["evaluation"]
    except (NotFound, ValueError, KeyError):
        pass
    version = next((v for v in versions(store, name) if v.version == entry.version), None)
    return Subject(
        name=name,
        version=entry.version,
        run=entry.run,
        model=entry.model,
        package=version.package if version else "",
        package_digest=entry.package,
        dataset=entry.dataset,
        evaluation=evaluation,
        sequence=entry.sequence,
    )


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of one model: what training/evaluation.py wrote, verified."""

    metrics: dict[str, Any]
    metrics_file: Cited
    predictions_path: Path
    predictions_file: Cited

    def predictions(self, columns: list[str] | None = None) -> "pyarrow.Table":
        from pyarrow import parquet

        return parquet.read_table(self.predictions_path, columns=columns)


@dataclass(frozen=True)
class Evidence:
    """What gates may read. Everything handed out was checked against its digest and cites where it lies.

    Each method raises MissingEvidence.
    """

    store: Store
    settings: Settings
    _read: dict[str, Evaluation] = field(default_factory=dict, compare=False, repr=False)

    def evaluation(self, subject: Subject) -> Evaluation:
        if not subject.evaluation:
            raise MissingEvidence(f"the scorecard that names {subject.ref}'s evaluation is missing or altered")
        if subject.evaluation in self._read:
            return self._read[subject.evaluation]
        where = f"evaluations/{subject.evaluation}"
        try:
            artifact = artifacts.load(self.store, "evaluations", subject.evaluation)
            found = artifacts.damage(self.store, artifact)
            if found:
                raise MissingEvidence(f"{subject.ref}'s evaluation: {found}")
            metrics = json.loads(self.store.get(f"{where}/metrics.json"))
            path = self.store.local_path(f"{where}/predictions.parquet")
            digests = {name: entry["sha256"] for name, entry in artifact.files.items()}
            files = [Cited(f"{where}/{name}", digests[name]) for name in ("metrics.json", "predictions.parquet")]
        except (NotFound, ValueError, KeyError) as error:
            raise MissingEvidence(f"{subject.ref}'s evaluation: {error} is missing or unreadable") from error
        for name, wanted in (("model", subject.model), ("dataset", subject.dataset)):
            if metrics.get("subject", {}).get(name) != wanted:
                raise MissingEvidence(f"{where} is an evaluation of another {name} than {subject.ref}'s")
        self._read[subject.evaluation] = Evaluation(metrics, files[0], path, files[1])
        return self._read[subject.evaluation]

    def profile(self, subject: Subject) -> tuple[dict[str, Any], Cited]:
        """The profile of the dataset version the subject was trained on."""
        from data_contracts.profile import read_profile
        from data_contracts.registry import resolve

        try:
            version = resolve(self.store, subject.dataset)
            file = version.manifest["files"]["profile"]
            cited = Cited(version.key(file["name"]), digest_bytes(self.store.get(version.key(file["name"]))))
            if cited.digest != file["sha256"]:
                raise MissingEvidence(f"{cited.key}, the profile of {subject.ref}'s data, was altered")
            return read_profile(self.store, version), cited
        except (NotFound, ValueError, WrongInput) as error:
            raise MissingEvidence(f"the profile of {subject.ref}'s data is missing: {error}") from error

    def contract(self, subject: Subject) -> "Contract":
        """The contract under which the subject's data was registered."""
        from data_contracts.registry import contract_of, resolve

        try:
            return contract_of(self.store, resolve(self.store, subject.dataset))
        except (NotFound, ValueError, WrongInput) as error:
            raise MissingEvidence(f"the contract of {subject.ref}'s data is missing: {error}") from error

    def test_inputs(self, subject: Subject, row_ids: Sequence[str]) -> list[dict[str, Any]]:
        """The input columns of those test rows, whole, in that order."""
        import pyarrow.compute

        from data_contracts.registry import read_split, resolve

        columns = list(self.contract(subject).inputs)
        try:
            table = read_split(self.store, resolve(self.store, subject.dataset), "test", columns=columns)
        except (NotFound, ValueError, SlipwayError) as error:
            raise MissingEvidence(f"the test rows of {subject.ref}'s data are missing: {error}") from error
        wanted = pyarrow.array(list(row_ids), pyarrow.string())
        found = table.filter(pyarrow.compute.is_in(table["row_id"].cast(pyarrow.string()), value_set=wanted))
        rows = {row.pop("row_id"): {name: row[name] for name in columns} for row in found.to_pylist()}
        lost = [row_id for row_id in row_ids if row_id not in rows]
        if lost:
            raise MissingEvidence(f"test row {lost[0][:12]}, on which {subject.ref} was evaluated, is not in its data")
        return [rows[row_id] for row_id in row_ids]

    def no_champion(self, name: str) -> Cited:
        """The head of a log without a champion: what "nothing to compare" rests on."""
        reigning = promotion.champion(self.store, name)
        if reigning:
            raise MissingEvidence(
                f"{name}/{reigning.version} is champion (log entry {reigning.sequence}); compare with it"
            )
        latest = promotion.head(self.store, name)
        if latest is None:
            return Cited(f"promotions/{name}/", digest_bytes(b""))
        return Cited(latest.key, digest_bytes(self.store.get(latest.key)))


class Gate(BaseModel, ABC):
    """The settings of one gate, and its judgement. Subclasses are final; their fields are what an experiment sets."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    severity: Literal["block", "warn"] = "block"

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
