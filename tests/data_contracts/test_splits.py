"""Equal inputs never straddle a split, and no new row moves an old one."""

import hashlib

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import example, given

from data_contracts.splits import key_of, keys, normalise, split_of

texts = st.text(max_size=40)
shares = st.floats(0.0, 0.45)


@given(texts, shares, shares)
def test_case_and_spacing_do_not_move_a_text(text: str, test: float, validation: float) -> None:
    other = "  " + text.upper().lower().replace(" ", " \t\n")
    if normalise(other) == normalise(text):  # upper() of some letters is another word
        assert split_of(key_of([text]), test, validation) == split_of(key_of([other]), test, validation)


def test_a_composed_and_a_decomposed_accent_are_one_text() -> None:
    assert normalise("caf\u00e9  AU lait") == normalise("cafe\u0301 au\u00a0LAIT")


@given(st.lists(texts, min_size=2, max_size=3), st.lists(texts, min_size=2, max_size=3))
def test_different_columns_have_different_keys(one: list[str], other: list[str]) -> None:
    normal = [[normalise(text) for text in row] for row in (one, other)]
    assert (key_of(one) == key_of(other)) == (normal[0] == normal[1]), "('ab', 'c') must not be ('a', 'bc')"


@given(texts, shares, shares, shares)
def test_a_larger_test_share_only_takes_in(text: str, test: float, more: float, validation: float) -> None:
    if split_of(text, test, validation) == "test":
        assert split_of(text, min(test + more, 1.0), 0.0) == "test"


def test_the_boundaries_are_where_the_shares_say() -> None:
    def place(text: str) -> float:
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64

    for text in (f"text {index}" for index in range(200)):
        here = place(text)
        assert split_of(text, here + 1e-9, 0.0) == "test"
        assert split_of(text, here - 1e-9, 1e-3) == "validation"
        assert split_of(text, 0.0, here - 1e-9) == "train"
        assert split_of(text, 0.0, 0.0) == "train"
        assert split_of(text, 1.0, 0.0) == "test"


def test_shares_are_kept_over_many_texts() -> None:
    splits = [split_of(f"text {index}", 0.1, 0.2) for index in range(20_000)]
    # Five standard deviations of a binomial of 20,000: a wrong boundary is off by far more.
    assert splits.count("test") / 20_000 == pytest.approx(0.1, abs=0.011)
    assert splits.count("validation") / 20_000 == pytest.approx(0.2, abs=0.015)


@pytest.mark.parametrize(
    ("text", "split"),
    # First two bytes of `printf TEXT | sha256sum`: 10b3, 1b3e, 1f10, 2f80, 7901 of ffff.
    [("Text  12", "test"), ("text 6", "validation"), ("text 17", "validation"), ("text 14", "validation"),
     ("Fit a  random\tforest", "train")],
)  # fmt: skip
def test_the_assignment_is_for_ever(text: str, split: str) -> None:
    """A change here would move rows between the splits of every dataset that is registered."""
    assert split_of(key_of([text]), 0.1, 0.1) == split


@given(st.lists(st.tuples(st.text() | st.none(), st.integers(-9, 9) | st.none()), min_size=1, max_size=8))
@example([("A\x1cb\t c ", 1), (" \x0b", 2)])
@example([("a b", 1), ("\x85É\x00", None)])
@example([("two  spaces", 1)])
@example([("STRASSE", 1), ("Straße", 2)])
def test_keys_by_arrow_are_the_keys(rows: list[tuple[str | None, int | None]]) -> None:
    rows = [(None if text is None else text.encode(errors="ignore").decode(), number) for text, number in rows]
    columns = {"text": pa.array([row[0] for row in rows], pa.string()), "n": pa.array([row[1] for row in rows])}
    columns["n"] = columns["n"].cast(pa.int64())
    table = pa.table(columns)
    texts = [(text, None if number is None else str(number)) for text, number in rows]
    assert list(keys(table, ["text", "n"])) == [key_of(pair) for pair in texts]
    assert list(keys(table, ["text"])) == [key_of(pair[:1]) for pair in texts]
