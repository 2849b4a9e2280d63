"""MLflow and Prefect on PostgreSQL, which goes away and comes back in the middle of their work."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from infra import tracking
from infra.errors import SlipwayError, WrongInput
from infra.settings import Settings
from tests.services.postgres import PASSWORD, USER, Postgres
from tests.services.servers import unused_port

FACTS: dict[str, Any] = {
    "parameters": {"seed": 0},
    "tags": {"slipway.author": "ada"},
    "dataset": {"name": "reviews", "digest": "0" * 64, "counts": {"train": 3}},
}


@pytest.fixture
def settings(tmp_path: Path, postgres: Postgres) -> Settings:
    database = f"mlflow_{time.monotonic_ns()}"
    return Settings(workspace=str(tmp_path), tracking_uri=postgres.create(database))


@pytest.mark.slow
def test_what_has_answered_before_is_waited_for(settings: Settings, postgres: Postgres, tmp_path: Path) -> None:
    run = tracking.open_run(settings, "reviews", "reviews-1", FACTS)
    tracking.log_points(settings, run, [(1, {"loss": 0.5}, 1.0)], {})
    (tmp_path / "card.md").write_text("# Reviews")
    postgres.stop()
    with pytest.raises(SlipwayError, match="tracking postgresql"):
        tracking.log_points(settings, run, [(2, {"loss": 0.4}, 2.0)], {})  # the projection asks again by itself
    back = threading.Timer(3, postgres.start)
    back.start()
    tracking.log_card(settings, run, tmp_path / "card.md")
    back.join()
    tracking.log_points(settings, run, [(1, {"loss": 0.5}, 1.0), (2, {"loss": 0.4}, 2.0)], {})
    assert tracking.metric_history(settings, "reviews", "reviews-1", "loss") == {run: [(1, 0.5), (2, 0.4)]}


def test_a_database_that_refuses_or_is_not_there_is_one_line_at_once_and_without_the_password(
    tmp_path: Path, postgres: Postgres
) -> None:
    address = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{postgres.port}/postgres"
    nobody = address.replace(str(postgres.port), str(unused_port()))
    began = time.monotonic()
    for uri, said in (
        (f"{address}x", "does not exist"),
        (address.replace(f"{USER}:", "eve:"), "password authentication failed"),
        (nobody, "no answer"),
    ):
        wrong = Settings(workspace=str(tmp_path), tracking_uri=uri)
        with pytest.raises(WrongInput, match=said) as told:
            tracking.package_files(wrong, "models:/none/1")
        assert PASSWORD not in str(told.value) and "\n" not in str(told.value)
        assert "SLIPWAY_TRACKING_URI" in str(told.value)
    assert time.monotonic() - began < 60, "MLflow itself would try for two minutes each"
