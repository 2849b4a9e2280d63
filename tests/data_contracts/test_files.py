"""The files source gives back what was put in, keeps apart what cannot be parsed, and refuses what is broken."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from data_contracts.contract import Contract
from data_contracts.source import Unreadable
from data_contracts.sources import files
from infra.errors import WrongInput

Maker = Callable[..., Contract]
TWO = {"text": "string", "kind": "string"}


def read(contract: Contract, path: Path) -> tuple[list[dict[str, Any]], list[Unreadable]]:
    good, bad = [], []
    for found in files.read(contract, str(path), path.parent, None):
        if isinstance(found, Unreadable):
            bad.append(found)
        else:
            good += found.to_pylist()
    return good, bad


def refusal(contract: Contract, path: Path) -> str:
    with pytest.raises(WrongInput) as caught:
        read(contract, path)
    assert "\n" not in str(caught.value) and path.stem in str(caught.value), "one line that names the file"
    return str(caught.value)


# A carriage return is left out: a CSV that was written in text mode cannot keep it. So is half a character.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=20)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
@given(rows=st.lists(st.fixed_dictionaries({"text": texts, "kind": texts}), min_size=1, max_size=20))
def test_what_was_written_is_read(
    contract: Maker, write: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory, ending: str, rows: Any
) -> None:
    path = write(tmp_path_factory.getbasetemp() / f"round.{ending}", rows)
    assert read(contract(TWO), path) == (rows, [])


def test_values_stay_as_they_stand(contract: Maker, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('text,kind\n007,\n"0.1","NA"\n', encoding="utf-8")
    assert read(contract(TWO), path)[0] == [{"text": "007", "kind": ""}, {"text": "0.1", "kind": "NA"}]


def test_a_byte_order_mark_is_no_part_of_a_name(contract: Maker, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbftext,kind\na,b\n")
    assert read(contract(TWO), path)[0] == [{"text": "a", "kind": "b"}]


def test_server_settings_are_obeyed(contract: Maker, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes('he said "no";caf\xe9\n'.encode("latin-1"))
    made = contract(TWO, server={"delimiter": ";", "header": False, "quoting": False, "encoding": "latin-1"})
    assert read(made, path)[0] == [{"text": 'he said "no"', "kind": "café"}]


def test_a_glob_is_read_in_the_order_of_its_bytes(contract: Maker, write: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("b", "B", "a10", "a9"):
        write(tmp_path / f"{name}.csv", [{"text": name, "kind": "x"}])
    assert [row["text"] for row in read(contract(TWO), tmp_path / "*.csv")[0]] == ["B", "a10", "a9", "b"]


def test_a_ragged_row_is_kept_apart_with_its_bytes_and_line(contract: Maker, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('text,kind\n"two\nlines",a\nshort\n\nc,d,e\n"x"y,z\nlast,b\n', encoding="utf-8")
    good, bad = read(contract(TWO), path)
    assert [row["text"] for row in good] == ["two\nlines", "last"]
    assert [(found.row, found.line, found.raw) for found in bad] == [
        (2, 4, b"short"),
        (3, 6, b"c,d,e"),
        (4, 7, b'"x"y,z'),
    ]
    assert bad[0].reason == "has 1 fields, not 2"


def test_a_line_that_is_no_object_is_kept_apart(contract: Maker, tmp_path: Path) -> None:
    lines = ['{"text": "a", "kind": 7}', "{", "[1]", '{"text": {"x": 1}, "kind": null}', "[" * 100_000,
             '{"text": "\\ud800", "kind": "x"}', '{"text": "b", "kind": true, "more": 1}']  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    good, bad = read(contract(TWO), path)
    assert good == [{"text": "a", "kind": "7"}, {"text": "b", "kind": "true"}]
    assert [found.row for found in bad] == [2, 3, 4, 5, 6]
    assert bad[2].raw.decode() == lines[3]


BROKEN: list[tuple[str, bytes, str]] = [
    ("empty.csv", b"", "is empty"),
    ("empty.jsonl", b"", "is empty"),
    ("empty.parquet", b"", "is empty"),
    ("headed.csv", b"text,kind\n", "has no rows"),
    ("blank.csv", b"\n\n\n", "line 1: the header has no column"),
    ("latin.csv", b"caf\xe9,kind\na,b\n", "line 1: the header is not utf-8 (byte 0xe9); save it as UTF-8"),
    ("latin.json", b'[{"text": "a", "kind": "b"},\n{"text": "caf\xe9", "kind": "b"}]\n', "is not utf-8 after line 1"),
    ("cut.csv", b'text,kind\na,b\n"never closed,b\nc,d\n', "line 3: a quote opened there is never closed"),
    ("cut.jsonl", b'{"text": "a", "kind": "b"}\n{"text": "c', "line 2: ends in the middle of a row"),
    ("cut.parquet", b"PAR1 and no more", "is not whole Parquet"),
    ("csv.jsonl", b"text,kind\na,b\n", "is not JSONL"),
    ("twice.csv", b"text,text\na,b\n", "the column 'text' twice"),
    ("unnamed.csv", b"text,,kind\na,b,c\n", "a column without a name"),
    (
        "lacking.csv",
        b"txt,kind\na,b\n",
        "has no column 'text', which contract made.odcs.yaml names; did you mean 'txt'?",
    ),
    ("lacking.jsonl", b'{"txt": "a", "kind": "b"}\n', "did you mean 'txt'?"),
    ("rows.xlsx", b"PK", "format"),
]


@pytest.mark.parametrize(("name", "content", "words"), BROKEN, ids=[name for name, _, _ in BROKEN])
def test_a_broken_file_is_refused_in_one_line(
    contract: Maker, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    made = contract(TWO, format="xlsx") if name.endswith("xlsx") else contract(TWO)
    assert words in refusal(made, tmp_path / name)


def test_a_parquet_file_that_lost_its_end_is_refused(contract: Maker, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["a"] * 1000, "kind": ["b"] * 1000}), path)
    whole = path.read_bytes()
    for keep in (len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:keep])
        assert "is not whole Parquet" in refusal(contract(TWO), path)


def test_what_is_no_file_is_refused(contract: Maker, tmp_path: Path) -> None:
    made = contract(TWO)
    assert "no such file" in refusal(made, tmp_path / "absent.csv")
    assert "is a folder; name a file, or a glob" in refusal(made, tmp_path)
    with pytest.raises(WrongInput, match=r"servers\[0\].encoding 'utf-9' is unknown"):
        read(contract(TWO, server={"encoding": "utf-9"}), _touch(tmp_path / "a.csv"))


def _touch(path: Path) -> Path:
    path.write_text("text,kind\na,b\n", encoding="utf-8")
    return path


def test_the_fingerprint_moves_with_the_file(contract: Maker, tmp_path: Path) -> None:
    path = _touch(tmp_path / "rows.csv")
    made = contract(TWO)
    before = files.fingerprint(made, str(path), tmp_path)
    assert files.fingerprint(made, str(path), tmp_path) == before == json.loads(json.dumps(before))
    path.write_text("text,kind\na,c,\n", encoding="utf-8")
    assert files.fingerprint(made, str(path), tmp_path) != before


def test_the_path_is_relative_to_the_contract(
    document: Callable[..., dict[str, Any]], tmp_path: Path, write: Callable[..., Path]
) -> None:
    import yaml

    from data_contracts.contract import load_contract

    write(tmp_path / "rows.csv", [{"text": "a", "kind": "b"}])
    (tmp_path / "made.odcs.yaml").write_text(yaml.safe_dump(document(TWO)), encoding="utf-8")
    made = load_contract(str(tmp_path / "made.odcs.yaml"))
    assert [batch.num_rows for batch in files.read(made, None, tmp_path, None)] == [1]  # type: ignore[union-attr]
