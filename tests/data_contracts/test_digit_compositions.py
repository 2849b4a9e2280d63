"""Composed digits: what a row shows is what it says, the same each time, and combinations are kept apart by split."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.contract import load_contract
from data_contracts.registry import read_split, register
from data_contracts.sources import digit_compositions
from data_contracts.sources.digit_compositions import COLOURS, DIGITS, article
from infra.errors import WrongInput
from infra.store import FolderStore
from tests.data_contracts.test_sources import IMAGE, make

COLUMNS = {"image": IMAGE, "caption": "string", "label": "string", "first": "string", "second": "string"}


def rows(kind: str, count: int, tmp_path: Path) -> list[dict[str, Any]]:
    contract = make(COLUMNS, "digit_compositions", composition=kind, rows=count)
    return [row for batch in digit_compositions.read(contract, None, tmp_path, None) for row in batch.to_pylist()]


def real_digits() -> dict[str, set[bytes]]:
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    found: dict[str, set[bytes]] = {name: set() for name in DIGITS}
    for picture, number in zip((pixels * (255 / 16)).round().astype(np.uint8), classes, strict=True):
        found[DIGITS[number]].add(picture.tobytes())
    return found


def test_a_pair_shows_the_digits_that_its_caption_names(tmp_path: Path) -> None:
    known = real_digits()
    made = rows("pairs", 200, tmp_path)
    for row in made:
        picture = np.frombuffer(row["image"], np.uint8).reshape(16, 16)
        assert row["caption"] == " left of ".join(f"{article(row[part])} {row[part]}" for part in ("first", "second"))
        assert picture[4:12, :8].tobytes() in known[row["first"]]
        assert picture[4:12, 8:].tobytes() in known[row["second"]]
    assert len({row["label"] for row in made}) > 60, "all kinds of pairs"
    assert made == rows("pairs", 200, tmp_path), "the same each time"
    assert made[:50] == rows("pairs", 50, tmp_path), "fewer rows are the first of more"


def test_a_coloured_digit_has_its_colour_and_nothing_else(tmp_path: Path) -> None:
    for row in rows("colours", 200, tmp_path):
        picture = np.frombuffer(row["image"], np.uint8).reshape(8, 8, 3)
        brightest = picture[np.unravel_index(picture.sum(-1).argmax(), (8, 8))].astype(float)
        paint = np.array(COLOURS[row["first"]], float)
        assert np.abs(brightest / brightest.max() - paint / paint.max()).max() < 0.02
        assert (
            row["label"] == f"{row['first']} {row['second']}"
            and row["caption"] == f"{article(row['first'])} {row['label']}"
        )


@pytest.mark.parametrize("name", ["digits-pairs", "digits-colours"])
def test_each_word_of_a_test_caption_was_seen_in_training_and_no_combination_was(name: str, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    version, _ = register(store, load_contract(name), None, cache=tmp_path / "cache")
    tables = {split: read_split(store, version, split, ["label"]) for split in ("train", "validation", "test")}
    labels = {split: set(table["label"].to_pylist()) for split, table in tables.items()}
    assert version.counts["quarantined"] == 0 and all(labels.values())
    assert not labels["train"] & labels["test"] and not labels["train"] & labels["validation"]
    for place in range(2):
        words = {split: {label.split()[place] for label in found} for split, found in labels.items()}
        assert words["test"] | words["validation"] <= words["train"]


def test_options_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    for wrong, said in (({"composition": "triples"}, "pairs"), ({"rows": 0}, "give 1 to")):
        contract = make(COLUMNS, "digit_compositions", **wrong)
        with pytest.raises(WrongInput, match=said):
            digit_compositions.fingerprint(contract, None, tmp_path)
    contract = make({**COLUMNS, "size": "integer"}, "digit_compositions")
    with pytest.raises(WrongInput, match="have no 'size'"):
        list(digit_compositions.read(contract, None, tmp_path, None))
    with pytest.raises(WrongInput, match="reads no address"):
        digit_compositions.fingerprint(make(COLUMNS, "digit_compositions"), "somewhere", tmp_path)
