"""Every source found by name gives back what was put in, in one order, and refuses what is broken in one line."""

import gzip
import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from data_contracts.contract import Contract, parse_contract
from data_contracts.source import Unreadable, load_source, source_sheet, sources
from infra.errors import SlipwayError, WrongInput
from infra.store import Store

IMAGE = {"logicalType": "string", "customProperties": [{"property": "slipway.type", "value": "image"}]}


def make(columns: dict[str, Any], source: str, split: dict[str, Any] | None = None, **server: Any) -> Contract:
    document = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "made",
        "version": "1.0.0",
        "servers": [
            {
                "server": "here",
                "type": "custom",
                "customProperties": [
                    {"property": f"slipway.{key}", "value": value}
                    for key, value in {"source": source, **server}.items()
                ],
            }
        ],
        "schema": [
            {
                "name": "rows",
                "properties": [
                    {"name": name, **({"logicalType": kind} if isinstance(kind, str) else kind)}
                    for name, kind in columns.items()
                ],
            }
        ],
        "customProperties": [{"property": "slipway.split", "value": split}] if split else [],
    }
    return parse_contract(yaml.safe_dump(document), "made.odcs.yaml")


def idx(values: bytes, *sizes: int) -> bytes:
    return struct.pack(">HBB", 0, 8, len(sizes)) + struct.pack(f">{len(sizes)}I", *sizes) + values


@dataclass
class Example:
    contract: Contract
    rows: list[dict[str, Any]]
    """What was put in, in the source's order."""
    broken: tuple[str, str]
    """A file of the example that is cut short, and words of what is then said; no word: its row is kept apart."""


def files_example(folder: Path) -> Example:
    (folder / "b.jsonl").write_text('{"text": "second", "kind": 2}\n', encoding="utf-8")
    (folder / "a.csv").write_text('text,kind\n"fi\nrst",1\n', encoding="utf-8")
    made = make({"text": "string", "kind": "integer"}, "files", files=["b.jsonl", "*.csv"])
    rows = [{"text": "second", "kind": "2"}, {"text": "fi\nrst", "kind": "1"}]
    return Example(made, rows, ("a.csv", "quote opened there is never closed"))


def images_example(folder: Path) -> Example:
    rows = []
    for name, colour in (("cat/1.png", (1, 2, 3)), ("cat/2.bmp", (9, 8, 7)), ("dog/1.png", (5, 5, 5))):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (3, 2), colour).save(folder / name)
        rows.append(
            {"image": bytes(colour) * 6, "label": name[:3], "image_width": 3, "image_height": 2, "image_mode": "RGB"}
        )
    return Example(make({"image": IMAGE, "label": "string"}, "images"), rows, ("dog/1.png", ""))


def idx_example(folder: Path) -> Example:
    pixels = bytes(range(3 * 4))
    (folder / "images.gz").write_bytes(gzip.compress(idx(pixels, 3, 2, 2)))
    (folder / "labels.gz").write_bytes(gzip.compress(idx(b"\1\0\1", 3)))
    made = make({"image": IMAGE, "label": "string"}, "idx", files=["images.gz", "labels.gz"], classes=["no", "yes"])
    size = {"image_width": 2, "image_height": 2, "image_mode": "L"}
    rows = [
        {"image": pixels[4 * n : 4 * n + 4], "label": label, **size} for n, label in enumerate(["yes", "no", "yes"])
    ]
    return Example(made, rows, ("images.gz", "is not whole gzip"))


def corpus_example(folder: Path) -> Example:
    (folder / "a.txt").write_bytes("café\n".encode("latin-1"))
    (folder / "b.txt").write_text("naïve\r\n", encoding="utf-8")
    made = make({"text": "string", "document": "string"}, "corpus", encodings={"a.txt": "latin-1"})
    # The other way round: a.txt would be cut in its UTF-8, which Latin-1 has no such thing as.
    rows = [{"text": "café\n", "document": "a.txt"}, {"text": "naïve\r\n", "document": "b.txt"}]
    return Example(made, rows, ("b.txt", "is not utf-8"))


