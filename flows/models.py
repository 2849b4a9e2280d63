"""Model versions: which finished run, on which data, became version N of a model.

`registry/<name>/<sequence>.json`, created if absent, one entry a version. MLflow's registry mirrors it; this
listing is the truth, because creating a version in MLflow is a read and a write that cannot arbitrate a race.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

from infra.artifacts import check_format
from infra.store import Store
from training.run_log import RunLog

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    name: str
    version: int
    """1, 2, 3 ... in the order in which runs finished."""
    run: str
    experiment: dict[str, Any]
    """The whole experiment as it was resolved for the run."""
    model: str
    """Digest of the artifact of kind `models`: weights, configuration, tokenizer."""
    package: str
    """MLflow model address that `mlflow.pyfunc.load_model` opens."""
    package_digest: str
    """Digest of the packaged files that Slipway wrote into it (MLflow's own MLmodel holds times and is left out)."""
    dataset: str
    """`name@digest` of the dataset version trained on, the digest in full."""
    author: str
    created: str
    """ISO 8601, UTC."""
    mlflow_version: str = ""
    """The version's number in MLflow's registry, for its alias."""

    @property
    def ref(self) -> str:
        return f"{self.name}/{self.version}"


def versions(store: Store, name: str) -> list[ModelVersion]:
    """All versions of a model, oldest first."""
    found = []
    for key in store.list(f"registry/{name}/"):
        body = json.loads(store.get(key))
        check_format(body, FORMAT, key)
        found.append(ModelVersion(**body["version"]))
    return found


def names(store: Store) -> list[str]:
    return sorted({key.split("/")[1] for key in store.list("registry/")})


def add_version(store: Store, **fields: Any) -> ModelVersion:
    """Append a version; of two that finish together each gets its own number. The same run is one version."""
    while True:
        existing = versions(store, fields["name"])
        for version in existing:
            if version.run == fields["run"] and version.model == fields["model"]:
                return version
        version = ModelVersion(version=len(existing) + 1, **fields)
        key = f"registry/{version.name}/{version.version:012d}.json"
        body = {"format": FORMAT, "version": asdict(version)}
        if store.create(key, json.dumps(body, indent=1, sort_keys=True).encode()):
            return version


def run_author(store: Store, version: ModelVersion) -> tuple[str, str]:
    """Name and public key of the author in the first entry of the version's run; "" for what it does not name."""
    first = next((entry for entry in RunLog(store, version.run).entries() if entry["kind"] == "run"), {})
    return str(first.get("author", "")), str(first.get("author_key", ""))
