"""What `slipway gc` removes, and all that it must not: what champions, candidates, tags, runs and `verify` need."""

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from data_contracts import registry, tags
from data_contracts.withdrawal import withdraw
from flows import references
from flows.cli import cli
from flows.garbage import DAY, Garbage, find, remove
from flows.judging.evidence import Evidence, find_champion
from flows.promotion import decisions as promotion
from flows.promotion.verify import verify
from flows.steps import Step, execute, refresh
from infra import artifacts
from infra.digests import digest
from infra.errors import Refused, SlipwayError
from infra.progress import Progress
from infra.store import FolderStore, Store
from tests.flows.conftest import World
from training.run_log import RunLog


def age(store: FolderStore, days: float = 30) -> None:
    """Make every object that old, and every entry of a tag."""
    then = time.time() - days * DAY
    for key in store.list("datasets/"):
        if "/refs/" in key:
            moment = datetime.fromtimestamp(then, UTC).isoformat(timespec="seconds")
            store.put(key, json.dumps({**json.loads(store.get(key)), "time": moment}).encode())
    for path in store.folder.rglob("*"):
        os.utime(path, (then, then))


def collect(store: Store, grace: float = 7) -> list[Garbage]:
    return remove(store, find(store, grace), grace, "ann")


def names(found: list[Garbage], kind: str = "") -> set[str]:
    return {one.name for one in found if kind in ("", one.kind)}


def folder_of(world: World, dataset: str) -> str:
    return "datasets/" + world.references[dataset].replace("@", "/")


@pytest.fixture
def history(world: World) -> dict[str, Any]:
    """Two champions, a candidate turned down between them, one that is open; `other` trained nobody, `named` is tagged,
    and `latest` is what was registered last."""
    first = world.promote(world.candidate(dataset="old"))
    refused = world.candidate(0.3, dataset="grown")
    card = world.scorecard(refused, champion=find_champion(world.store, "animals"))
    version = references.resolve(world.store, refused.ref)
    promotion.reject(world.store, version, card, author="ann", reason="worse")
    second = world.promote(world.candidate(0.95, dataset="grown"))
    opened = world.candidate(0.96, dataset="drifted")
    tags.tag(world.store, world.references["named"], "production", "ann")
    tags.tag(world.store, world.references["named"], "latest", "ann")
    assert isinstance(world.store, FolderStore)
    age(world.store)
    return {"first": first, "refused": refused, "second": second, "open": opened, "rejection": card}


def test_champions_of_all_times_and_all_that_verify_looks_at_survive(world: World, history: dict[str, Any]) -> None:
    assert verify(world.store, "animals") == []
    removed = collect(world.store)
    assert removed and verify(world.store, "animals") == []
    for subject in (history["first"], history["second"]):
        assert artifacts.is_whole(world.store, "models", subject.model)
        evidence = Evidence(world.store, world.settings)
        assert evidence.evaluation(subject).metrics and evidence.profile(subject)
        assert registry.damage(world.store, world.dataset_of(subject)) is None
    done = promotion.rollback(world.store, "animals", "previous", author="ann", reason="slower")
    assert done.entry.version == history["first"].version


def test_what_was_turned_down_loses_its_weights_and_keeps_its_evidence(world: World, history: dict[str, Any]) -> None:
    removed = collect(world.store)
    refused = history["refused"]
    assert names(removed, "models") == {f"models/{refused.model}"}
    assert artifacts.is_whole(world.store, "scorecards", history["rejection"])
    assert artifacts.is_whole(world.store, "evaluations", refused.evaluation)


def test_an_open_candidate_and_its_data_stay(world: World, history: dict[str, Any]) -> None:
    collect(world.store)
    assert artifacts.is_whole(world.store, "models", history["open"].model)
    assert registry.damage(world.store, world.dataset("drifted")) is None


def test_a_version_goes_that_nobody_trained_on_or_tagged(world: World, history: dict[str, Any]) -> None:
    removed = collect(world.store)
    assert names(removed, "datasets") == {folder_of(world, "other")}
    assert not list(world.store.list(f"{folder_of(world, 'other')}/"))
    assert registry.damage(world.store, world.dataset("named")) is None


