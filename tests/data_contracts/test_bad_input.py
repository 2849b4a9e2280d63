"""Bad input gets one line that names file and field, within limits, and leaves no version behind."""

import gzip
import itertools
import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from data_contracts import native_reader
from data_contracts.contract import Contract, load_contract
from data_contracts.native import Native, Unreadable
from data_contracts.registry import list_versions, register
from infra.errors import Refused, WrongInput
from infra.settings import child_environment
from infra.store import FolderStore

Maker = Callable[..., Contract]
TWO = {"text": "string", "kind": "string"}
LINES = b"text,kind\n" + b"".join(b"row number %d,a\n" % n for n in range(200))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes that says it has so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


BROKEN: list[tuple[str, bytes, dict[str, Any], str]] = [
    ("utf16.csv", LINES.decode().encode("utf-16"), {}, "is UTF-16 .byte order mark.; set the server's encoding"),
    ("nul.csv", b"\0\0\0\0" + LINES, {}, "begins with NUL bytes"),
    ("wrong.csv", LINES.decode().encode("utf-16-le"), {"encoding": "utf-16"}, "is not utf-16"),
    ("cut.csv", b"\x1f\x8b\x08\0\0\0\0\0", {}, "is not whole gzip"),
    ("deep.json", b"[" * 100_000 + b"]" * 100_000, {}, "is nested too deep to be rows"),
    ("cut.json", b'[{"text": "a", "kind": "b"}, {"te', {}, "is not JSON .*was the file cut off"),
    ("object.json", b'{"rows": [{"text": "a", "kind": "b"}]}', {}, "is not a list of objects; set slipway.records"),
    ("none.json", b"[1, 2]", {}, "every row .* violates"),
    ("cut.parquet", b"PAR1" + bytes(100) + b"PAR1", {}, "is not whole Parquet"),
    ("cut.arrow", b"ARROW1\0\0" + bytes(100), {}, "is not whole Arrow"),
    ("long.csv", b"text,kind\n" + b"x" * ((1 << 26) + 8), {}, "has more than .* characters"),
    ("wide.csv", LINES, {"columns": ["text"]}, "the header has 2 columns, slipway.columns .* 1"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "server", "words"), BROKEN, ids=[name for name, *_ in BROKEN])
