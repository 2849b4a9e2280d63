"""MLflow, behind one door: runs, metrics, packages, registry aliases.

A package is an MLflow pyfunc model of the "loader module" kind: this module's `_load_pyfunc` is its loader, and the
folder it is given says in `package.json` which function of a recipe opens the model. Nothing is pickled. The four
packages' code travels inside (`code_paths`), so the package answers where Slipway is not installed, and the right code
wins where the current folder holds a `training/` of its own.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.digests import digest, digest_file
from infra.errors import SlipwayError
from infra.settings import Settings

FORMAT = 1
PACKAGES = ("flows", "training", "data_contracts", "infra")
REQUIREMENTS = (
    "mlflow",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "pydantic",
    "pyarrow",
    "PyYAML",
)
"""What a packaged model needs beside the code it carries; written with the versions installed here."""


def _client(settings: Settings) -> Any:
    import logging

    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)  # a new database announces every migration
    mlflow.set_tracking_uri(settings.mlflow_uri)
    return mlflow.MlflowClient(settings.mlflow_uri)


def _wrapped(settings: Settings, error: Exception) -> SlipwayError:
    return SlipwayError(f"tracking {settings.mlflow_uri}: {error}")


@contextmanager
def _asking(settings: Settings) -> Iterator[Any]:
    """The client; whatever keeps it from answering is a SlipwayError."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield _client(settings)
    except (MlflowException, SQLAlchemyError, OSError) as error:  # the errors of `requests` are OSErrors
        raise _wrapped(settings, error) from error


def experiment_id(settings: Settings, name: str) -> str:
    from mlflow.exceptions import MlflowException

    with _asking(settings) as client:
        found = client.get_experiment_by_name(name)
        try:
            return found.experiment_id if found else client.create_experiment(name, settings.artifact_uri)
        except MlflowException:
            found = client.get_experiment_by_name(name)  # made by another process between the two calls
            if not found:
                raise
            return found.experiment_id


RUN_TAG = "slipway.run"
"""The tag of an MLflow run that names the run whose log it shows; there from its first moment."""