def test_listing_removes_nothing_and_nothing_younger_than_the_grace_period_goes(
    world: World, history: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(world.store.list(""))
    monkeypatch.setenv("SLIPWAY_STORE", world.store.uri)
    monkeypatch.setenv("SLIPWAY_WORKSPACE", world.settings.workspace)

    def ask(*arguments: str) -> Any:
        done = CliRunner().invoke(cli, ["gc", "--json", *arguments])
        return json.loads(done.stdout)

    assert folder_of(world, "other") in {one["name"] for one in ask()["garbage"]}
    assert ask("--grace", "31", "--yes")["garbage"] == []
    assert set(world.store.list("")) == before
    assert ask("--yes")["bytes"] > 0
    assert ask("--yes")["garbage"] == [], "once is enough"


def test_what_is_used_again_while_it_is_listed_stays(world: World, history: dict[str, Any], tmp_path: Path) -> None:
    weights = world.folder / f"weights-{history['refused'].version}"
    listed = find(world.store)
    artifacts.commit(world.store, "models", {"weights": weights})  # a training came to the same bits
    registry.refresh(world.store, world.dataset("other"))
    removed = remove(world.store, listed, 7, "ann")
    assert names(removed).isdisjoint({f"models/{history['refused'].model}", folder_of(world, "other")})
    assert artifacts.is_whole(world.store, "models", history["refused"].model)


def result(world: World, kind: str, ingredients: dict[str, Any], output: dict[str, Any]) -> tuple[Step, str]:
    step = Step(kind=kind, subject="animals", ingredients=lambda _: ingredients, run=lambda *_: output,
                damage=lambda _: None)  # fmt: skip
    execute(world.store, step, {}, Progress(""))
    return step, digest(ingredients)


def artifact(world: World, kind: str, text: str) -> str:
    path = world.folder / "file"
    path.write_text(text)
    return artifacts.commit(world.store, kind, {"file": path}).digest


def make_old(world: World) -> None:
    """All objects old, and what step records say of when they ended too."""
    for key in world.store.list("steps/"):
        body = json.loads(world.store.get(key))
        world.store.put(key, json.dumps({**body, "ended": body["ended"] - 30 * DAY, "used": 0}).encode())
    assert isinstance(world.store, FolderStore)
    age(world.store)


def test_the_newest_result_of_a_step_stays_and_older_ones_go_with_their_records(world: World) -> None:
    one, two = artifact(world, "prepared", "one"), artifact(world, "prepared", "two")
    before, before_key = result(world, "prepare", {"vocab": 1}, {"prepared": one})
    _, now_key = result(world, "prepare", {"vocab": 2}, {"prepared": two})
    make_old(world)
    assert {f"prepared/{one}", f"steps/prepare/animals/{before_key}.json"} <= names(find(world.store))
    assert {f"prepared/{two}", f"steps/prepare/animals/{now_key}.json"}.isdisjoint(names(find(world.store)))
    refresh(world.store, before, before_key)  # somebody went back to the old setting
    assert f"prepared/{one}" not in names(find(world.store))


def test_a_run_that_can_go_on_keeps_its_checkpoints_and_what_it_began_with(world: World) -> None:
    prepared = {name: artifact(world, "prepared", name) for name in ("open", "done")}
    for name in prepared:
        log = RunLog(world.store, f"animals-{name}-1")
        log.append("run", prepared=prepared[name], dataset={"digest": world.dataset("other").digest})
        log.append("attempt", 1, from_step=0, host="h", pid=1, checkpoint=None)
        world.store.put(f"runs/{log.run}/checkpoints/1/10/manifest.json", b'{"files": {"a": {"bytes": 7}}}')
    log = RunLog(world.store, "animals-done-1")
    log.append("finished", 1, model="0" * 64, steps=10)
    ended = log.read(log.last_sequence())
    world.store.put(log._key(ended["sequence"]), json.dumps({**ended, "time": ended["time"] - 30 * DAY}).encode())
    make_old(world)
    found = {one.name: one for one in find(world.store)}
    assert found["runs/animals-done-1/checkpoints"].bytes == 7
    assert "runs/animals-open-1/checkpoints" not in found
    assert f"prepared/{prepared['done']}" in found and f"prepared/{prepared['open']}" not in found
    assert folder_of(world, "other") not in found, "the open run was begun on it"
    collect(world.store)
    assert RunLog(world.store, "animals-done-1").read(1), "the log is history, and stays"


def test_rows_of_a_withdrawn_version_go_and_what_was_made_of_them_can_be_explained(
    world: World, history: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = world.dataset("grown")
    made = artifact(world, "prepared", "of grown")
    result(world, "prepare", {"dataset": {"rows": version.rows}}, {"prepared": made})
    withdraw(world.store, version, "ann", "no consent")
    make_old(world)
    assert not names(find(world.store), "rows"), "withdrawn a moment ago"
    (key,) = world.store.list(f"datasets/animals/withdrawn/{version.digest}/")
    entry = {**json.loads(world.store.get(key)), "time": "2026-01-01T00:00:00+00:00"}
    world.store.put(key, json.dumps(entry).encode())
    removed = collect(world.store)
    assert names(removed, "rows") == {folder_of(world, "grown")} and f"prepared/{made}" in names(removed)
    left = [key.rpartition("/")[2].partition("-")[0] for key in world.store.list(f"{folder_of(world, 'grown')}/")]
    assert {"train", "quarantine", "filtered", "repeats"}.isdisjoint(left)
    assert {"manifest.json", "contract", "profile"} <= set(left)
    with pytest.raises(SlipwayError, match=r"was removed on .*: its version was withdrawn by ann on .*: no consent"):
        registry.read_split(world.store, version, "train")
    assert verify(world.store, "animals") == []
    monkeypatch.setenv("SLIPWAY_STORE", world.store.uri)
    monkeypatch.setenv("SLIPWAY_WORKSPACE", world.settings.workspace)
    shown = CliRunner().invoke(cli, ["data", "show", world.references["grown"]])
    assert shown.exit_code == 0 and "its rows were removed by ann on" in shown.stdout
    assert registry.damage(world.store, version) is None
    assert collect(world.store) == []


def test_nothing_is_removed_beside_a_promotion_log_that_is_not_whole(world: World, history: dict[str, Any]) -> None:
    key = promotion.entry_key("animals", 1)
    body = world.store.get(key).replace(b'"author": "mel"', b'"author": "eve"')
    world.store.put(key, body)
    with pytest.raises(Refused, match="not whole"):
        find(world.store)


def test_garbage_is_found_and_removed_alike_on_s3(store: Store, make_world: Callable[[], World]) -> None:
    world = make_world()
    for key in world.store.list(""):
        store.put(key, world.store.get(key))
    tags.tag(store, world.references["old"], "production", "ann")
    time.sleep(1.1)  # an S3 server tells times in whole seconds
    latest = registry.resolve(store, "animals").digest
    wanted = {world.dataset("old").digest, latest}
    kept_by_time = {one["digest"] for one in tags.history(store, "animals", "latest")}
    removed = collect(store, grace=0)
    gone = {one.name.rpartition("/")[2] for one in removed}
    assert gone == kept_by_time - wanted
    assert {one.digest for one in registry.list_versions(store)} == wanted
