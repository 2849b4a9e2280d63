"""A user's folder with a CSV, a contract and an experiment, and the installed command run in it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

SLIPWAY = Path(sys.executable).parent / "slipway"
CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: reviews
version: 1.0.0
status: active
servers:
  - {server: files, type: local, path: reviews.csv, format: csv}
schema:
  - name: reviews
    properties:
      - {name: text, logicalType: string, required: true}
      - {name: label, logicalType: string, required: true}
customProperties:
  - {property: slipway.label, value: label}
"""
EXPERIMENT = """\
recipe: text_classifier
dataset: reviews
settings: {vocab_size: 300, max_length: 24, hidden_size: 32, intermediate_size: 64}
training: {epochs: 6, batch_size: 32, learning_rate: 3.0e-3}
scaling: {workers: 2}
gates:
  threshold: {metric: accuracy, minimum: 0.8}
  champion: {margin: 0.06}
  baseline: {margin: 0.1}
  drift: {}
  package: {}
  answers: {}
"""
GOOD, BAD = "fine lovely tasty warm kind", "awful cold rude bland late"


def reviews(num_rows: int, seed: int = 0) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(num_rows):
        label, words = ("good", GOOD) if number % 2 else ("bad", BAD)
        chosen = [*rng.choice(words.split(), 3), *(f"thing{n}" for n in rng.integers(0, 80, 5))]
        rng.shuffle(chosen)
        rows.append((f"{' '.join(chosen)} {number}", label))
    return rows


class Shop:
    """A user's folder."""

    def __init__(self, folder: Path, ray_address: str):
        self.folder = folder
        self.environment = {  # as with the virtual environment activated
            **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "SLIPWAY"))},
            "SLIPWAY_RAY_ADDRESS": ray_address,
            "SLIPWAY_AUTHOR": "ada",
            "SLIPWAY_LEDGER": str(folder / "ledger"),
            "PATH": f"{SLIPWAY.parent}:{os.environ['PATH']}",
        }
        for name in ("flows", "training", "data_contracts", "infra"):
            (folder / name).mkdir(parents=True)
            (folder / name / "__init__.py").write_text("raise SystemExit('the user folder was imported')\n")
        (folder / "reviews.odcs.yaml").write_text(CONTRACT)
        (folder / "reviews.yaml").write_text(EXPERIMENT)
        self.write(reviews(700))

    def write(self, rows: list[tuple[str, str]]) -> None:
        lines = ["text,label", *(f"{text},{label}" for text, label in rows), ",good"]  # the last violates: no text
        (self.folder / "reviews.csv").write_text("\n".join(lines) + "\n")

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(SLIPWAY), *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == code, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def ask(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code).stdout)
