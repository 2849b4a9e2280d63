"""What gates look at: a candidate, a champion, and files that were checked against their digests before use."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.models import ModelVersion, versions
from flows.promotion import decisions as promotion
from infra import artifacts
from infra.digests import digest_bytes, digest_file
from infra.errors import SlipwayError, WrongInput
from infra.settings import Settings
from infra.store import NotFound, Store

if TYPE_CHECKING:
    import pyarrow

    from data_contracts.contract import Contract
    from data_contracts.registry import Version
    from flows.trial import Trial
    from training.evaluation import Kind


class MissingEvidence(SlipwayError):
    """What a gate had to look at is absent, altered, or about something else."""


@dataclass(frozen=True)
class Cited:
    """One object in the store that proves something."""

    key: str
    digest: str
    """SHA-256 of its bytes."""


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
    """One evaluation of one model: the files that training/evaluation.py describes, verified."""

    metrics: dict[str, Any]
    metrics_file: Cited
    predictions_path: Path
    predictions_file: Cited
    files: dict[str, Cited] = field(default_factory=dict)
    """All of them by name, pictures among them."""

    def predictions(self, columns: list[str] | None = None) -> "pyarrow.Table":
        from pyarrow import parquet

        return parquet.read_table(self.predictions_path, columns=columns)

    @property
    def kind(self) -> "Kind":
        from training.evaluation import load_kind

        return load_kind(self.metrics["task"])

    @cached_property
    def columns(self) -> list[str]:
        """Of the predictions."""
        from pyarrow import parquet

        return list(parquet.read_schema(self.predictions_path).names)

    def against_baseline(self, metric: str) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """The columns that the metric reads, the model's and the baseline's, of the same rows in the same order."""
        from training.metrics import METRICS

        if metric not in self.kind.compared:
            raise MissingEvidence(f"an evaluation of {self.metrics['task']} has no {metric} of a baseline")
        own = METRICS[metric].columns
        theirs = {name: name if name in METRICS[metric].shared else f"baseline_{name}" for name in own}
        read = self.predictions(list({*own, *theirs.values()})).to_pydict()
        return {name: read[name] for name in own}, {name: read[other] for name, other in theirs.items()}


@dataclass(frozen=True)
class Evidence:
    """What gates may read. Everything handed out was checked against its digest and cites where it lies.

    Each method raises MissingEvidence.
    """

    store: Store
    settings: Settings
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _read: dict[str, Evaluation] = field(default_factory=dict, compare=False, repr=False)
    _trials: "dict[str, Trial]" = field(default_factory=dict, compare=False, repr=False)

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
            files = {name: Cited(f"{where}/{name}", entry["sha256"]) for name, entry in artifact.files.items()}
            metrics_file, predictions_file = files["metrics.json"], files["predictions.parquet"]
        except (NotFound, ValueError, KeyError) as error:
            raise MissingEvidence(f"{subject.ref}'s evaluation: {error} is missing or unreadable") from error
        for name, wanted in (("model", subject.model), ("dataset", subject.dataset)):
            if metrics.get("subject", {}).get(name) != wanted:
                raise MissingEvidence(f"{where} is an evaluation of another {name} than {subject.ref}'s")
        self._read[subject.evaluation] = Evaluation(metrics, metrics_file, path, predictions_file, files)
        return self._read[subject.evaluation]

    def version(self, subject: Subject) -> "tuple[Version, Cited]":
        """The dataset version the subject was trained on, and its manifest."""
        from data_contracts.registry import resolve

        try:
            version = resolve(self.store, subject.dataset)
            key = version.key("manifest.json")
            return version, Cited(key, digest_bytes(self.store.get(key)))
        except (NotFound, SlipwayError) as error:
            raise MissingEvidence(f"the data of {subject.ref}: {error}") from error

    def data_file(self, subject: Subject, name: str) -> tuple[Path, Cited]:
        """A file of that version by its name in the manifest: `validation`, `data/test`."""
        from data_contracts.registry import read_file

        version, _ = self.version(subject)
        try:
            path = read_file(self.store, version, name)
        except SlipwayError as error:
            raise MissingEvidence(f"the data of {subject.ref}: {error}") from error
        file = version.manifest["files"][name]
        if digest_file(path) != file["sha256"]:
            raise MissingEvidence(f"{version.key(file['name'])}, of {subject.ref}'s data, was altered")
        return path, Cited(version.key(file["name"]), file["sha256"])

    def trial(self, subject: Subject) -> "Trial":
        """What the packaged model did when it was asked in a fresh process: once, however many gates look at it."""
        from flows.trial import run_trial

        if subject.ref not in self._trials:
            self._trials[subject.ref] = run_trial(self, subject)
        return self._trials[subject.ref]

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
        """The input columns of those test rows, whole, in that order; pictures as a request writes them."""
        import pyarrow.compute

        from data_contracts.contract import image_columns
        from data_contracts.registry import read_split, resolve
        from training.images import png_text, table_arrays

        contract = self.contract(subject)
        columns = list(contract.inputs)
        images = [name for name in columns if name in contract.images]
        more = [one for name in images for one in image_columns(name) if one not in columns]
        try:
            table = read_split(self.store, resolve(self.store, subject.dataset), "test", columns=[*columns, *more])
        except (NotFound, ValueError, SlipwayError) as error:
            raise MissingEvidence(f"the test rows of {subject.ref}'s data are missing: {error}") from error
        wanted = pyarrow.array(list(row_ids), pyarrow.string())
        found = table.filter(pyarrow.compute.is_in(table["row_id"].cast(pyarrow.string()), value_set=wanted))
        for name in images:
            texts = pyarrow.array([png_text(picture) for picture in table_arrays(found, name)], pyarrow.string())
            found = found.set_column(found.column_names.index(name), name, texts)
        rows = {row.pop("row_id"): {name: row[name] for name in columns} for row in found.to_pylist()}
        lost = [row_id for row_id in row_ids if row_id not in rows]
        if lost:
            raise MissingEvidence(f"test row {lost[0][:12]}, on which {subject.ref} was evaluated, is not in its data")
        return [rows[row_id] for row_id in row_ids]

    def shown_inputs(self, subject: Subject, row_ids: Sequence[str]) -> list[str]:
        """The inputs of those test rows as a page may show them: personal columns as hashes, pixels not at all."""
        from data_contracts.row_sample import hidden, personal_columns

        contract = self.contract(subject)
        personal = personal_columns(contract)

        def shown(name: str, value: Any) -> str:
            if name in personal:
                return hidden(value, contract)
            return "a picture" if name in contract.images else str(value)

        return ["\n".join(shown(*item) for item in row.items()) for row in self.test_inputs(subject, row_ids)]

    def shown_label(self, subject: Subject, label: str) -> str:
        """A label as a page may show it: as a hash where the label column is personal."""
        from data_contracts.row_sample import hidden, personal_columns

        contract = self.contract(subject)
        return hidden(label, contract) if contract.label in personal_columns(contract) else label

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
