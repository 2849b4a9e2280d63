"""kill -9 at each step of a promotion: the champion is the old or the new; the next command mends MLflow's alias."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import references
from flows.promote import promote_version
from flows.promotion import log as promotion_log
from flows.promotion.alias import mirror
from flows.promotion.verify import verify
from infra import tracking
from infra.settings import Settings
from infra.store import Store
from tests.flows.reviewers import Case, Court

ROOT = str(Path(__file__).parents[2])
CHANGES = ("put", "create", "delete", "upload", "set_alias")


class Mortal:
    """A store of which operation number `last` is the one that this process does not come to: it is killed before."""

    def __init__(self, store: Store, last: int | None):
        self.store, self.last, self.done = store, last, []  # type: ignore[var-annotated]

    def step(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            if len(self.done) == self.last:
                os.kill(os.getpid(), signal.SIGKILL)
            self.done.append(name)
            return call(*arguments, **named)

        return counted

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.store, name)
        return self.step(name, found) if callable(found) else found


def settings_of(folder: Path) -> Settings:
    return Settings(workspace=str(folder / "workspace"), store=str(folder / "store"), author="mel",
                    tracking_uri=f"sqlite:///{folder}/mlflow.db", artifacts=str(folder / "artifacts"))  # fmt: skip


def promote_and_die(folder: str, number: int, card: str, last: int | None) -> None:
    """In a process of its own: the whole of a promotion, alias included. Without `last`, writes down its operations."""
    settings = settings_of(Path(folder))
    mortal = Mortal(settings.object_store, last)
    settings.__dict__["object_store"] = mortal
    tracking.set_alias = mortal.step("set_alias", tracking.set_alias)
    promote_version(settings, references.resolve(settings.object_store, f"animals/{number}"), card)
    (Path(folder) / "operations.json").write_text(json.dumps(mortal.done))


@pytest.fixture
def reigned(world: Any, tmp_path: Path) -> tuple[Path, Case]:
    """A folder with a store and MLflow's registry in which version 1 is champion; and a candidate."""
    import mlflow

    court = Court(world, tmp_path)
    first, second = court.version(key=False), court.version(key=False)
    settings = settings_of(world.folder)
    settings.folder.mkdir(exist_ok=True)
    client = mlflow.MlflowClient(settings.mlflow_uri)
    client.create_registered_model("animals")
    for version in (first, second):
        client.create_model_version("animals", version.package)
    promote_version(settings, first, court.score(first).card)
    return world.folder, court.score(second)


def alias(settings: Settings) -> int:
    import mlflow

    client = mlflow.MlflowClient(settings.mlflow_uri)
    return int(client.get_model_version_by_alias("animals", "champion").version)


def told(settings: Settings) -> tuple[int, str]:
    """The log entry and scorecard that MLflow names at the champion."""
    import mlflow

    version = mlflow.MlflowClient(settings.mlflow_uri).get_model_version_by_alias("animals", "champion")
    assert f"(log entry {version.tags['slipway.entry']}, " in (version.description or "")
    return int(version.tags["slipway.entry"]), version.tags["slipway.scorecard"]


def run(folder: Path, case: Case, last: int | None) -> int | None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow", "mlflow.store.tracking.sqlalchemy_store", __name__])
    process = context.Process(target=promote_and_die, args=(str(folder), case.version.version, case.card, last))
    sys.path.insert(0, ROOT)  # the child takes this path over, and finds `tests` on it
    try:
        process.start()
    finally:
        sys.path.remove(ROOT)
    process.join(300)
    return process.exitcode


def killed_everywhere(reigned: tuple[Path, Case], tmp_path: Path, everywhere: bool) -> None:
    folder, case = reigned

    def copy(name: str) -> Path:
        place = tmp_path / "killed" / name
        for part in ("store", "mlflow.db"):
            source = folder / part
            place.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, place / part)
        return place

    whole = copy("whole")
    assert run(whole, case, None) == 0
    operations = json.loads((whole / "operations.json").read_text())
    assert [name for name in operations if name in CHANGES] == ["create", "put", "set_alias", "put", "delete"]
    changes = {number for number, name in enumerate(operations) if name in CHANGES}
    champions = []
    for last in range(len(operations)):
        if not everywhere and not {last, last - 1} & changes:
            continue
        place = copy(str(last))
        assert run(place, case, last) == -signal.SIGKILL
        settings = settings_of(place)
        store = settings.object_store
        champion = promotion_log.champion(store, "animals")
        assert champion and champion.version in (1, 2)
        mirror(store, settings, "animals")  # as the next command does
        assert alias(settings) == champion.version
        assert told(settings) == (champion.sequence, champion.scorecard)
        assert list(store.list("promotions/animals/mirroring/")) == []
        assert verify(store, "animals", settings) == []
        assert promote_version(settings, case.version, case.card).entry.version == alias(settings) == 2
        champions.append(champion.version)
        shutil.rmtree(place)
    assert champions == sorted(champions) and set(champions) == {1, 2}


def test_killed_around_each_change_of_a_promotion_there_is_one_champion_and_the_alias_is_mended(reigned, tmp_path):
    killed_everywhere(reigned, tmp_path, everywhere=False)


@pytest.mark.slow
def test_killed_at_every_step_of_a_promotion_there_is_one_champion_and_the_alias_is_mended(reigned, tmp_path):
    killed_everywhere(reigned, tmp_path, everywhere=True)


def test_a_slow_writer_killed_after_it_put_an_older_alias_over_a_newer_is_mended(reigned, monkeypatch):
    """It read that version 1 is champion, announced itself, slept while version 2 was promoted and mirrored, set the
    alias of version 1, and was killed before it could look again."""
    folder, case = reigned
    settings = settings_of(folder)
    store = settings.object_store
    set_alias = tracking.set_alias
    store.delete("promotions/animals/mirrored.json")  # so that there is something to mirror

    class Killed(BaseException):
        pass

    def slow(*arguments: Any) -> None:
        monkeypatch.setattr(tracking, "set_alias", set_alias)
        promote_version(settings, case.version, case.card)
        assert alias(settings) == 2
        set_alias(*arguments)
        raise Killed

    monkeypatch.setattr(tracking, "set_alias", slow)
    with pytest.raises(Killed):
        mirror(store, settings, "animals")
    assert alias(settings) == 1, "the window is open"
    assert mirror(store, settings, "animals")
    assert alias(settings) == 2
