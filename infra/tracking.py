"""MLflow, behind one door: runs, metrics, packages, registry aliases.

A package is an MLflow pyfunc model of the "loader module" kind: this module's `_load_pyfunc` is its loader, and the
folder it is given says in `package.json` which function of a recipe opens the model. Nothing is pickled. The four
packages' code travels inside (`code_paths`), so the package answers where Slipway is not installed, and the right code
wins where the current folder holds a `training/` of its own.
"""

import json
import logging
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from infra import reach
from infra.digests import digest, digest_file
from infra.errors import SlipwayError, WrongInput
from infra.patience import patiently
from infra.settings import Settings

FORMAT = 1
PACKAGES = ("flows", "training", "data_contracts", "infra")
REQUIREMENTS = ("mlflow", "numpy", "pydantic", "pyarrow", "PyYAML")
"""What every packaged model needs beside the code it carries; written with the versions installed here."""
LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors")
"""What a model needs whose files were written before they said so."""


P = ParamSpec("P")
T = TypeVar("T")
LOGGER = logging.getLogger(__name__)
TRIES = 5
_reached: set[str] = set()
"""Tracking addresses that have answered this process."""


class Away(SlipwayError):
    """The tracking server, or what it stands on, did not do what it may do the next time."""


def _client(settings: Settings) -> Any:
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)  # a new database announces every migration
    mlflow.set_tracking_uri(settings.mlflow_uri)
    return mlflow.MlflowClient(settings.mlflow_uri)


def _wrapped(settings: Settings, error: Exception) -> SlipwayError:
    from mlflow.exceptions import MlflowException

    if isinstance(error, ModuleNotFoundError):
        return WrongInput(
            f"tracking_uri '{settings.mlflow_shown}': the database's driver is not installed ({error}); "
            "pip install 'slipway[postgres]', or set SLIPWAY_TRACKING_URI to a server's address"
        )
    # MLflow calls it a bad request when a database connection broke in a way of its own.
    no = isinstance(error, MlflowException) and error.error_code != "BAD_REQUEST" and error.get_http_status_code() < 500
    return (SlipwayError if no else Away)(f"tracking {settings.mlflow_shown}: {error}")


