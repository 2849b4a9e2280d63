"""The shipped contracts read the public layout of each real set: counts as its README says, faults found and named."""

from pathlib import Path
from typing import Any

import pytest

from data_contracts.contract import load_contract, shipped
from data_contracts.registry import Version, damage, read_split, register
from data_contracts.repeats import remarks, repeats
from infra.store import FolderStore

SETS = {
    "emotion": ("emotion", 16000, 2000, 2000),
    "mrpc": ("mrpc", 3668, 408, 1725),
    "sst2": ("sst", 67349, 872, 1821),
    "sst5": ("sst", 8544, 1101, 2210),
    "stsb": ("stsb", 5749, 1500, 1379),
    "tinyshakespeare": ("lm_tinyshakespeare", 1, 1, 0),
    "gutenberg": ("lm_gutenberg", 15, 1, 1),
}
"""Name -> folder, rows of each split as published."""
WHOLE = {
    "emoji": ("emoji", 3414),
    "drift-bike": ("drift_bike", 17379),
    "drift-elec2": ("drift_elec2", 45312),
    "drift-weather": ("drift_weather", 18159),
}
DIGITS = {
    "fashion_mnist": ("fashion_mnist", 60000, 10000),
    "fashion_mnist-captions": ("fashion_mnist", 60000, 10000),
    "mnist": ("mnist", 60000, 10000),
}
ELSEWHERE = {"library-docs", "library-docs-text"}
COMPOSED = {f"digits-{kind}{split}" for kind in ("pairs", "colours") for split in ("", "-mixed")} | {
    "digits",
    "digits-captions",
    "digits-words",
}
"""Made by a source, with tests of their own."""
PARTS = {"bike"}
"""Of a set that is there whole under another name."""


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> FolderStore:
    return FolderStore(tmp_path_factory.mktemp("sets") / "store")


def registered(store: FolderStore, name: str, folder: Path) -> Version:
    version, _ = register(store, load_contract(name), str(folder), cache=store.folder / "cache")
    assert damage(store, version) is None
    assert version.counts["quarantined"] == version.counts["filtered"] == 0
    assert version.counts["rows_in"] == sum(version.counts[split] for split in ("train", "validation", "test"))
    return version


def test_every_shipped_contract_is_read() -> None:
    assert set(shipped()) == SETS.keys() | WHOLE.keys() | DIGITS.keys() | ELSEWHERE | PARTS | COMPOSED
    for name in shipped():
        assert load_contract(name).name == name


@pytest.mark.shared_data
@pytest.mark.parametrize("name", SETS)
def test_splits_are_the_published_ones(name: str, stores: FolderStore, shared_data: Path) -> None:
    folder, *sizes = SETS[name]
    counts = registered(stores, name, shared_data / folder).counts
    assert [counts[split] for split in ("train", "validation", "test")] == sizes


@pytest.mark.shared_data
@pytest.mark.parametrize("name", WHOLE)
def test_no_row_is_lost(name: str, stores: FolderStore, shared_data: Path) -> None:
    folder, rows = WHOLE[name]
    version = registered(stores, name, shared_data / folder)
    assert version.counts["rows_in"] == rows
    assert not [one for one in version.manifest["warnings"] if one["rule"] == "table:rowCount"]


@pytest.mark.shared_data
@pytest.mark.parametrize("name", DIGITS)
def test_the_published_test_images_are_the_test_split(name: str, stores: FolderStore, shared_data: Path) -> None:
    folder, train, test = DIGITS[name]
    version = registered(stores, name, shared_data / folder)
    counts = version.counts
    assert (counts["train"] + counts["validation"], counts["test"]) == (train, test)
    assert 0.09 < counts["validation"] / train < 0.11
    first = read_split(stores, version, "test").slice(0, 1).to_pylist()[0]
    assert len(first["image"]) == 28 * 28 and first["label"] == (7 if name == "mnist" else "Ankle boot")
    assert first.get("caption") == ("a photo of a Ankle boot" if name.endswith("captions") else None)


@pytest.mark.shared_data
def test_bike_is_the_first_year_and_busy_is_above_its_median_hour(stores: FolderStore, shared_data: Path) -> None:
    version, _ = register(stores, load_contract("bike"), str(shared_data / "drift_bike"), cache=stores.folder / "cache")
    assert damage(stores, version) is None
    assert version.counts["filtered"] == 17379 - 8645
    rows = [row for split in ("train", "validation", "test") for row in read_split(stores, version, split).to_pylist()]
    assert len(rows) == 8645 and {row["yr"] for row in rows} == {0}
    assert sorted(row["cnt"] for row in rows)[len(rows) // 2] == 109
    assert all(row["busy"] == (row["cnt"] > 109) for row in rows)


@pytest.mark.shared_data
def test_what_is_wrong_with_emotion_is_found_and_named(stores: FolderStore, shared_data: Path) -> None:
    version = registered(stores, "emotion", shared_data / "emotion")
    found = {one["rule"]: one for one in version.manifest["warnings"]}
    leak, repeated, twins = (found[rule] for rule in ("split:leak", "inputs:repeated", "label:contradictory"))
    assert (
        "19 inputs stand in more than one split (train/test 11, train/validation 5, validation/test 3)"
        in leak["reason"]
    )
    assert "train 31" in repeated["reason"] and "train 30" in twins["reason"]
    assert len(leak["named"]) == 19
    lines = {name: (shared_data / "emotion" / name).read_text(encoding="utf-8").split("\n") for name in
             ("train.txt", "val.txt", "test.txt")}  # fmt: skip
    for group in leak["named"]:
        places = [place.rsplit(":", 1) for place in group.split(" = ")]
        assert len({lines[file][int(row) - 1].rsplit(";", 1)[0] for file, row in places}) == 1


@pytest.mark.shared_data
def test_the_emoji_of_one_base_stay_together(stores: FolderStore, shared_data: Path) -> None:
    version = registered(stores, "emoji", shared_data / "emoji")
    parts = [
        set(read_split(stores, version, split, ["base_codepoints"])["base_codepoints"].to_pylist())
        for split in ("train", "validation", "test")
    ]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1644


def _origin(row: int) -> tuple[str, int]:
    return "rows.csv", row + 1


def test_repeats_leaks_and_contradictions_are_told_apart() -> None:
    keys: list[str] = ["a", "b", "a", "c", "b", "d", "d"]
    splits = ["train", "train", "train", "test", "test", "validation", "validation"]
    labels: list[Any] = [1, 1, 2, 1, 1, 3, 3]
    found = {one["rule"]: one for one in remarks(repeats(keys), splits, labels, _origin)}
    assert found["split:leak"]["named"] == ["rows.csv:2 = rows.csv:5"] and found["split:leak"]["rows"] == 2
    assert found["inputs:repeated"]["named"] == ["rows.csv:1 = rows.csv:3", "rows.csv:6 = rows.csv:7"]
    assert found["label:contradictory"]["named"] == ["rows.csv:1 = rows.csv:3"]
    assert found["label:contradictory"]["reason"].startswith("1 input has more than one label")
    assert remarks(repeats(["a", "b"]), ["train", "test"], None, _origin) == []