def test_a_broken_file_is_one_line_and_no_version(
    contract: Maker, tmp_path: Path, name: str, content: bytes, server: dict[str, Any], words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    store = FolderStore(tmp_path / "store")
    with pytest.raises((WrongInput, Refused), match=words) as caught:
        register(store, contract(TWO, server=server), str(tmp_path / name), cache=tmp_path / "cache")
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert list_versions(store) == [] and not list((tmp_path / "store").rglob("*.parquet"))


def test_a_row_with_a_nul_or_a_loose_end_is_kept_apart(contract: Maker, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(LINES + b"with\0nul,a\nonly one\na,b,c\n")
    version, _ = register(FolderStore(tmp_path / "store"), contract(TWO), str(path), cache=tmp_path / "cache")
    assert version.counts["rows_in"] == 203 and version.counts["quarantined"] == 3


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252", "shift_jis", "koi8-r"])
def test_an_encoding_that_is_said_or_has_a_mark_is_read(contract: Maker, tmp_path: Path, encoding: str) -> None:
    word = {"shift_jis": "日本語", "koi8-r": "привет"}.get(encoding, "café")
    (tmp_path / "rows.csv").write_bytes(f"text,kind\n{word},a\n".encode(encoding))
    from data_contracts.sources import files

    server = {} if encoding == "utf-8-sig" else {"encoding": encoding}
    (batch,) = files.read(contract(TWO, server=server), str(tmp_path / "rows.csv"), tmp_path, None)
    assert not hasattr(batch, "reason") and batch.to_pylist() == [{"text": word, "kind": "a"}]  # type: ignore[union-attr]


def test_a_bomb_is_told_by_its_header(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb(100_000, 100_000))
    with Native() as native, pytest.raises(Unreadable, match="is 100000 x 100000 pixels, more than"):
        native.image(tmp_path / "bomb.png")


def test_the_process_outlives_a_bad_image_and_is_made_again_where_it_died(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("L", (1, 1), 7).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    with Native() as native:
        assert native.image(tmp_path / "good.png") == (b"\7", {"width": 1, "height": 1, "mode": "L"})
        first = native.process
        with pytest.raises(Unreadable):
            native.image(tmp_path / "bad.png")
        native.image(tmp_path / "good.png")
        assert native.process is first, "one process for many files"
        assert first is not None
        os.kill(first.pid, signal.SIGSEGV)
        with pytest.raises(Unreadable, match="kills the library that decodes it"):
            native.image(tmp_path / "good.png")
        assert native.image(tmp_path / "good.png")[0] == b"\7"


def test_memory_of_the_process_is_limited(tmp_path: Path) -> None:
    """A Parquet file of a kilobyte whose one value unfolds to more than the limit."""
    path = tmp_path / "bomb.parquet"
    values = pa.DictionaryArray.from_arrays(pa.array([0] * 4000, pa.int32()), pa.array(["x" * 1_000_000]))
    pq.write_table(pa.table({"text": values.cast(pa.large_string()).slice(0, 2000)}), path, compression="zstd")
    with Native() as native, pytest.raises(Unreadable, match=r"memory|kills|alloc"):
        for _ in native.table(path, "parquet", ["text"]):
            pass
    assert path.stat().st_size < native_reader.MEMORY // 100


def test_an_arrow_file_whose_offsets_lie_is_refused(tmp_path: Path) -> None:
    good = pa.record_batch({"text": pa.array(["abc", "def"])})
    offsets = pa.py_buffer(struct.pack("<3i", 0, 1_000_000, 6))
    bad = pa.StringArray.from_buffers(2, offsets, good.column(0).buffers()[2])
    with pa.OSFile(str(tmp_path / "lies.arrow"), "wb") as file, pa.ipc.new_file(file, good.schema) as writer:
        writer.write_batch(pa.record_batch([bad], schema=good.schema))
    with Native() as native, pytest.raises(Unreadable):
        list(native.table(tmp_path / "lies.arrow", "arrow", ["text"]))


def told_early(folder: Path, document: Callable[..., dict[str, Any]]) -> dict[str, tuple[list[str], str]]:
    """Kind of fault -> (arguments of `data register`, words of what is then said)."""
    outside: dict[str, Any] = {"customProperties": [{"property": "slipway.files", "value": ["../plain.csv"]}]}
    code = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "text", "row_condition": "__import__"}}
    rule = {"name": "code", "type": "custom", "engine": "greatExpectations", "implementation": code}
    made: dict[str, dict[str, Any]] = {name: document(TWO) for name in ("good", "name", "typo", "code", "out")}
    made["name"]["id"] = "../../etc"
    made["typo"]["schema"][0]["properties"][0] = {"name": "text", "logicalTyp": "string"}
    made["code"]["schema"][0]["quality"] = [rule]
    made["out"]["servers"][0] |= {"path": "folder", **outside}
    for name, body in made.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(body), encoding="utf-8")
    levels = [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in itertools.pairwise("abcdefghi")]
    (folder / "alias.yaml").write_text("\n".join(["a: &a [x]", *levels]), encoding="utf-8")
    (folder / "folder").mkdir()
    (folder / "deep.json").write_bytes(b"[" * 100_000)
    (folder / "plain.csv").write_bytes(LINES)
    (folder / "wide.csv").write_bytes(LINES.decode().encode("utf-16"))
    (folder / "twice.csv").write_bytes(LINES.replace(b"text,kind", b"text,text"))
    (folder / "quote.csv").write_bytes(LINES + b'"open,a\n' + LINES)
    (folder / "ragged.csv").write_bytes(LINES.replace(b",a\n", b",a,b\n"))
    (folder / "zipped.csv.gz").write_bytes(gzip.compress(b"text,kind\n" + bytes(100 << 20)))
    (folder / "cut.parquet").write_bytes(b"PAR1" + bytes(99) + b"PAR1")
    contracts = {"name": "id: '../../etc' cannot name", "typo": "'logicalTyp'; did you mean 'logicalType'",
                 "alias": "more than 20 aliases", "code": "quality[code]",
                 "out": "'../plain.csv' must be a path below"}  # fmt: skip
    sources = {"deep.json": "nested too deep", "wide.csv": "is UTF-16", "twice.csv": "column 'text' twice",
               "quote.csv": "is never closed", "zipped.csv.gz": "more than", "cut.parquet": "is not whole Parquet",
               "ragged.csv": "has 3 fields, not 2"}  # fmt: skip
    found = {name: ([f"{name}.yaml"], words) for name, words in contracts.items()}
    return found | {name: (["good.yaml", "--source", name], words) for name, words in sources.items()}


