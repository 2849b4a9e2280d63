"""The digits that scikit-learn brings: its own pixels and labels, with captions made of them."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from data_contracts.contract import load_contract
from data_contracts.registry import damage, read_split, register
from data_contracts.source import load_source
from infra.errors import WrongInput
from infra.store import FolderStore


def test_every_digit_of_scikit_learn_is_there_with_its_name_in_the_caption(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    store = FolderStore(tmp_path / "store")
    version, _ = register(store, load_contract("digits"), cache=tmp_path)
    assert damage(store, version) is None and version.counts["rows_in"] == 1797
    assert not version.counts["quarantined"] and not version.manifest["warnings"]
    rows = [row for split in ("train", "validation", "test") for row in read_split(store, version, split).to_pylist()]
    data = load_digits()
    expected = {
        (np.round(image * 255 / 16).astype(np.uint8).tobytes(), int(label))
        for image, label in zip(data.images, data.target, strict=True)
    }
    assert {(row["image"], row["label"]) for row in rows} == expected and len(rows) == 1797
    said = {(row["label"], row["caption"]) for row in rows}
    assert len(said) == 10 and (3, "a handwritten three") in said


def lines(*rows: str) -> bytes:
    return gzip.compress("\n".join(rows).encode())


GOOD = ",".join(["1"] * 64)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"no gzip", "is no gzipped table"),
        (lines(f"{GOOD},3")[:-9], "is no gzipped table"),
        (lines(f"{GOOD},3", "1,2,3"), "is no gzipped table"),
        (lines("1,2,3"), "holds no rows of 64 numbers"),
        (lines(f"{GOOD},11"), "names a digit 11"),
        (lines(f"99,{GOOD[2:]},1"), "from 0 to 16"),
    ],
)
def test_a_file_that_is_no_digits_is_refused(body: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "digits.csv.gz").write_bytes(body)
    with pytest.raises(WrongInput, match=said):
        list(load_source("digits").read(load_contract("digits"), str(tmp_path / "digits.csv.gz"), tmp_path, None))


def test_the_fingerprint_moves_with_the_file_and_an_absent_one_is_named(tmp_path: Path) -> None:
    source, contract = load_source("digits"), load_contract("digits")
    path = tmp_path / "digits.csv.gz"
    found = []
    for label in (3, 4):
        path.write_bytes(lines(f"{GOOD},{label}"))
        found.append(source.fingerprint(contract, str(path), tmp_path))
    assert found[0] != found[1]
    with pytest.raises(WrongInput, match="no such file; leave the address out"):
        source.fingerprint(contract, str(tmp_path / "none"), tmp_path)
