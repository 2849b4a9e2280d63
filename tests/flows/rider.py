"""A model of known quality for tests of what happens to models at work: it answers by one number, and says how sure.

Its inputs are drawn here too, and the labels that the world gives them, so that the accuracy of any window is known.
"""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_contracts import registry
from data_contracts.contract import load_contract
from flows import models
from flows.evaluate import evaluate_step
from flows.inference.log import Answered, LogFormat, write
from flows.inference.policy import MonitorPolicy
from flows.monitor import Asked, monitor_step, read_report, tell
from flows.steps import execute
from infra import artifacts
from infra.digests import digest, digest_file
from infra.progress import Progress
from infra.settings import Settings
from training.task import Predictor

CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: rides
name: rides
version: 1.0.0
status: active
servers:
  - {server: local, type: local, path: rows.csv, format: csv}
schema:
  - name: rows
    properties:
      - {name: heat, logicalType: number, required: true}
      - {name: place, logicalType: string, required: true}
      - {name: mail, logicalType: string, classification: PII}
      - {name: season, logicalType: integer, required: true}
      - {name: day, logicalType: date}
      - {name: busy, logicalType: boolean, required: true}
customProperties:
  - {property: slipway.inputs, value: [heat, place, mail, season]}
  - {property: slipway.label, value: busy}
  - {property: slipway.split, value: {test: 0.4, validation: 0.1}}
  - {property: slipway.drift, value: {effect: 0.1, columns: {season: {ignore: true}}}}
