"""An input that nearly repeats one of another split leaves or is told; it never changes its split."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from data_contracts.audit import audit
from data_contracts.contract import Contract
from data_contracts.near_duplicates import bands, near_copies, near_duplicates, pieces
from data_contracts.registry import Version, read_file, read_quarantine, read_split, register
from infra.errors import WrongInput
from infra.store import FolderStore, Store

Maker = Callable[..., Contract]
Writer = Callable[..., Path]
Rows = list[dict[str, Any]]
COLUMNS = {"text": {"logicalType": "string", "required": True}, "kind": "string"}
RANK = {"train": 0, "validation": 1, "test": 2}


def texts(count: int, seed: int = 0) -> list[str]:
    random_words = random.Random(seed)
    words = [f"{stem}{number}" for stem in ("river", "metal", "fruit", "cloud") for number in range(500)]
    return [" ".join(random_words.choices(words, k=15)) for _ in range(count)]


def twins(count: int = 300) -> Rows:
    """`count` texts, and each of them once more with one word added."""
    first = texts(count)
    return [{"text": text, "kind": "a"} for text in (*first, *(f"{text} also" for text in first))]


def jaccard(first: str, second: str) -> float:
    one, other = pieces(first), pieces(second)
    return len(one & other) / len(one | other)


def places(store: Store, version: Version) -> dict[str, str]:
    return {
        text: split for split in RANK for text in read_split(store, version, split, ["text"]).column("text").to_pylist()
    }


def test_the_row_of_the_lesser_split_leaves(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path
) -> None:
    rows = twins()
    path = str(write(tmp_path / "rows.csv", rows))
    plain, _ = register(folder, contract(COLUMNS, label="kind", inputs=["text"]), path)
    before = places(folder, plain)
    near = contract(COLUMNS, label="kind", inputs=["text"], duplicates={"columns": ["text"], "near": "quarantine"})
    version, _ = register(folder, near, path)
    after = places(folder, version)
    assert all(before[text] == split for text, split in after.items()), "a row may leave but never changes its split"
    left = {text for text in before if text not in after}
    expected = set()
    for row in rows[:300]:
        pair = (row["text"], f"{row['text']} also")
        if before[pair[0]] != before[pair[1]]:
            expected.add(min(pair, key=lambda text: RANK[before[text]]))
    assert left == expected and len(left) > 50
    quarantined = read_quarantine(folder, version).to_pylist()
    assert {tuple(row["rules"]) for row in quarantined} == {("inputs:near-duplicate",)}
    assert version.counts["quarantined"] == len(left)
    assert "like row" in quarantined[0]["reason"]
    assert all(check.passed for check in audit(folder, version))


def test_a_report_takes_nothing_out_and_names_the_rows(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    path = str(write(tmp_path / "rows.csv", twins()))
    plain, _ = register(folder, contract(COLUMNS, inputs=["text"]), path)
    told, _ = register(folder, contract(COLUMNS, inputs=["text"], duplicates={"near": "report"}), path)
    assert told.rows == plain.rows and told.counts == plain.counts
    warning = next(one for one in told.manifest["warnings"] if one["rule"] == "inputs:near-duplicate")
    assert warning["rows"] > 50 and "across splits" in warning["reason"] and len(warning["named"]) > 50
    found = pq.read_table(read_file(folder, told, "repeats")).to_pylist()
    assert len(found) == 2 * warning["rows"] and all(0.8 <= row["similarity"] <= 1 for row in found)
    where = places(folder, told)
    assert {row["split"] for row in found} == set(where.values())


@pytest.mark.parametrize("seed", range(4))
def test_what_is_found_is_what_comparing_every_pair_finds(contract: Maker, seed: int) -> None:
    chance = random.Random(seed)
    made = contract(COLUMNS, inputs=["text"], duplicates={"near": "quarantine", "similarity": 0.6})
    base = texts(40, seed)
    rows = []
    for text in base:
        for _ in range(4):
            words = text.split()
            for _ in range(chance.randrange(6)):
                words[chance.randrange(len(words))] = "other"
            rows.append(" ".join(words))
    splits = [chance.choice(["train", "validation", "test"]) for _ in rows]
    found = {pair.leaves: pair for pair in near_duplicates(pa.table({"text": rows}), splits, made)}

    def nearest(row: int, others: list[int]) -> float:
        return max((jaccard(rows[row], rows[other]) for other in others), default=0.0)

    test = [row for row, split in enumerate(splits) if split == "test"]
    validation = [row for row, split in enumerate(splits) if split == "validation"]
    staying = [row for row in validation if nearest(row, test) < 0.6]
    leaving = {row for row in validation if row not in staying}
    train = [row for row, split in enumerate(splits) if split == "train"]
    leaving |= {row for row in train if nearest(row, [*test, *staying]) >= 0.6}
    assert set(found) == leaving and leaving
    for row, pair in found.items():
        assert pair.similarity == pytest.approx(jaccard(rows[row], rows[pair.stays]))
        assert RANK[splits[pair.stays]] > RANK[splits[row]] and pair.stays not in leaving


@given(similarity=st.floats(0.5, 1))
def test_bands_miss_no_pair_at_the_threshold(similarity: float) -> None:
    number, rows = bands(similarity)
    assert number * rows <= 128 and (1 - similarity**rows) ** number < 1e-6


@given(
    st.lists(
        st.tuples(st.sampled_from(["a b c d", "A  b c d", "a b c", "x y z w", ""]), st.sampled_from("xy")), max_size=30
    )
)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_duplicates_never_straddle(
    contract: Maker, sentences: Rows, write: Writer, tmp_path: Path, extra: list[tuple[str, str]]
) -> None:
    store = FolderStore(tmp_path / "store")
    rows = sentences + [{"text": f"{text} of the same set", "kind": kind} for text, kind in extra]
    made = contract(COLUMNS, inputs=["text"], label="kind",
                    duplicates={"keep": "all", "near": "quarantine", "similarity": 0.95})  # fmt: skip
    version, _ = register(store, made, str(write(tmp_path / "rows.csv", rows)))
    found = [(text, split) for split in RANK
             for text in read_split(store, version, split, ["text"]).column("text").to_pylist()]  # fmt: skip
    place: dict[str, str] = {}
    for text, split in found:
        assert place.setdefault(" ".join(text.lower().split()), split) == split
    assert version.counts["filtered"] == 0


def test_contradictory_labels_are_named_with_their_rows(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows
) -> None:
    import pyarrow.parquet as pq

    twin = {"text": sentences[7]["text"].upper(), "kind": "other"}
    made = contract(COLUMNS, label="kind", inputs=["text"])
    version, _ = register(folder, made, str(write(tmp_path / "rows.csv", [*sentences, twin, sentences[8]])))
    (warning,) = version.manifest["warnings"]
    assert warning["rule"] == "label:contradictory" and warning["rows"] == 2
    assert warning["named"] == ["rows.csv:8 = rows.csv:401"]
    found = pq.read_table(read_file(folder, version, "repeats")).to_pylist()
    assert [(row["kind"], row["group"]) for row in found] == [("contradiction", 1)] * 2
    assert {row["label"] for row in found} == {"other", sentences[7]["kind"]}
    assert len({row["split"] for row in found}) == 1, "twins stay together"


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"near": "drop"}, "slipway.duplicates.near: 'drop' is unknown; there is: quarantine, report"),
        ({"similarity": 0.2}, "slipway.duplicates.similarity: 0.2 is too little"),
        ({"keep": "last"}, "slipway.duplicates.keep: 'last' is unknown"),
    ],
)
def test_a_policy_that_does_not_exist_is_refused(contract: Maker, section: dict[str, Any], words: str) -> None:
    with pytest.raises(WrongInput, match=words):
        contract(COLUMNS, duplicates=section)


@pytest.mark.shared_data
def test_emotion_has_the_repeats_its_readme_tells_of(shared_data: Path, folder: FolderStore) -> None:
    from data_contracts.contract import load_contract

    version, _ = register(folder, load_contract("emotion"), str(shared_data / "emotion"))
    assert [version.counts[split] for split in RANK] == [16000, 2000, 2000]
    reasons = {one["rule"]: one["reason"] for one in version.manifest["warnings"]}
    assert reasons["split:leak"].startswith("19 inputs stand in more than one split")
    assert "train 31" in reasons["inputs:repeated"] and "train 30" in reasons["label:contradictory"]


def test_near_copies_of_two_sets_are_what_comparing_every_pair_finds() -> None:
    own, other = texts(60), texts(150, seed=1)
    other[7], other[9] = f"{own[3]} now", own[3][:-1]
    other[20] = other[90] = own[5]
    own[40] = own[41] = f"{other[11]} too"
    expected = {}
    for row, text in enumerate(own):
        alike = [len(pieces(text) & pieces(one)) / len(pieces(text) | pieces(one)) for one in other]
        first = next((place for place in range(len(other)) if alike[place] >= 0.8), None)
        if first is not None:
            expected[row] = (first, alike[first])
    assert set(expected) == {3, 5, 40, 41}
    assert near_copies(own, other, 0.8) == expected