def test_bad_input_is_told_before_great_expectations_is_imported(
    document: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """All in one process, which each may be the first to make import it or take a gigabyte."""
    kinds = told_early(tmp_path, document)
    script = (
        "import json, re, sys\nfrom pathlib import Path\nfrom flows.cli import main\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    try:\n        main(['data', 'register', *arguments])\n"
        "    except SystemExit as end:\n        told = end.code, 'great_expectations' in sys.modules\n"
        # Not ru_maxrss: a child begins with its parent's.
        "    peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())\n"
        "    print(json.dumps([*told, int(peak[1])]))\n"
        "    print('--', file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps([arguments for arguments, _ in kinds.values()])],
        cwd=tmp_path,
        env=child_environment(SLIPWAY_WORKSPACE=str(tmp_path / "ws")),
        capture_output=True,
        text=True,
        check=False,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    errors = done.stderr.split("--\n")
    assert len(told) == len(kinds) and "Traceback" not in done.stderr, done.stderr
    for (kind, (_, words)), (code, imported, kilobytes), error in zip(kinds.items(), told, errors, strict=False):
        said = [line for line in error.splitlines() if line.startswith("slipway: ")]
        assert code in (2, 3) and not imported and kilobytes < 1 << 20, (kind, code, imported, kilobytes)
        assert len(said) == 1 and words in said[0] and kind in said[0], error
    assert not list((tmp_path / "ws").rglob("*.parquet")) and not list((tmp_path / "ws").rglob("manifest.json"))


def test_a_contract_of_splits_says_what_is_wrong(document: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    wrong = {
        "slipway.split.files: is a map": {"files": {"test": "a.csv"}},
        "slipway.split.test: is a share": {"files": {"train": "a.csv", "test": "b.csv"}, "test": 0.1},
        "unknown key 'dev'": {"files": {"train": "a.csv", "dev": "b.csv"}},
        "slipway.split.column: column 'which' is not in the schema": {"column": "which"},
        "slipway.split.test: cannot stand beside column": {"column": "kind", "test": 0.1},
        "slipway.split.values.dev: 'development'": {"column": "kind", "values": {"dev": "development"}},
    }
    for words, split in wrong.items():
        (tmp_path / "made.odcs.yaml").write_text(yaml.safe_dump(document(TWO, split=split)), encoding="utf-8")
        with pytest.raises(WrongInput) as caught:
            load_contract(str(tmp_path / "made.odcs.yaml"))
        assert words in str(caught.value)


@pytest.mark.parametrize("key", ["enum", "unique", "logicalTypeOptions"])
def test_a_rule_of_pixels_is_refused(document: Callable[..., dict[str, Any]], tmp_path: Path, key: str) -> None:
    value = {"enum": [{"value": "a"}], "unique": True, "logicalTypeOptions": {"maxLength": 3}}[key]
    image = {"logicalType": "string", "customProperties": [{"property": "slipway.type", "value": "image"}], key: value}
    (tmp_path / "made.odcs.yaml").write_text(yaml.safe_dump(document({"pic": image})), encoding="utf-8")
    with pytest.raises(WrongInput, match=f"schema.properties.pic.{key}: is of an image; give it to pic_width"):
        load_contract(str(tmp_path / "made.odcs.yaml"))
