"""What judging costs: every gate that asks no package, and the scorecard, on a test split of 10,000 rows.

The data, 100,000 texts of eight classes, and both models' answers are made here; nothing is trained. Inference is not
in it: `package`, `answers`, `latency` and `size` start one process that loads the model.
"""

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
ROWS = 100_000
LABELS = [f"class{number}" for number in range(8)]
GATES: dict[str, Any] = {
    "threshold": {"metric": "macro_f1", "minimum": 0.5},
    "champion": {"metric": "macro_f1", "margin": 0.05},
    "baseline": {"margin": 0.05},
    "beats_baseline": {"severity": "warn"},
    "slices": {},
    "calibration": {"maximum": 0.2},
    "drift": {},
    "contract": {},
    "freshness": {"maximum_age_days": 30.0},
    "contamination": {},
    "label_issues": {"maximum_share": 0.5},
}
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: bench
name: bench
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
  - {property: slipway.split, value: {test: 0.1, validation: 0.1}}
  - {property: slipway.slices, value: [label]}
"""


def register(store: Any, folder: Path) -> Any:
    from data_contracts import registry
    from data_contracts.contract import load_contract

    draw = random.Random(0)
    words = [f"{stem}{number}" for stem in ("river", "metal", "fruit", "cloud") for number in range(2000)]
    lines = [f"{' '.join(draw.choices(words, k=12))},{LABELS[row % len(LABELS)]}" for row in range(ROWS)]
    (folder / "rows.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    (folder / "bench.odcs.yaml").write_text(CONTRACT)
    return registry.register(store, load_contract(str(folder / "bench.odcs.yaml")), cache=folder / "cache")[0]


def model(store: Any, data: Any, folder: Path, right: float, seed: int) -> Any:
    """A version whose answers are right that often, each with its probabilities; returns what gates see of it."""
    import numpy as np
    import pyarrow as pa

    from data_contracts.registry import read_split
    from flows import models
    from flows.judging.evidence import Subject
    from infra import artifacts
    from training.baseline import Baseline
    from training.evaluations.classification import evaluate_classification

    rng = np.random.default_rng(seed)
    table = read_split(store, data, "test")
    truth = np.array([LABELS.index(label) for label in table["label"].to_pylist()])
    given = np.where(rng.random(len(truth)) < right, truth, rng.integers(0, len(LABELS), len(truth)))
    sure = rng.uniform(0.5, 0.99, len(truth))
    shares = np.repeat(((1 - sure) / (len(LABELS) - 1))[:, None], len(LABELS), 1)
    shares[np.arange(len(truth)), given] = sure
    answers = [LABELS[one] for one in given]
    weights = folder / f"weights-{seed}"
    weights.write_text(str(seed))
    artifact = artifacts.commit(store, "models", {"weights": weights})
    reference = f"{data.name}@{data.digest}"
    described = pa.table(
        {
            "row_id": table["row_id"],
            "label": table["label"],
            "prediction": answers,
            "confidence": sure,
            "probabilities": pa.array(shares.tolist()),
            "text": table["text"],
        }
    )
    where = folder / f"evaluation-{seed}"
    linear = Baseline(answers, LABELS[0], {"C": 10}, [{"C": 10, "validation_accuracy": 0.8}])
    evaluate_classification(described, LABELS, where, baseline=linear, model=artifact.digest, dataset=reference)
    evaluation = artifacts.commit_folder(store, "evaluations", where).digest
    version = models.add_version(
        store,
        name="bench",
        run=f"bench-{seed}",
        experiment={},
        model=artifact.digest,
        package="models:/none",
        package_digest=f"{seed:064x}",
        dataset=reference,
        author="bench",
        created="2026-01-01T00:00:00+00:00",
    )
    return Subject.of(version, evaluation)


def main() -> None:
    from dataclasses import replace

    from flows.judging.evidence import Evidence
    from flows.judging.gate import parse_gates, run_gates
    from flows.judging.scorecard import Lineage, build_scorecard
    from infra.settings import Settings

    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as name:
        folder = Path(name)
        settings = Settings(workspace=str(folder / "workspace"), store=str(folder / "store"))
        store = settings.object_store
        data = register(store, folder)
        champion = replace(model(store, data, folder, 0.85, 1), sequence=1)
        candidate = model(store, data, folder, 0.86, 2)
        evidence = Evidence(store, settings)
        gates = parse_gates(GATES, "bench")
        print(f"{data.counts['test']:,} test rows, {data.counts['train']:,} training rows")
        print(f"{'':<16}{'CPU-seconds':>12}{'seconds':>9}   says")
        verdicts, total = [], [0.0, 0.0]
        for gate in gates:
            cpu, clock = time.process_time(), time.perf_counter()
            verdicts += run_gates([gate], candidate, champion, evidence)
            told(gate.name, cpu, clock, total, "yes" if verdicts[-1].passed else verdicts[-1].sentence[:60])
        lineage = Lineage(
            contract=data.contract_digest,
            dataset=data.counts,
            experiment="",
            code={},
            base="none",
            libraries={},
            author="bench",
            created="",
        )
        cpu, clock = time.process_time(), time.perf_counter()
        build_scorecard(
            folder / "card",
            candidate=candidate,
            champion=champion,
            verdicts=verdicts,
            evidence=evidence,
            curves={"loss": [[step, 1 / (step + 1)] for step in range(20_000)]},
            lineage=lineage,
            gates=gates,
        )
        told("scorecard", cpu, clock, total, f"{(folder / 'card' / 'scorecard.html').stat().st_size / 1e3:.0f} kB")
        print(f"{'all':<16}{total[0]:>12.1f}{total[1]:>9.1f}")


def told(name: str, cpu: float, clock: float, total: list[float], says: str) -> None:
    spent = time.process_time() - cpu, time.perf_counter() - clock
    total[0] += spent[0]
    total[1] += spent[1]
    print(f"{name:<16}{spent[0]:>12.1f}{spent[1]:>9.1f}   {says}", flush=True)


if __name__ == "__main__":
    main()