EXAMPLES: dict[str, Callable[[Path], Example]] = {
    "files": files_example,
    "images": images_example,
    "idx": idx_example,
    "corpus": corpus_example,
}
ELSEWHERE = {"library_docs", "hub", "s3", "digits", "digit_compositions"}
"""Sources that read no folder of a user's: all but the hub have tests of their own, the hub needs a network."""


def read(contract: Contract, uri: str, cache: Path) -> tuple[list[dict[str, Any]], list[Unreadable]]:
    good: list[dict[str, Any]] = []
    bad = []
    for found in load_source(contract.source).read(contract, uri, cache, None):
        if isinstance(found, Unreadable):
            bad.append(found)
        else:
            good += found.to_pylist()
    return good, bad


def test_every_option_of_a_source_is_told_of() -> None:
    for name in sources():
        said, options = source_sheet(name)
        assert said
        whole = (
            options + "".join(source_sheet(one)[1] for one in sources()) if name == "s3" else options
        )  # takes theirs
        for option in load_source(name).SERVER.keys() - {"path", "format", "columns"}:
            assert re.search(rf"\b{option}\b", whole), f"{name}: {option}"
    with pytest.raises(WrongInput, match="'imags': is unknown"):
        source_sheet("imags")


def test_every_source_has_an_example() -> None:
    assert set(sources()) == EXAMPLES.keys() | ELSEWHERE


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_was_put_in_comes_out(name: str, tmp_path: Path) -> None:
    example = EXAMPLES[name](tmp_path)
    good, bad = read(example.contract, str(tmp_path), tmp_path)
    assert not bad and [{key: row[key] for key in example.rows[0]} for row in good] == example.rows


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_fingerprint_moves_with_a_file(name: str, tmp_path: Path) -> None:
    example, source = EXAMPLES[name](tmp_path), load_source(name)
    before = source.fingerprint(example.contract, str(tmp_path), tmp_path)
    assert source.fingerprint(example.contract, str(tmp_path), tmp_path) == json.loads(json.dumps(before))
    path = tmp_path / example.broken[0]
    path.write_bytes(path.read_bytes() + b"x")
    assert source.fingerprint(example.contract, str(tmp_path), tmp_path) != before


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_file_that_was_cut_is_named(name: str, tmp_path: Path) -> None:
    example = EXAMPLES[name](tmp_path)
    file, words = example.broken
    whole = (tmp_path / file).read_bytes()
    cut = whole[:40] if name == "images" else whole[:-15]
    if name == "corpus":
        cut = whole[:3]  # in the middle of a character
    if name == "files":
        cut = whole[: whole.index(b"\nrst")]
    (tmp_path / file).write_bytes(cut)
    if words:
        with pytest.raises(WrongInput, match=words) as caught:
            read(example.contract, str(tmp_path), tmp_path)
        assert file in str(caught.value)
    else:
        good, bad = read(example.contract, str(tmp_path), tmp_path)
        assert len(good) == len(example.rows) - 1 and bad[0].file == file and bad[0].raw == cut


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_absent_folder_is_one_line(name: str, tmp_path: Path) -> None:
    example = EXAMPLES[name](tmp_path)
    with pytest.raises(WrongInput, match="no such file"):
        read(example.contract, str(tmp_path / "absent"), tmp_path)