"""
LABELS = ["False", "True"]
MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
WEEK = timedelta(days=7)


class Rider(Predictor):
    """P(busy) = 1 / (1 + exp(-3 heat)), said with too much confidence: the logit is doubled."""

    labels = LABELS

    def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        said = 1 / (1 + np.exp(-6 * np.array([row["heat"] for row in rows])))
        return [
            {"label": LABELS[one > 0.5], "confidence": max(one, 1 - one), "scores": {"False": 1 - one, "True": one}}
            for one in said.tolist()
        ]


def load_predictor(folder: Path) -> Rider:
    assert json.loads((folder / "rider.json").read_text()) == {"rides": True}
    return Rider()


def draw(
    seed: int, count: int, shift: float = 0.0, season: int | None = None, day: date | str = ""
) -> list[dict[str, Any]]:
    """Rows with their label `busy`; heat is about `shift`, and about a fifth of the season."""
    rng = np.random.default_rng(seed)
    seasons = rng.integers(1, 5, count) if season is None else np.full(count, season)
    heat = rng.normal(shift, 0.5, count) + (0.4 * (seasons - 2.5) if season is not None else 0)
    busy = rng.random(count) < 1 / (1 + np.exp(-3 * heat))
    places = rng.choice(["hill", "lake", "town"], count)
    return [
        {
            "heat": float(h),
            "place": str(p),
            "mail": f"rider{i % 90}@example.org",
            "season": int(s),
            "day": str(day),
            "busy": bool(b),
        }
        for i, (h, p, s, b) in enumerate(zip(heat.round(6), places, seasons, busy, strict=True))
    ]


def seasonal(seed: int, count: int) -> list[dict[str, Any]]:
    return [row for season in (1, 2, 3, 4) for row in draw(seed + season, count // 4, season=season)]


def moody(seed: int, weeks: int, count: int) -> list[dict[str, Any]]:
    """Rows of that many weeks before MONDAY, each week with a heat of its own: its rows are not independent."""
    moods = np.random.default_rng(seed).normal(0, 0.3, weeks)
    days = [(MONDAY - (weeks - week) * WEEK).date() for week in range(weeks)]
    return [row for week in range(weeks) for row in draw(seed + week, count, moods[week], day=days[week])]


def csv(rows: Sequence[dict[str, Any]]) -> str:
    lines = [",".join(str(value) for value in row.values()) for row in rows]
    return "\n".join(["heat,place,mail,season,day,busy", *lines]) + "\n"


class Rides:
    """A store in which the rider is version 1 of model `rides`, registered and evaluated on rows of its contract."""

    def __init__(self, folder: Path, rows: Sequence[dict[str, Any]], packaged: bool = False):
        self.folder = folder
        self.settings = Settings(workspace=str(folder / "workspace"), store=str(folder / "store"))
        self.settings.create_workspace()
        self.store = self.settings.object_store
        (folder / "rows.csv").write_text(csv(rows))
        (folder / "rides.odcs.yaml").write_text(CONTRACT)
        self.contract = load_contract(str(folder / "rides.odcs.yaml"))
        data, _ = registry.register(self.store, self.contract, cache=folder / "cache")
        (folder / "files").mkdir()
        (folder / "files" / "rider.json").write_text(json.dumps({"rides": True}))
        files = {"loader": "tests.flows.rider:load_predictor", "input_columns": list(self.contract.inputs)}
        model = artifacts.commit_folder(self.store, "models", folder / "files", {"files": files})
        experiment = {"recipe": "text_classifier", "dataset": "rides", "name": "rides", "training": {"epochs": 1}}
        package, package_digest = self.package(files) if packaged else ("models:/none", "1" * 64)
        self.version = models.add_version(
            self.store, name="rides", run="rides-1", experiment=experiment, model=model.digest, package=package,
            package_digest=package_digest, dataset=f"rides@{data.digest}", author="mel", created="2026-01-01",
        )  # fmt: skip
        self.form = LogFormat(self.version, self.contract, LABELS)
        trained: dict[str, dict[str, Any]] = {"train rides": {"version": 1, "model": model.digest}}
        execute(self.store, evaluate_step(self.settings, "rides", ()), trained, Progress("evaluate"))

    def package(self, files: dict[str, Any]) -> tuple[str, str]:
        """An MLflow package as `infra.tracking.log_package` makes it, without a run: its folder and its digest."""
        import mlflow.pyfunc
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, Schema

        body = {"format": 1, "loader": files["loader"], "outputs": ["label", "confidence"]}
        (self.folder / "files" / "package.json").write_text(json.dumps(body))
        kinds = {"heat": "double", "place": "string", "mail": "string", "season": "long"}
        mlflow.pyfunc.save_model(
            path=str(self.folder / "package"),
            loader_module="infra.tracking",
            data_path=str(self.folder / "files"),
            signature=ModelSignature(
                Schema([ColSpec(kind, name, required=name != "mail") for name, kind in kinds.items()]),
                Schema([ColSpec("string", "label"), ColSpec("double", "confidence")]),
            ),
            pip_requirements=["mlflow"],
        )
        data = self.folder / "package" / "data"
        (data / "files").rename(data / "package")
        model = data.parent / "MLmodel"
        model.write_text(model.read_text().replace("data/files", "data/package"))
        listing = {path.name: digest_file(path) for path in (data / "package").iterdir()}
        return str(self.folder / "package"), digest(listing)

    def answered(self, week: int, rows: Sequence[dict[str, Any]]) -> pa.Table:
        """What the log holds when the rider answers these rows in week number `week` from MONDAY on."""
        inputs = [{name: row[name] for name in self.contract.inputs} for row in rows]
        ids = [f"w{week}-{number}" for number in range(len(rows))]
        times = [MONDAY + week * WEEK + WEEK / (len(rows) + 1) * number for number in range(len(rows))]
        return self.form.table([Answered(ids, times, inputs, Rider()(inputs))])

    def log(self, week: int, rows: Sequence[dict[str, Any]]) -> dict[str, bool]:
        """Put that into the log. Returns id -> label."""
        write(self.store, "rides", self.answered(week, rows))
        return {f"w{week}-{number}": row["busy"] for number, row in enumerate(rows)}

    def monitor(self, labels: Path | None = None, since: datetime | None = None, **policy: Any) -> dict[str, Any]:
        """The report, through the step and without Prefect."""
        asked = Asked(version=self.version, policy=MonitorPolicy(**policy), since=since, labels=labels)
        step = monitor_step(self.settings, asked)
        report = read_report(self.store, execute(self.store, step, {}, Progress("monitor"))["report"])
        tell(self.settings, self.version, report)
        return report


def write_labels(path: Path, labels: dict[str, bool]) -> Path:
    path.write_text("id,busy\n" + "".join(f"{name},{label}\n" for name, label in labels.items()))
    return path
