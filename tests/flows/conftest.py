"""A small world for gates, scorecards and promotions: real dataset versions, evaluations with planted answers."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_contracts.contract import load_contract
from data_contracts.registry import Version, read_split, register, resolve
from flows import models, references
from flows.judging.evidence import Cited, Evidence, Subject, find_champion
from flows.judging.gate import Gate, Verdict, parse_gates, run_gates
from flows.judging.scorecard import Lineage, build_scorecard
from flows.models import ModelVersion
from flows.promotion import decisions as promotion
from infra import artifacts
from infra.settings import Settings
from infra.store import FolderStore
from tests.flows.reviewers import Court
from training.baseline import Baseline
from training.evaluations.classification import evaluate_classification

LABELS = ["ant", "bee", "cat"]
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: animals
name: animals
version: 1.0.0
status: active
servers:
  - {server: local, type: local, path: rows.csv, format: csv}
schema:
  - name: rows
    properties:
      - {name: text, logicalType: string, required: true}
      - {name: label, logicalType: string, required: true}
customProperties:
  - {property: slipway.inputs, value: [text]}
  - {property: slipway.label, value: label}
  - {property: slipway.split, value: {test: 0.2, validation: 0.1}}
"""


SLICES = "  - {property: slipway.slices, value: [label]}\n"
"""What names each class as a slice, at the end of that contract."""


def write_rows(folder: Path, rows: Sequence[tuple[str, str]], contract: str = CONTRACT) -> Path:
    """A contract and its CSV; returns the contract's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    (folder / "animals.odcs.yaml").write_text(contract)
    return folder / "animals.odcs.yaml"


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A store with five dataset versions, and name -> `animals@digest`.

    old: 3,000 rows. grown: 100 of them replaced. drifted: same rows and 3,000 long ones of one class. other: no row
    of the old. named: the old rows under a contract that names slices.
    """
    folder = tmp_path_factory.mktemp("registered")
    old = [(f"{LABELS[i % 3]} number {i} sits still", LABELS[i % 3]) for i in range(3000)]
    versions = {
        "old": old,
        "grown": old[100:] + [(f"a new {LABELS[i % 3]} {i} sits still", LABELS[i % 3]) for i in range(100)],
        "drifted": old + [(f"a very long story of bee {i} " + "that goes on " * 20, "bee") for i in range(3000)],
        "other": [(f"quite another {LABELS[i % 3]} {i} here", LABELS[i % 3]) for i in range(3000)],
        "named": old,
    }
    store = FolderStore(folder / "store")
    references = {}
    for name, rows in versions.items():
        text = CONTRACT + SLICES if name == "named" else CONTRACT
        contract = load_contract(str(write_rows(folder / name, rows, text)))
        version, _ = register(store, contract, cache=folder / "cache")
        references[name] = f"{version.name}@{version.digest}"
    return folder / "store", references


