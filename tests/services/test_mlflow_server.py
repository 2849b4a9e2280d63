"""MLflow over HTTP, on PostgreSQL, its artifacts in S3: what is lost on the way is made once, and found again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import tracking
from infra.settings import Settings
from infra.store import S3Store
from tests.services.fault_proxy import FaultProxy
from tests.services.postgres import Postgres
from tests.services.servers import mlflow_server, unused_port
from tests.services.test_postgres import FACTS

FILES = {
    "loader": "training.recipes.text_classifier:load_predictor",
    "input_columns": ["text"],
    "outputs": [("label", "string")],
    "input_example": [{"text": "a kind word"}],
}


class LosesAnswers:
    """A plan for the proxy: the first request of each kind is done, and its answer lost."""

    def __init__(self) -> None:
        self.lost: list[str] = []

    def __call__(self, method: str, path: str) -> str:
        path = path.partition("?")[0]
        if method == "GET" or path in self.lost:
            return ""
        self.lost.append(path)
        return "answer lost"


@pytest.fixture
def served(
    tmp_path: Path, postgres: Postgres, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Settings, LosesAnswers]]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # as `quiet_environment` sets it
    port, plan = unused_port(), LosesAnswers()
    database = postgres.create(f"mlflow_{port}")
    with (
        mlflow_server(tmp_path, port, database, f"s3://{s3_store.bucket}/mlflow") as server,
        FaultProxy(f"http://127.0.0.1:{port}", plan) as proxy,
    ):
        assert server.answers()
        yield Settings(workspace=str(tmp_path), tracking_uri=proxy.address), plan


@pytest.mark.slow
def test_every_first_answer_is_lost_and_yet_there_is_one_run_one_package_one_version(
    served: tuple[Settings, LosesAnswers], s3_store: S3Store, tmp_path: Path
) -> None:
    import mlflow

    settings, plan = served
    run = tracking.open_run(settings, "reviews", "reviews-1", FACTS)
    tracking.log_points(settings, run, [(step, {"loss": 1 / step}, float(step)) for step in range(1, 2501)], {})
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"weights")
    first = tracking.log_package(settings, run, tmp_path / "model", FILES, "reviews")
    assert tracking.log_package(settings, run, tmp_path / "model", FILES, "reviews") == first
    tracking.set_alias(settings, "reviews", first[2], "champion", "why", {"entry": "1"})
    (tmp_path / "card.md").write_text("# Reviews")
    tracking.log_card(settings, run, tmp_path / "card.md")

    for call in ("runs/create", "runs/log-batch", "model-versions/create", "logged-models"):
        assert any(path.endswith(call) for path in plan.lost), f"{call} was tried: {plan.lost}"
    client = mlflow.MlflowClient(settings.mlflow_uri)
    experiment = tracking.experiment_id(settings, "reviews")
    assert [one.info.run_id for one in client.search_runs([experiment])] == [run]
    (version,) = client.search_model_versions("name = 'reviews'")
    assert (version.source, version.version) == (first[0], first[2])
    history = tracking.metric_history(settings, "reviews", "reviews-1", "loss")[run]
    assert [step for step, _ in history] == list(range(1, 2501))
    folder = tracking.package_files(settings, "models:/reviews@champion")
    assert (folder / "data" / "package" / "weights").read_bytes() == b"weights"
    kept = [item["Key"] for item in s3_store.client.list_objects_v2(Bucket=s3_store.bucket)["Contents"]]
    assert any(key.startswith("mlflow/") and key.endswith("data/package/weights") for key in kept)


@pytest.mark.slow
def test_two_workspaces_with_a_run_of_the_same_name_have_a_run_each(served: tuple[Settings, LosesAnswers]) -> None:
    one, _ = served
    other = Settings(workspace=f"{one.workspace}/other", tracking_uri=one.tracking_uri)
    runs = [tracking.open_run(settings, "shared", "shared-1", FACTS) for settings in (one, other, one)]
    assert runs[0] == runs[2] != runs[1]
    tracking.log_points(other, runs[1], [(1, {"loss": 0.5}, 1.0)], {})
    assert tracking.metric_history(one, "shared", "shared-1", "loss") == {runs[0]: []}
