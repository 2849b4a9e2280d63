"""MLflow and Prefect on PostgreSQL, which goes away and comes back in the middle of their work."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from infra import tracking
from infra.errors import SlipwayError
from infra.settings import Settings
from tests.services.postgres import Postgres

FACTS: dict[str, Any] = {
    "parameters": {"seed": 0},
    "tags": {"slipway.author": "ada"},
    "dataset": {"name": "reviews", "digest": "0" * 64, "counts": {"train": 3}},
}


@pytest.fixture
def settings(tmp_path: Path, postgres: Postgres) -> Settings:
    database = f"mlflow_{time.monotonic_ns()}"
    return Settings(workspace=str(tmp_path), tracking_uri=postgres.create(database))


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


def test_a_password_is_in_no_message(settings: Settings, postgres: Postgres) -> None:
    from tests.services.postgres import PASSWORD

    wrong = Settings(workspace=settings.workspace, tracking_uri=str(postgres.create(f"w{time.monotonic_ns()}")) + "x")
    began = time.monotonic()
    with pytest.raises(SlipwayError, match="does not exist") as told:
        tracking.package_files(wrong, "models:/none/1")
    assert time.monotonic() - began < 60, "an address that never answered is not waited for"
    assert PASSWORD not in str(told.value) and "\n" not in str(told.value)