def open_run(settings: Settings, experiment: str, name: str, facts: dict[str, Any]) -> str:
    """The first MLflow run made for the run of that name, or a new one; with parameters, tags and dataset.

    facts: {"parameters", "tags", "dataset": {name, digest, counts}}.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    with _asking(settings) as client:
        place = experiment_id(settings, experiment)
        found = client.search_runs([place], f"tags.`{RUN_TAG}` = '{name}'", order_by=["attributes.start_time"])
        if found:
            run_id = found[0].info.run_id
        else:
            tags = {RUN_TAG: name, **{key: str(value)[:5000] for key, value in facts["tags"].items()}}
            run_id = client.create_run(place, run_name=name, tags=tags).info.run_id
        # Said again for one that was found: its maker may have died before this. MLflow keeps one of each.
        client.log_batch(run_id, params=[Param(key, str(value)[:6000]) for key, value in facts["parameters"].items()])
        data = facts["dataset"]
        dataset = Dataset(
            name=data["name"],
            digest=data["digest"][:36],  # MLflow's column is this wide
            source_type="slipway",
            source=json.dumps({"ref": f"{data['name']}@{data['digest']}", "store": settings.store_uri}),
            profile=json.dumps(data["counts"]),
        )
        client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
        return run_id


def delete_run(settings: Settings, run_id: str) -> None:
    with _asking(settings) as client:
        client.delete_run(run_id)


def run_tags(settings: Settings, run_id: str) -> dict[str, str]:
    with _asking(settings) as client:
        return dict(client.get_run(run_id).data.tags)


def log_points(
    settings: Settings, run_id: str, points: list[tuple[int, dict[str, float], float]], tags: dict[str, str]
) -> None:
    """Metrics with their own times, in batches of 1,000, MLflow's limit; then the tags.

    points: (step, {name: value}, unix seconds).
    """
    from mlflow.entities import Metric, RunTag

    metrics = [
        Metric(name, value, int(when * 1000), step) for step, values, when in points for name, value in values.items()
    ]
    with _asking(settings) as client:
        for begin in range(0, len(metrics), 1000):
            client.log_batch(run_id, metrics=metrics[begin : begin + 1000])
        client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def metric_history(settings: Settings, experiment: str, name: str, metric: str) -> dict[str, list[tuple[int, float]]]:
    """MLflow run id -> every (step, value) it holds of a metric, of each run made for the run of that name."""
    with _asking(settings) as client:
        runs = client.search_runs([experiment_id(settings, experiment)], f"tags.`{RUN_TAG}` = '{name}'")
        found = {}
        for run in runs:
            history = client.get_metric_history(run.info.run_id, metric)
            found[run.info.run_id] = sorted((point.step, point.value) for point in history)
        return found


def end_run(settings: Settings, run_id: str, status: str) -> None:
    with _asking(settings) as client:
        client.set_terminated(run_id, status)


def log_package(
    settings: Settings, run_id: str, model_folder: Path, files: dict[str, Any], title: str
) -> tuple[str, str, str]:
    """Package a model folder into its run and the registry. files: a `ModelFiles` as a dict.

    Returns (address, digest of the files written, registry version). The same run and files are packaged once.
    """
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    client = _client(settings)
    signature = ModelSignature(
        inputs=Schema([ColSpec("string", name) for name in files["input_columns"]]),
        outputs=Schema([ColSpec(kind, name) for name, kind in files["outputs"]]),
    )
    with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
        package = Path(scratch) / "package"
        shutil.copytree(model_folder, package, ignore=shutil.ignore_patterns("manifest.json"))
        body = {"format": FORMAT, "loader": files["loader"], "outputs": [name for name, _ in files["outputs"]]}
        (package / "package.json").write_text(json.dumps(body, indent=1), encoding="utf-8")
        listing = {
            path.relative_to(package).as_posix(): digest_file(path) for path in package.rglob("*") if path.is_file()
        }
        package_digest = digest(listing)
        code = Path(scratch) / "code"
        for name in PACKAGES:
            source = Path(__file__).parent.parent / name
            shutil.copytree(source, code / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        with mlflow.start_run(run_id=run_id):
            logged = mlflow.pyfunc.log_model(
                name="model",
                loader_module="infra.tracking",
                data_path=str(package),
                code_paths=[str(code / name) for name in PACKAGES],
                signature=signature,
                input_example=_frame(list(files["input_example"])),
                pip_requirements=_requirements(),
            )
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(title)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise _wrapped(settings, error) from error
    version = client.create_model_version(title, logged.model_uri, run_id, tags={"package_digest": package_digest})
    return logged.model_uri, package_digest, str(version.version)


def log_card(settings: Settings, run_id: str, card: Path) -> None:
    """Put a model card beside the model that the run made; the newest stands. Nothing for a run that MLflow lacks."""
    if run_id:
        with _asking(settings) as client:
            client.log_artifact(run_id, str(card), "model_card")


def set_alias(
    settings: Settings, name: str, version: str, alias: str, description: str, tags: Mapping[str, str]
) -> None:
    """Point an alias of a registered model at a version, and say at that version why."""
    from mlflow.exceptions import MlflowException

    try:
        client = _client(settings)
        client.update_model_version(name, version, description)
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, value)
        client.set_registered_model_alias(name, alias, version)
    except MlflowException as error:
        raise _wrapped(settings, error) from error


def package_files(settings: Settings, address: str) -> Path:
    """The local folder of a package's files, downloaded if they are elsewhere."""
    import mlflow

    _client(settings)
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=address))


def probe(settings: Settings) -> str:
    """Reach the tracking store; what was found, in a few words. Raises SlipwayError."""
    started = time.monotonic()
    try:
        found = _client(settings).search_experiments(max_results=1)
    except Exception as error:
        raise _wrapped(settings, error) from error
    return f"{'has experiments' if found else 'empty'}, answered in {time.monotonic() - started:.1f} s"


def _requirements() -> list[str]:
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in REQUIREMENTS]


def _frame(rows: list[dict[str, Any]]) -> Any:
    import pandas

    return pandas.DataFrame(rows)


def _load_pyfunc(path: str) -> "PackagedModel":
    """MLflow's entry to a package: called with its data folder."""
    return PackagedModel(Path(path))


class PackagedModel:
    """Answers a DataFrame of inputs with a DataFrame of the declared outputs."""

    def __init__(self, folder: Path):
        from importlib import import_module

        body = json.loads((folder / "package.json").read_text(encoding="utf-8"))
        module, _, function = body["loader"].partition(":")
        self.outputs = body["outputs"]
        self.predictor = getattr(import_module(module), function)(folder)

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        answers = self.predictor(model_input.to_dict("records"))
        return _frame([{name: answer[name] for name in self.outputs} for answer in answers])