def _of_a_service(error: Exception) -> bool:
    """Whether MLflow, its database, its server or its artifact store is what failed."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(error, ModuleNotFoundError):
        return error.name in ("psycopg2", "MySQLdb", "pymysql")
    # The errors of `requests` are OSErrors; those of S3, where MLflow keeps artifacts there, pass through it.
    return isinstance(error, MlflowException | SQLAlchemyError | OSError) or type(error).__module__.startswith("boto")


@contextmanager
def _asking(settings: Settings) -> Iterator[Any]:
    """The client; whatever keeps it from answering is a SlipwayError."""
    if settings.mlflow_uri not in _reached:
        knock(settings)  # MLflow itself tries a database that is not there for two minutes
    try:
        yield _client(settings)
    except Exception as error:
        if not _of_a_service(error):
            raise
        raise _wrapped(settings, error) from error
    _reached.add(settings.mlflow_uri)


def _waited_for(ask: Callable[Concatenate[Settings, P], T]) -> Callable[Concatenate[Settings, P], T]:
    """Asked again where the server went away. One that never answered this process is not waited for: then its address
    is more likely to be wrong. What may be asked twice with the result of once can be decorated so.
    """

    @wraps(ask)
    def asked(settings: Settings, /, *args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(TRIES - 1):
            try:
                return ask(settings, *args, **kwargs)
            except Away:
                if settings.mlflow_uri not in _reached:
                    raise
            _await(settings)
        return ask(settings, *args, **kwargs)

    return asked


def _await(settings: Settings) -> None:
    said: list[str] = []

    def say(why: str) -> None:
        if not said:
            LOGGER.warning(why)
        said.append(why)

    patiently(lambda: probe(settings), say)


def experiment_id(settings: Settings, name: str) -> str:
    from mlflow.exceptions import MlflowException

    with _asking(settings) as client:
        found = client.get_experiment_by_name(name)
        # A server elsewhere could not read this machine's workspace: without a setting the place is its to choose.
        place = None if settings.tracks_to_server and not settings.artifacts else settings.artifact_uri
        try:
            return found.experiment_id if found else client.create_experiment(name, place)
        except MlflowException:
            found = client.get_experiment_by_name(name)  # made by another process between the two calls
            if not found:
                raise
            return found.experiment_id


RUN_TAG = "slipway.run"
"""The tag of an MLflow run that names the run whose log it shows; there from its first moment."""
STORE_TAG = "slipway.store"
"""The tag that names the object store with that log: two workspaces on one server may have runs of the same name."""
MAKER_TAG = "slipway.made_by"
"""The tag of an MLflow run that tells the call that made it from all others."""


def _of_run(settings: Settings, name: str) -> str:
    """What MLflow is asked for to find the runs made for the run of that name."""
    return f"tags.`{RUN_TAG}` = '{name}' and tags.`{STORE_TAG}` = '{settings.store_uri}'"


def open_run(settings: Settings, experiment: str, name: str, facts: dict[str, Any]) -> str:
    """The first MLflow run made for the run of that name, or a new one; with parameters, tags and dataset.

    facts: {"parameters", "tags", "dataset": {name, digest, counts}}.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    with _asking(settings) as client:
        place = experiment_id(settings, experiment)
        found = client.search_runs([place], _of_run(settings, name), order_by=["attributes.start_time"])
        if found:
            run_id = found[0].info.run_id
        else:
            nonce = secrets.token_hex(8)
            tags = {RUN_TAG: name, STORE_TAG: settings.store_uri, MAKER_TAG: nonce}
            tags |= {key: str(value)[:5000] for key, value in facts["tags"].items()}
            run_id = client.create_run(place, run_name=name, tags=tags).info.run_id
            # MLflow sends a request again whose answer was lost, and then has made two runs.
            for twin in client.search_runs([place], f"tags.`{MAKER_TAG}` = '{nonce}'"):
                if twin.info.run_id != run_id:
                    client.delete_run(twin.info.run_id)
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
        runs = client.search_runs([experiment_id(settings, experiment)], _of_run(settings, name))
        found = {}
        for run in runs:
            history = client.get_metric_history(run.info.run_id, metric)
            found[run.info.run_id] = sorted((point.step, point.value) for point in history)
        return found


def end_run(settings: Settings, run_id: str, status: str) -> None:
    with _asking(settings) as client:
        client.set_terminated(run_id, status)


@_waited_for
def log_package(
    settings: Settings, run_id: str, model_folder: Path, files: dict[str, Any], title: str
) -> tuple[str, str, str]:
    """Package a model folder into its run and the registry. files: a `ModelFiles` as a dict.

    Returns (address, digest of the files written, registry version). The same run and files are packaged once.
    """
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory(prefix="slipway-") as scratch, _asking(settings) as client:
        package = Path(scratch) / "package"
        shutil.copytree(model_folder, package, ignore=shutil.ignore_patterns("manifest.json"))
        body = {"format": FORMAT, "loader": files["loader"], "outputs": [name for name, _ in files["outputs"]]}
        (package / "package.json").write_text(json.dumps(body, indent=1), encoding="utf-8")
        listing = {
            path.relative_to(package).as_posix(): digest_file(path) for path in package.rglob("*") if path.is_file()
        }
        tag = {"package_digest": digest(listing)}
        logged = _logged_model(client, run_id, tag) or _log_model(
            client, run_id, package, Path(scratch) / "code", files, tag
        )
        try:
            client.create_registered_model(title)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        if not _versions_of(client, title, logged):
            client.create_model_version(title, logged, run_id, tags=tag, model_id=logged.rpartition("/")[2])
        first, *twins = _versions_of(client, title, logged)  # two where an answer was lost and MLflow asked again
        for twin in twins:
            try:
                client.delete_model_version(title, twin)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # this answer too may be lost, and it is asked again
                    raise
        return logged, tag["package_digest"], first