class World:
    """One model called `animals`, versions of it with planted answers, and the store they are in."""

    def __init__(self, folder: Path, references: dict[str, str]):
        self.folder, self.references = folder, dict(references)
        self.settings = Settings(workspace=str(folder / "workspace"), store=str(folder / "store"))
        self.store = self.settings.object_store
        self.evidence = Evidence(self.store, self.settings)
        self.packages = True

    def dataset_of(self, subject: Subject) -> Version:
        return resolve(self.store, subject.dataset)

    def dataset(self, name: str) -> Version:
        return resolve(self.store, self.references[name])

    def add_dataset(self, name: str, rows: str, contract: str, age_days: float = 0.0) -> None:
        """Register one more version from the text of a CSV and of a contract; `name` then stands for it. The file was
        last changed `age_days` ago."""
        folder = self.folder / f"data-{name}"
        folder.mkdir()
        (folder / "rows.csv").write_text(rows)
        changed = time.time() - 86400 * age_days
        os.utime(folder / "rows.csv", (changed, changed))
        (folder / "animals.odcs.yaml").write_text(contract)
        version, _ = register(self.store, load_contract(str(folder / "animals.odcs.yaml")), cache=self.folder / "cache")
        self.references[name] = f"{version.name}@{version.digest}"

    def evaluate(
        self,
        dataset: str,
        right: float,
        baseline: float,
        model: str,
        texts: Sequence[str] = (),
        plant: Callable[[pa.Table], pa.Table] = lambda table: table,
        test_reads: int = 1,
    ) -> str:
        """Digest of an evaluation with exactly these shares of right answers, spread over the classes; `plant` may
        change the answers (row_id, label, prediction, confidence, text) before they are judged."""
        table = read_split(self.store, self.dataset(dataset), "test")
        truth = table["label"].to_pylist()

        def answers(share: float, turn: int) -> list[str]:
            # The first rows are right: a better model is right wherever a worse one is, as successors mostly are.
            wrong = [LABELS[(LABELS.index(label) + turn) % 3] for label in truth]
            count = round(share * len(truth))
            return truth[:count] + wrong[count:]

        described = pa.table(
            {
                "row_id": table["row_id"],
                "label": truth,
                "prediction": answers(right, 1),
                "confidence": [0.9] * len(truth),
                "text": [*texts, *table["text"].to_pylist()[len(texts) :]],
            }
        )
        folder = self.folder / "evaluation"
        shutil.rmtree(folder, ignore_errors=True)
        linear = Baseline(answers(baseline, 2), "ant", {"C": 10}, [{"C": 10, "validation_accuracy": 0.8}])
        evaluate_classification(
            plant(described),
            LABELS,
            folder,
            baseline=linear,
            model=model,
            dataset=self.references[dataset],
            test_reads=test_reads,
        )
        return artifacts.commit_folder(self.store, "evaluations", folder).digest

    def version(self, dataset: str = "old", package: str = "models:/none") -> ModelVersion:
        number = len(models.versions(self.store, "animals")) + 1
        weights = self.folder / f"weights-{number}"
        weights.write_text(f"weights of version {number}")
        model = artifacts.commit(self.store, "models", {"weights": weights})
        return models.add_version(
            self.store,
            name="animals",
            run=f"animals-{number}",
            experiment={},
            model=model.digest,
            package=package,
            package_digest=f"{number:064x}",
            dataset=self.references[dataset],
            author="mel",
            created="2026-01-01T00:00:00+00:00",
            mlflow_version=str(number),
        )

    def candidate(
        self,
        right: float = 0.9,
        baseline: float = 0.8,
        dataset: str = "old",
        package: str = "models:/none",
        texts: Sequence[str] = (),
        **planted: Any,
    ) -> Subject:
        version = self.version(dataset, package)
        return Subject.of(version, self.evaluate(dataset, right, baseline, version.model, texts, **planted))

    def lineage(self, dataset: str = "old") -> Lineage:
        return Lineage(
            contract=self.dataset(dataset).contract_digest,
            dataset={"ref": self.dataset(dataset).ref},
            experiment="recipe: text_classifier\n",
            code={"train": "0123"},
            base="random weights",
            libraries={"torch": "2.13.0"},
            author="mel",
            created="2026-01-01T00:00:00+00:00",
        )

    def scorecard(
        self,
        candidate: Subject,
        verdicts: Sequence[Verdict] | None = None,
        champion: Subject | None = None,
        **more: Any,
    ) -> str:
        """Digest of a scorecard; by default of one whose single gate says yes."""
        if verdicts is None:
            verdicts = [AlwaysYes().check(candidate, champion, self.evidence)]
        folder = self.folder / "scorecard"
        shutil.rmtree(folder, ignore_errors=True)
        dataset = next(name for name, ref in self.references.items() if ref == candidate.dataset)
        arguments: dict[str, Any] = {"curves": {}, "lineage": self.lineage(dataset), **more}
        build_scorecard(
            folder, candidate=candidate, champion=champion, verdicts=verdicts, evidence=self.evidence, **arguments
        )
        return artifacts.commit_folder(self.store, "scorecards", folder).digest

    def promote(self, candidate: Subject, **more: Any) -> Subject:
        """Make it champion, `more` given to its scorecard; returns it as the champion that gates see."""
        version = references.resolve(self.store, candidate.ref)
        card = self.scorecard(candidate, champion=find_champion(self.store, "animals"), **more)
        promotion.promote(self.store, version, card, author="mel")
        champion = find_champion(self.store, "animals")
        assert champion is not None
        return champion

    def judge(
        self, gate: str, settings: dict[str, Any], candidate: Subject, champion: Subject | None = None
    ) -> Verdict:
        (verdict,) = run_gates(
            parse_gates({gate: settings}, "experiment animals"),
            candidate,
            champion,
            Evidence(self.store, self.settings),
        )
        return verdict


class AlwaysYes(Gate):
    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        return self.verdict(True, "Yes.", Cited("evaluations/x", "0" * 64), observed=1.0, threshold=0.5)


@pytest.fixture
def make_world(registered: tuple[Path, dict[str, str]], tmp_path: Path) -> Callable[[], World]:
    def make() -> World:
        shutil.copytree(registered[0], tmp_path / "store")
        return World(tmp_path, registered[1])

    return make


@pytest.fixture
def world(make_world: Callable[[], World]) -> World:
    return make_world()


@pytest.fixture
def court(world: World, tmp_path: Path) -> Court:
    """The world's model `animals` with its author, reviewers and their keys."""
    return Court(world, tmp_path)
