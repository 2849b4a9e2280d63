"""A drafted contract registers as it is, and says what it saw; what cannot be drafted is one line."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from data_contracts import hints
from data_contracts.contract import CONTRACTS, SUFFIX, Contract, parse_contract, shipped
from data_contracts.detection import detect
from data_contracts.drafting import draft
from data_contracts.editor_schema import editor_schema
from data_contracts.registry import register
from infra.errors import WrongInput
from infra.store import FolderStore

Rows = list[dict[str, Any]]


def drafted(path: Path) -> Contract:
    return parse_contract(draft(str(path)), "draft")


WORDS = ("the cat", "sat on", "the mat", "and it was", "the end", "of a", "long day", "for all of us", "in the house")


def people(count: int = 300) -> Rows:
    return [
        {
            "id": number,
            "name": f"Ann{chr(97 + number % 26)} Lee{chr(97 + number // 26)}",
            "email": f"person{number}@example.org",
            "phone": f"+49 30 {1000000 + number}",
            "user_id": f"u{number % 60}",
            "born": f"19{50 + number % 50}-0{1 + number % 9}-17",
            "height": 150 + number / 7,
            "code": f"{number:05d}",
            "text": " ".join(WORDS[(number * k) % len(WORDS)] for k in range(1, 8)) + f" {number}",
            "label": "good" if number % 3 else "bad",
        }
        for number in range(count)
    ]


def as_csv(path: Path, rows: Rows, delimiter: str = ",") -> None:
    lines = [delimiter.join(rows[0]), *(delimiter.join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def as_semicolons(path: Path, rows: Rows) -> None:
    as_csv(path, rows, ";")


def as_jsonl(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def as_json(path: Path, rows: Rows) -> None:
    path.write_text(json.dumps({"meta": {}, "rows": rows}), encoding="utf-8")


def as_parquet(path: Path, rows: Rows) -> None:
    pq.write_table(pa.Table.from_pylist([{**row, "nested": [{"a": 1}]} for row in rows]), path)


def as_arrow(path: Path, rows: Rows) -> None:
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def as_gzip(path: Path, rows: Rows) -> None:
    as_csv(path, rows)
    path.write_bytes(gzip.compress(path.read_bytes()))


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    "people.csv": as_csv,
    "people.data": as_semicolons,
    "people.jsonl": as_jsonl,
    "people.json": as_json,
    "people.parquet": as_parquet,
    "people.arrow": as_arrow,
    "people.csv.gz": as_gzip,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_draft_tells_the_same_of_any_format_and_registers(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name, people())
    made = drafted(tmp_path / name)
    kinds = {column.name: column.type for column in made.columns}
    assert made.name == "people" and made.label == "label" and made.inputs == ("text",)
    assert kinds | {"born": "date"} == dict.fromkeys(people()[0], "string") | {
        "id": "integer", "born": "date", "height": "number"
    }  # fmt: skip
    assert made.split.group == "user_id"
    assert made.column("id").unique and made.column("label").enum == ("bad", "good")
    assert made.column("code").type == "string", "a leading zero means something"
    marks = {entry["name"]: entry.get("classification") for entry in made.document["schema"][0]["properties"]}
    assert {key for key, mark in marks.items() if mark} == {"name", "email", "phone", "born"} - (
        {"born"} if not hints.personal("born", "date", ["x"]) else set()
    )
    assert all(column.severity == "warning" for column in made.columns if column.options or column.enum)
    version, _ = register(FolderStore(tmp_path / "store"), made, cache=tmp_path / "cache")
    assert version.counts["rows_in"] == 300 and version.counts["quarantined"] == 0


def test_what_a_draft_saw_is_only_a_warning_for_other_rows(tmp_path: Path) -> None:
    as_csv(tmp_path / "rows.csv", people())
    made = drafted(tmp_path / "rows.csv")
    odd = people()
    odd[7] |= {"label": "never seen", "height": 999}
    as_csv(tmp_path / "rows.csv", odd)
    version, _ = register(FolderStore(tmp_path / "store"), made, cache=tmp_path / "cache")
    assert version.counts["quarantined"] == 0
    assert {"label:enum", "height:range"} <= {warning["rule"] for warning in version.manifest["warnings"]}


def test_a_category_that_hardly_occurs_is_pointed_out(tmp_path: Path) -> None:
    rows = [{"text": f"words {number}", "label": "bad" if number % 3 else "good"} for number in range(1000)]
    rows[500]["label"] = "godo"
    as_csv(tmp_path / "rows.csv", rows)
    lines = draft(str(tmp_path / "rows.csv")).splitlines()
    assert "          - value: godo  # only 1 of 1,000: misspelt?" in lines
    assert "          - value: good" in lines


def test_a_required_value_warns_until_its_severity_line_is_taken_away(tmp_path: Path) -> None:
    as_csv(tmp_path / "rows.csv", people())
    text = draft(str(tmp_path / "rows.csv"))
    assert text.index("required") < text.index("only warns where"), "the header says it"
    strict = "          - {property: slipway.severity, value: warning}\n"
    missing = people()
    missing[7]["text"] = ""
    as_csv(tmp_path / "rows.csv", missing)
    for written, quarantined in ((text, 0), (text.replace(strict, ""), 1)):
        made = parse_contract(written, "rows")
        version, _ = register(FolderStore(tmp_path / "store"), made, cache=tmp_path / "cache")
        assert version.counts["quarantined"] == quarantined


DETECTED: dict[str, tuple[str, bytes, dict[str, Any]]] = {
    "a tab": ("x.tsv", b"a\tb\n" + b"x\t1\n" * 30, {"format": "tsv"}),
    "quotes that are text": ("x.tsv", b"a\tb\n" + b'say "no\t1\n"yes\t2\n' * 30, {"format": "tsv", "quoting": False}),
    "no header": ("x.csv", b"1,a\n2,b\n3,c\n", {"format": "csv", "columns": ["column_1", "column_2"], "header": False}),
    "a blank name": ("x.csv", b",b\n1,x\n2,y\n", {"format": "csv", "columns": ["column_1", "b"]}),
    "a name twice": ("x.csv", b"a,a\n1,x\n2,y\n", {"format": "csv", "columns": ["a", "a_2"]}),
    "a preamble": ("x.csv", b"# from somewhere\na,b\n" + b"1,x\n2,y\n" * 9, {"format": "csv", "skip": 1}),
    "rows that end early": ("x.csv", b"a,b,c,d\n" + b"1,x\n2,y,3\n" * 9, {"format": "csv", "fill": True}),
    "Latin-1": ("x.csv", b"a,b\n" + "caf\xe9 \xe0 la carte,1\n".encode("latin-1") * 40, {"format": "csv"}),
    "UTF-16": ("x.csv", ("a,b\n" + "x,1\n" * 9).encode("utf-16"), {"format": "csv", "encoding": "utf-16"}),
}


@pytest.mark.parametrize("case", DETECTED)
def test_a_format_is_told_by_the_file(case: str, tmp_path: Path) -> None:
    name, content, wanted = DETECTED[case]
    (tmp_path / name).write_bytes(content)
    server, _ = detect(tmp_path / name)
    assert {key: value for key, value in server.items() if case != "Latin-1" or key != "encoding"} == wanted
    if case == "Latin-1":
        assert content.decode(server["encoding"]).count("café à la carte") == 40


def test_of_a_table_with_remarks_the_columns_are_the_inputs(tmp_path: Path) -> None:
    lines = ["size,colour,open,months,remark,label"]
    lines += [
        f"{n % 37}.5,{('red', 'blue')[n % 2]},{('true', 'false')[n % 3 % 2]},{n % 12},{'said something of ' * 4}{n},"
        f"{('good', 'bad')[n % 2]}"
        for n in range(300)
    ]
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    assert drafted(tmp_path / "rows.csv").inputs == ("size", "colour", "open", "months")
    fewer = [",".join((cells[0], cells[4], cells[5])) for cells in (line.split(",") for line in lines)]
    (tmp_path / "texts.csv").write_text("\n".join(fewer), encoding="utf-8")
    assert drafted(tmp_path / "texts.csv").inputs == ("remark",)


@pytest.mark.parametrize(
    ("line", "at"), [("{text};{label}", "last"), ("{label} {text}", "first"), ("{text}\t{label}", "last")]
)
def test_a_label_joined_to_its_text_is_found(line: str, at: str, tmp_path: Path) -> None:
    rows = [
        line.format(text=row["text"] + (" ; and so on ." if row["id"] % 4 else "."), label=row["label"])
        for row in people(100)
    ]
    (tmp_path / "rows.txt").write_text("\n".join(rows), encoding="utf-8")
    made = drafted(tmp_path / "rows.txt")
    assert made.server["format"] == "lines" and made.server["separator_at"] == at
    assert made.label == "label" and made.inputs == ("text",) and made.column("label").enum == ("bad", "good")


def test_files_named_for_a_split_pin_it(tmp_path: Path) -> None:
    for name, rows in {"train": people()[:200], "dev": people()[200:250], "test": people()[250:]}.items():
        as_csv(tmp_path / f"{name}.csv", rows)
    made = drafted(tmp_path)
    assert made.split.files == {"train": ("train.csv",), "validation": ("dev.csv",), "test": ("test.csv",)}
    version, _ = register(FolderStore(tmp_path / "store"), made, cache=tmp_path / "cache")
    assert [version.counts[split] for split in ("train", "validation", "test")] == [200, 50, 50]


def test_folders_of_images_and_of_texts_are_drafted(tmp_path: Path) -> None:
    for number in range(40):
        folder = tmp_path / "pictures" / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), number).save(folder / f"{number}.png")
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / f"{number}.txt").write_text(f"document {number}\n" * 9, encoding="utf-8")
    pictures, texts = drafted(tmp_path / "pictures"), drafted(tmp_path / "texts")
    assert pictures.images == ("image",) and pictures.label == "label" and pictures.inputs == ("image",)
    assert texts.source == "corpus" and texts.inputs == ("text",)
    for made in (pictures, texts):
        version, _ = register(FolderStore(tmp_path / "store"), made, cache=tmp_path / "cache")
        assert version.counts["rows_in"] == 40 and version.counts["quarantined"] == 0


SAID = ("a small dog", "two red cats", "a bird", "the old man", "some children")


def pictures(folder: Path, texts: list[str], column: str = "caption", deep: tuple[int, ...] = ()) -> Path:
    """A folder `album` with a picture for each text and a list of both; those of `deep` have 16 bits."""
    (folder / "album" / "files").mkdir(parents=True)
    lines = [f"file,{column}"]
    for number, text in enumerate(texts):
        colour = (number % 256, number // 256, 7)
        deeper = Image.fromarray(np.full((2, 2), 100 * number, np.uint16))
        (deeper if number in deep else Image.new("RGB", (2, 2), colour)).save(folder / f"album/files/{number}.png")
        lines.append(f"files/{number}.png,{text}")
    (folder / "album" / "list.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "album"


def captions(count: int = 120) -> list[str]:
    return [f"{SAID[number % 5]} sits on {SAID[number // 5 % 5]} in picture {number}" for number in range(count)]


def test_a_list_of_pictures_is_drafted_as_its_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    album = pictures(tmp_path, captions())
    made = drafted(album / "list.csv")
    assert made.source == "images" and made.images == ("image",) and made.server["files"] == ["list.csv"]
    assert draft(str(album / "list.csv")) == draft(str(album))
    monkeypatch.chdir(album)
    assert draft("list.csv") == draft(str(album))
    version, _ = register(FolderStore(tmp_path / "store"), made, cache=tmp_path / "cache")
    assert version.counts["rows_in"] == 120 and version.counts["quarantined"] == 0
    (album / "elsewhere.csv").write_text("file,caption\n../x.png,a dog\n/x.png,a cat\n", encoding="utf-8")
    (tmp_path / "x.png").write_bytes((album / "files" / "0.png").read_bytes())
    assert drafted(album / "elsewhere.csv").source == "files", "these lie outside the folder"


def test_a_list_of_pictures_that_its_source_cannot_read_is_refused(tmp_path: Path) -> None:
    album = pictures(tmp_path, captions(5))
    rows = (album / "list.csv").read_text(encoding="utf-8")
    (album / "list.csv").write_text(f"# of mine\n{rows}", encoding="utf-8")
    with pytest.raises(WrongInput, match=r"column 'file' names pictures, .* begins with a header .*skip: 1"):
        draft(str(album / "list.csv"))


def test_a_list_called_csv_may_have_tabs(tmp_path: Path) -> None:
    album = pictures(tmp_path, captions())
    text = (album / "list.csv").read_text(encoding="utf-8")
    (album / "list.csv").write_text(text.replace(",", "\t"), encoding="utf-8")
    assert drafted(album).inputs == ("image", "caption")


CAPTIONED: dict[str, tuple[list[str], str, tuple[str, ...], str | None]] = {
    "a caption": (captions(), "caption", ("image", "caption"), None),
    "a caption that repeats": ([f"a picture of {SAID[n % 5]}" for n in range(120)], "said", ("image", "said"), None),
    "one word": ([f"{chr(97 + n // 12)}{chr(97 + n % 12)}o" for n in range(120)], "x", ("image", "x"), None),
    "a class": ([("cat", "dog")[n % 2] for n in range(120)], "kind", ("image",), "kind"),
    "a label of words": ([f"it is {SAID[n % 5]}" for n in range(120)], "label", ("image",), "label"),
    "codes": ([f"x-{n:05d}" for n in range(120)], "number", ("image",), None),
    "other files": ([f"my holiday at sea {n}.jpg" for n in range(120)], "from", ("image",), None),
}  # fmt: skip


@pytest.mark.parametrize("case", CAPTIONED)
def test_a_caption_is_an_input_beside_its_picture(case: str, tmp_path: Path) -> None:
    texts, column, inputs, label = CAPTIONED[case]
    album = pictures(tmp_path, texts, column, deep=(3, 4))
    text = draft(str(album))
    made = parse_contract(text, "draft")
    assert made.inputs == inputs and made.label == label, "no label by an image's mode either"
    captioned = len(inputs) == 2
    assert ("An image classifier would want a label" in text) == captioned
    assert made.split.group == ("image" if captioned else None), "captions of one picture stay together"


def test_pictures_without_a_caption_are_quarantined(tmp_path: Path) -> None:
    texts = captions()
    texts[3:33:2] = [""] * 15
    texts[50] = "  "
    made = drafted(pictures(tmp_path, texts))
    assert made.column("caption").required and made.column("caption").severity != "warning"
    version, _ = register(FolderStore(tmp_path / "store"), made, cache=tmp_path / "cache")
    assert version.counts["quarantined"] == 16 and made.quarantine_limit == 0.25
    assert not jsonschema_errors(draft(str(tmp_path / "album")))


def test_a_rare_mode_is_no_misspelling(tmp_path: Path) -> None:
    text = draft(str(pictures(tmp_path, captions(520), deep=(7,))))
    assert "misspelt" not in text
    (line,) = [line for line in text.splitlines() if "value: I;16" in line]
    assert line.endswith(
        "# only 1 of 520: training scales 16 bits to 8; without this line and the severity: quarantined"
    )
    strict = text.replace(line + "\n", "").replace("          - {property: slipway.severity, value: warning}\n", "")
    made = parse_contract(strict.replace("        customProperties:\n      - name", "      - name"), "draft")
    assert made.column("image_mode").enum == ("RGB",)


REFUSED = {
    "x.xlsx": (b"PK\x03\x04 and more", "is a ZIP archive .*; export it as CSV"),
    "x.csv": (b"", "is empty"),
    "x.txt": (b"\n\n \n", "nothing but blank lines"),
    "x.json": (b"[" * 100_000, "nested too deep"),
    "x.parquet": (b"PAR1 and no more", "is not whole Parquet"),
    "x.bin": (b"abc\0def" * 100, "holds NUL bytes"),
    "y.json": (b'{"a": 1, "b": {"c": 2}}\n{', "is not JSON"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_drafted_is_one_line(name: str, tmp_path: Path) -> None:
    content, words = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WrongInput, match=words) as caught:
        draft(str(tmp_path / name))
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "values", "meaning"),
    [
        ("contact", ["a@b.org", "c@d.net"], "e-mail address"),
        ("call", ["+49 30 1234567", "(030) 765-4321"], "phone number"),
        ("first_name", ["Ann", "Bo"], "name of a person"),
        ("name", ["Ada Lovelace", "Alan Turing"], "name of a person"),
        ("name", ["blue paint", "nail"], None),
        ("file_name", ["a.txt"], None),
        ("when", ["2024-01-01", "2024-01-02"], None),
        ("telescope", ["hubble"], None),
    ],
)
def test_personal_data_is_suspected(name: str, values: list[str], meaning: str | None) -> None:
    assert hints.personal(name, "string", values) == meaning


def test_a_language_is_guessed() -> None:
    assert hints.language(["Der Hund ist nicht auf dem Tisch und die Katze ist mit der Maus im Haus"] * 9) == "German"
    assert hints.language(["это не так просто, как кажется"] * 9) == "Russian or another in Cyrillic"
    assert hints.language(["zx qw ty"] * 100) is None


def test_the_editor_schema_takes_every_shipped_contract_and_no_other_word() -> None:
    schema = editor_schema()
    validator = jsonschema.Draft201909Validator(schema)
    for name in shipped():
        document = yaml.safe_load((CONTRACTS / f"{name}{SUFFIX}").read_text(encoding="utf-8"))
        assert list(validator.iter_errors(document)) == []
        document["customProperties"].append({"property": "slipway.lable", "value": "x"})
        assert list(validator.iter_errors(document))
        document["customProperties"][-1] = {"property": "slipway.split", "value": {"tset": 0.1}}
        assert list(validator.iter_errors(document))


def test_suggested_filters_and_budgets_register_once_they_are_taken_up(tmp_path: Path) -> None:
    rows = people()
    for row in rows:
        row["text"] += " which was read to all of them and is not for the others"
    as_csv(tmp_path / "people.csv", rows)
    text = draft(str(tmp_path / "people.csv"))
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if "property: slipway.filters" in line)
    for number in (start, start + 1):
        lines[number] = lines[number].replace("# ", "", 1)
    taken = [line.replace("# - {", "- {", 1) for line in lines]
    made = parse_contract("\n".join(taken), "draft")
    assert parse_contract(text, "draft").filters == () and made.filters[0]["where"]["operator"] == "<"
    column = made.column("text")
    assert column.length is not None and column.length["unit"] == "words"
    assert column.language == {"expected": "en", "limit": 0.05, "over": "warn"}
    version, _ = register(FolderStore(tmp_path / "store"), made)
    assert version.counts["quarantined"] == 0 and not set(version.manifest["filtered_by"]) - {"text:length"}
    assert not jsonschema_errors("\n".join(taken))


def jsonschema_errors(text: str) -> list[str]:
    return [
        error.message for error in jsonschema.Draft201909Validator(editor_schema()).iter_errors(yaml.safe_load(text))
    ]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        (
            "filters",
            [{"name": "x", "where": {"type": "comparison", "column": {"name": "a"}, "operator": "=>", "parameter": 1}}],
        ),
        ("filters", [{"name": "x"}]),
        ("filters", [{"name": "x", "where": "a > 1"}]),
        ("length", {"maximum": 0}),
        ("length", {"maximum": 5, "unit": "wrods"}),
        ("language", {"expected": "english"}),
    ],
)
def test_the_editor_schema_marks_what_the_reader_would_refuse(
    document: Callable[..., dict[str, Any]], setting: str, value: Any
) -> None:
    own = {"property": f"slipway.{setting}", "value": value}
    column = {"logicalType": "string", "customProperties": [own] if setting != "filters" else []}
    made = document({"a": column}, **({"filters": value} if setting == "filters" else {}))
    text = yaml.safe_dump(made)
    assert jsonschema_errors(text)
    with pytest.raises(WrongInput):
        parse_contract(text, "made")