def _logged_model(client: Any, run_id: str, tag: dict[str, str]) -> str:
    """The address of a whole package of these files that the run already has; "" without one."""
    experiment = client.get_run(run_id).info.experiment_id
    for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        if model.status == "READY" and tag.items() <= model.tags.items():
            return model.model_uri
    return ""


def _log_model(client: Any, run_id: str, package: Path, code: Path, files: dict[str, Any], tag: dict[str, str]) -> str:
    """Returns the new package's address."""
    import mlflow
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    params = files.get("params") or {}
    columns = files["input_columns"]
    kinds = files.get("input_types") or ["string"] * len(columns)
    signature = ModelSignature(
        inputs=Schema(
            [ColSpec(AnyType() if kind == "any" else kind, name) for name, kind in zip(columns, kinds, strict=True)]
        ),
        outputs=Schema([ColSpec(kind, name) for name, kind in files["outputs"]]),
        params=ParamSchema(
            [ParamSpec(name, "double" if isinstance(value, float) else "long", value) for name, value in params.items()]
        )
        if params
        else None,
    )
    for name in PACKAGES:
        source = Path(__file__).parent.parent / name
        shutil.copytree(source, code / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    # What mlflow.pyfunc.log_model calls; that one would need the run made active, and end it once more. The model is
    # made first: without an active run it would be put into MLflow's default experiment.
    run = client.get_run(run_id)
    made = client.create_logged_model(run.info.experiment_id, "model", run_id, tag, run.data.params)
    logged = Model.log(
        None,
        mlflow.pyfunc,
        name="model",
        run_id=run_id,
        model_id=made.model_id,
        loader_module="infra.tracking",
        data_path=str(package),
        code_paths=[str(code / name) for name in PACKAGES],
        signature=signature,
        input_example=_frame(list(files["input_example"])),
        pip_requirements=_requirements([*REQUIREMENTS, *files.get("libraries", LIBRARIES)]),
    )
    return logged.model_uri


def _versions_of(client: Any, title: str, address: str) -> list[str]:
    """The registry's versions of a package, the oldest first."""
    found = client.search_model_versions(f"name = '{title}'")
    return sorted((str(one.version) for one in found if one.source == address), key=int)


def log_card(settings: Settings, run_id: str, card: Path) -> None:
    """Put a model card beside the model that the run made; the newest stands."""
    log_files(settings, run_id, [card], "model_card")


@_waited_for
def log_files(settings: Settings, run_id: str, files: Iterable[Path], place: str) -> None:
    """Put files into a folder of the run's artifacts, over what has their names; nothing where MLflow lacks the run."""
    if run_id:
        with _asking(settings) as client:
            for path in files:
                client.log_artifact(run_id, str(path), place)


@_waited_for
def set_alias(
    settings: Settings, name: str, version: str, alias: str, description: str, tags: Mapping[str, str]
) -> None:
    """Point an alias of a registered model at a version, and say at that version why."""
    with _asking(settings) as client:
        client.update_model_version(name, version, description)
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, value)
        client.set_registered_model_alias(name, alias, version)


@_waited_for
def package_files(settings: Settings, address: str) -> Path:
    """The local folder of a package's files, downloaded if they are elsewhere."""
    import mlflow

    with _asking(settings):
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=address))


def knock(settings: Settings) -> None:
    """Raises WrongInput where nobody answers at the tracking address, or a database there refuses us; in seconds."""
    reach.knock_database("tracking_uri", settings.tracking_uri)
    if settings.tracks_to_server:
        usual = 443 if settings.mlflow_uri.startswith("https") else 80
        reach.knock("tracking_uri", settings.mlflow_shown, settings.mlflow_uri, usual)


def probe(settings: Settings) -> str:
    """Reach the tracking store; what was found, in a few words. Raises SlipwayError."""
    started = time.monotonic()
    with _asking(settings) as client:
        found = client.search_experiments(max_results=1)
    return f"{'has experiments' if found else 'empty'}, answered in {time.monotonic() - started:.1f} s"


def _requirements(names: list[str]) -> list[str]:
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in names]


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
        answers = self.predictor(model_input.to_dict("records"), **(params or {}))
        return _frame([{name: answer[name] for name in self.outputs} for answer in answers])
