"""A tag names one version at a time and remembers every other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_contracts.contract import Contract
from data_contracts.registry import Version, moved, register, resolve
from data_contracts.tags import history, tag, tags
from infra.errors import WrongInput
from infra.store import Store

Maker = Callable[..., Contract]
Writer = Callable[..., Path]
Rows = list[dict[str, Any]]
COLUMNS = {"text": "string", "kind": "string"}


@pytest.fixture
def two(contract: Maker, write: Writer, store: Store, tmp_path: Path, sentences: Rows) -> tuple[Version, Version]:
    first, _ = register(store, contract(COLUMNS), str(write(tmp_path / "rows.csv", sentences[:300])))
    second, _ = register(store, contract(COLUMNS), str(write(tmp_path / "rows.csv", sentences)))
    return first, second


def test_a_tag_follows_and_keeps_its_history(store: Store, two: tuple[Version, Version]) -> None:
    first, second = two
    assert tag(store, first.ref, "production", "ann") == (first, True)
    assert tag(store, first.ref, "production", "ann") == (first, False), "the same again is no entry"
    tag(store, "made", "production", "bob")
    assert resolve(store, "made@production").digest == second.digest
    assert [(entry["digest"], entry["who"]) for entry in history(store, "made", "production")] == [
        (first.digest, "ann"), (second.digest, "bob")]  # fmt: skip
    assert {name: entry["digest"] for name, entry in tags(store, "made").items()} == {
        "latest": second.digest, "production": second.digest}  # fmt: skip


def test_latest_may_go_back_and_the_next_register_moves_it_on(
    store: Store, two: tuple[Version, Version], contract: Maker, tmp_path: Path
) -> None:
    first, second = two
    tag(store, first.ref, "latest", "ann")
    assert resolve(store, "made").digest == first.digest
    source = str(tmp_path / "rows.csv")
    assert moved(store, contract(COLUMNS), source) is not None
    assert not register(store, contract(COLUMNS), source)[1]
    assert resolve(store, "made").digest == second.digest


def test_a_name_that_cannot_be_a_tag_is_refused(
    store: Store, two: tuple[Version, Version], contract: Maker, write: Writer, tmp_path: Path, sentences: Rows
) -> None:
    for name in ("", "../x", "a b", "a/b"):
        with pytest.raises(WrongInput, match="cannot name a version"):
            tag(store, "made", name, "ann")
    aside, _ = register(store, contract(COLUMNS), str(write(tmp_path / "b.csv", sentences[:200])), tag="trial")
    with pytest.raises(WrongInput, match="never registered as latest"):
        tag(store, aside.ref, "latest", "ann")