@pytest.mark.parametrize("name", EXAMPLES)
def test_nothing_is_read_through_a_link_that_leads_out(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    example = EXAMPLES[name](tmp_path / "in")
    file = tmp_path / "in" / example.broken[0]
    file.rename(tmp_path / f"secret{file.suffix}")
    file.symlink_to(tmp_path / f"secret{file.suffix}")
    with pytest.raises(WrongInput, match="leads out of the folder"):
        read(example.contract, str(tmp_path / "in"), tmp_path)


@pytest.mark.parametrize("pattern", ["../secret.csv", "/etc/passwd", "a/../../b.csv", "~root/x.csv", "a\0.csv"])
def test_a_pattern_stays_below_the_folder(pattern: str, tmp_path: Path) -> None:
    if "\0" not in pattern:  # YAML has no NUL
        with pytest.raises(WrongInput, match="must be a path below the source's folder"):
            read(make({"text": "string"}, "files", files=[pattern]), str(tmp_path), tmp_path)


@pytest.mark.parametrize("name", EXAMPLES)
def test_s3_gives_the_same_rows(name: str, tmp_path: Path, s3_store: Store) -> None:
    (tmp_path / "in").mkdir()
    example = EXAMPLES[name](tmp_path / "in")
    for path in (tmp_path / "in").rglob("*"):
        if path.is_file():
            s3_store.upload(path, f"set/{path.relative_to(tmp_path / 'in')}")
    server = {key: value for key, value in example.contract.server.items() if key in ("files", "classes", "encodings")}
    columns = {c.name: IMAGE if c.type == "image" else c.type for c in example.contract.columns}
    columns = {key: kind for key, kind in columns.items() if not key.startswith("image_")}
    made = make(columns, "s3", reads=name, location=f"{s3_store.uri}/set/", **server)
    source = load_source("s3")
    rows = [
        row
        for found in source.read(made, None, tmp_path / "cache", None)
        if not isinstance(found, Unreadable)
        for row in found.to_pylist()
    ]
    assert [{key: row[key] for key in example.rows[0]} for row in rows] == example.rows
    before = source.fingerprint(made, None, tmp_path / "cache")
    assert before == source.fingerprint(made, f"{s3_store.uri}/set/", tmp_path / "cache")


def test_a_branch_of_the_hub_is_refused(tmp_path: Path) -> None:
    made = make({"text": "string"}, "hub", dataset="owner/name", revision="main")
    with pytest.raises(SlipwayError, match="is no commit; write its 40 hex digits"):
        load_source("hub").fingerprint(made, None, tmp_path)


# Images -------------------------------------------------------------------------------------------------------------


def test_a_list_names_images_and_what_is_said_of_them(tmp_path: Path) -> None:
    Image.new("L", (2, 2), 7).save(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text(
        "file,caption\na.png,one\nabsent.png,two\n,three\na.png,four\n", encoding="utf-8"
    )
    made = make({"image": {**IMAGE, "physicalName": "file"}, "caption": "string"}, "images", files=["list.csv"])
    good, bad = read(made, str(tmp_path), tmp_path)
    assert [(row["caption"], row["image"]) for row in good] == [("one", b"\7" * 4), ("four", b"\7" * 4)]
    assert [(found.row, found.reason) for found in bad] == [
        (2, "image: file absent.png is not there"),
        (3, "image: names no file"),
    ]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..\\x.png", "link.png"])
def test_a_name_in_a_list_cannot_lead_out(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.png").symlink_to("/etc/passwd")
    (tmp_path / "in" / "list.csv").write_text(f"file\n{name}\n", encoding="utf-8")
    made = make({"image": {**IMAGE, "physicalName": "file"}}, "images", files=["list.csv"])
    with pytest.raises(WrongInput, match=r"list.csv: row 1: image: '.*' leads out of the folder"):
        read(made, str(tmp_path / "in"), tmp_path)


@pytest.mark.parametrize(
    ("mode", "ending", "kept"),
    [("1", "png", "L"), ("L", "png", "L"), ("P", "gif", "RGB"), ("RGBA", "png", "RGBA"), ("LA", "png", "RGBA"),
     ("CMYK", "jpg", "RGB"), ("I;16", "png", "I;16"), ("F", "tif", "F")],
)  # fmt: skip
def test_a_mode_is_kept_or_made_one_that_is_known(mode: str, ending: str, kept: str, tmp_path: Path) -> None:
    image = Image.new(mode, (5, 4))
    if mode == "P":
        image.putpalette([1, 2, 3] * 256)
    image.save(tmp_path / f"a.{ending}")
    (row,), bad = read(make({"image": IMAGE}, "images"), str(tmp_path), tmp_path)
    width = {"L": 1, "RGB": 3, "RGBA": 4, "I;16": 2, "F": 4}[kept]
    assert not bad and row["image_mode"] == kept and len(row["image"]) == 5 * 4 * width


def test_what_is_transparent_shows_white(tmp_path: Path) -> None:
    Image.new("RGBA", (1, 1), (10, 20, 30, 0)).save(tmp_path / "a.png")
    (row,), _ = read(make({"image": IMAGE}, "images", mode="RGB"), str(tmp_path), tmp_path)
    assert row["image"] == b"\xff\xff\xff"


def test_the_same_pixels_are_the_same_row(tmp_path: Path) -> None:
    from data_contracts.rows import RowIds, cast

    for ending in ("png", "bmp", "tif"):
        (tmp_path / ending).mkdir()
        Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / ending / f"a.{ending}")
    made, ids = make({"image": IMAGE}, "images"), set()
    for ending in ("png", "bmp", "tif"):
        for found in load_source("images").read(made, str(tmp_path / ending), tmp_path, None):
            assert not isinstance(found, Unreadable)
            ids.update(RowIds().of(cast(found, made)[0]))
    assert len(ids) == 1


def test_idx_files_that_are_no_pair_are_refused(tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(idx(bytes(8), 2, 2, 2))
    (tmp_path / "labels").write_bytes(idx(bytes(3), 3))
    made = make({"image": IMAGE, "label": "integer"}, "idx", files=["images", "labels"])
    with pytest.raises(WrongInput, match="has 2 images, labels 3 labels"):
        read(made, str(tmp_path), tmp_path)
    (tmp_path / "labels").write_bytes(idx(bytes(2), 2) + b"x")
    with pytest.raises(WrongInput, match="labels: goes on after the rows"):
        read(made, str(tmp_path), tmp_path)
    (tmp_path / "images").write_bytes(idx(bytes(2), 2))
    with pytest.raises(WrongInput, match="images: is not IDX of unsigned bytes in 3 dimensions"):
        read(made, str(tmp_path), tmp_path)


def test_a_caption_is_made_of_each_label_and_says_where_it_goes(tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(idx(bytes(8), 2, 2, 2))
    (tmp_path / "labels").write_bytes(idx(b"\1\0", 2))
    columns = {"image": IMAGE, "caption": "string"}
    files: dict[str, Any] = {"files": ["images", "labels"], "caption": "a {label}, by hand"}
    for classes, texts in (
        (["no", "yes"], ["a yes, by hand", "a no, by hand"]),
        (None, ["a 1, by hand", "a 0, by hand"]),
    ):
        named: dict[str, Any] = {"classes": classes} if classes else {}
        made = make(columns, "idx", **files, **named)
        assert [row["caption"] for row in read(made, str(tmp_path), tmp_path)[0]] == texts
    with pytest.raises(WrongInput, match=r"slipway.caption: 'a label' has no \{label\}"):
        read(make(columns, "idx", **{**files, "caption": "a label"}), str(tmp_path), tmp_path)
    with pytest.raises(WrongInput, match="an IDX source has no 'caption'"):
        read(make(columns, "idx", files=["images", "labels"]), str(tmp_path), tmp_path)


def test_a_document_is_cut_where_the_contract_says(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcdefghij", encoding="utf-8")
    made = make({"text": "string", "split": "string"}, "corpus", cut={"train": 0.7, "test": 0.3})
    assert read(made, str(tmp_path), tmp_path)[0] == [
        {"text": "abcdefg", "split": "train"},
        {"text": "hij", "split": "test"},
    ]
    with pytest.raises(WrongInput, match=r"slipway.cut: the shares sum to 0.9"):
        read(make({"text": "string"}, "corpus", cut={"train": 0.9}), str(tmp_path), tmp_path)


@pytest.mark.parametrize("pattern", ["*.csv", "**/*.csv", "a/*.csv", "a/**", "?.csv", "[ab].csv", "[!ab].csv", "a.csv"])
def test_a_glob_finds_the_same_names_on_disk_and_in_a_store(pattern: str, tmp_path: Path) -> None:
    import glob

    from data_contracts.splits import fits

    names = ["a.csv", "b.csv", "c.csv", "a/b.csv", "a/b/c.csv", "a/x.txt", "abc.csv"]
    for name in names:
        path = tmp_path / name.replace("a/", "dir/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = glob.glob(pattern.replace("a/", "dir/"), root_dir=tmp_path, recursive=True)
    on_disk = {name.replace("dir/", "a/") for name in found if (tmp_path / name).is_file()}
    assert {name for name in names if fits(name, pattern)} == on_disk
