"""What a file or folder is, for a draft: the server section that reads it, and the columns it gives."""

import json
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from data_contracts.contract import DERIVED as DERIVED_SUFFIXES
from data_contracts.detection import detect, records
from data_contracts.native import Native, Unreadable
from data_contracts.places import Place
from data_contracts.sources.files import FORMATS
from data_contracts.sources.images import ENDINGS, LISTS
from data_contracts.sources.images import SERVER as IMAGES_SERVER
from data_contracts.text_lines import Lines
from infra.errors import WrongInput

MAX_FILES = 20_000
JSON_ROWS = 1000
STANDARD = ("format", "encoding")
"""What a server section says itself; the rest are custom properties."""
SPLIT_NAMES = {
    "train": r"(^|[^a-z])train(ing)?([^a-z]|$)",
    "validation": r"(^|[^a-z])(dev|valid|val|validation|eval)([^a-z]|$)",
    "test": r"(^|[^a-z])(test|testing|t10k)([^a-z]|$)",
}
LIST = re.compile(r"(?:large_|fixed_size_)?list<\w+: ([^<>]*?)(?: not null)?>(?:\[\d+\])?")
"""Arrow's name of a list of single values."""
IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")
"""How the files of images begin."""
DOCUMENTS = {".txt", ".md", ".rst", ".text", ""}


@dataclass
class Found:
    source: str
    server: dict[str, Any]
    columns: list[tuple[str, str]]
    """(name, what the data call it)."""
    types: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """Columns whose type the data say: (logicalType or "image", format)."""
    items: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """The same of the items of those columns that hold lists."""
    left_out: dict[str, str] = field(default_factory=dict)
    split: dict[str, Any] | None = None
    derived: tuple[str, ...] = ()
    folder: Path | None = None
    """What is read where it is not what was asked for: the folder of a list of pictures."""

    def section(self, path: str) -> dict[str, Any]:
        kind = "local" if self.source == "files" else "custom"
        own = {"slipway.source": self.source} if kind == "custom" else {}
        own |= {f"slipway.{key}": value for key, value in self.server.items() if key not in STANDARD}
        section: dict[str, Any] = {"server": "here", "type": kind, "path": path}
        section |= {key: self.server[key] for key in STANDARD if key in self.server}
        if own:
            section["customProperties"] = [{"property": key, "value": value} for key, value in own.items()]
        return section

    def property(self, column: tuple[str, str]) -> dict[str, Any]:
        """A column as a provisional contract has it: text, or what the data say."""
        name, physical = column
        entry: dict[str, Any] = {"name": name, "logicalType": "string"}
        if physical != name:
            entry["physicalName"] = physical
        kind, width = self.types.get(name, ("string", None))
        if kind == "image":
            entry["customProperties"] = [{"property": "slipway.type", "value": "image"}]
        else:
            entry |= typed(kind, width)
            if name in self.items:
                entry["items"] = typed(*self.items[name])
        return entry


def typed(kind: str, width: str | None) -> dict[str, Any]:
    return {"logicalType": kind, **({"logicalTypeOptions": {"format": width}} if width else {})}


def look(path: Path) -> Found:
    """Raises WrongInput for what no source reads."""
    if path.is_dir():
        return _folder(path)
    if not path.is_file() or not os.access(path, os.R_OK):
        raise WrongInput(f"source {path}: cannot be read; it must be a file that you may open")
    if path.suffix.lower() in ENDINGS:
        raise WrongInput(f"source {path}: is one image; draft the folder that holds them")
    found = _file(path)
    pictures = _listing(path.absolute().parent, path.name, found) if path.suffix.lower() in LISTS else None
    return pictures or found


def _file(path: Path) -> Found:
    server, names = detect(path)
    if server["format"] in ("parquet", "arrow"):
        return _table(path, server)
    if server["format"] in ("json", "jsonl"):
        return _json(path, server)
    return Found("files", server, [(_own(name), name) for name in names])


def _own(name: str) -> str:
    return f"{name}_" if name == "row_id" else name


def _table(path: Path, server: dict[str, Any]) -> Found:
    found = Found("files", server, [])
    try:
        with Native() as native:
            head = next(native.table(path, server["format"]))
        pictures = _pictures(path, server["format"], [one.name for one in head.schema if "binary" in _type_of(one)])
    except Unreadable as error:
        raise WrongInput(f"source {path}: is not whole {server['format'].title()} ({error}); write it again") from None
    found.derived = tuple(f"{_own(name)}_{suffix}" for name in pictures for suffix in DERIVED_SUFFIXES)
    for column in head.schema:
        arrow = _type_of(column)
        listed = LIST.fullmatch(arrow)
        item = _kind(listed[1]) if listed else None
        kind = ("array", None) if item else _kind(arrow)
        if column.name in pictures:
            kind = ("image", None)
        if column.name in found.derived:
            found.left_out[column.name] = "the decoded image says it"
        elif column.name.startswith("__index_level_"):
            found.left_out[column.name] = "the row numbers of a pandas table"
        elif kind is None:
            found.left_out[column.name] = f"{arrow} is no type that rows can have"
        elif (_own(column.name), column.name) in found.columns:
            raise WrongInput(f"source {path}: has the column '{column.name}' twice; rename one")
        else:
            found.columns.append((_own(column.name), column.name))
            found.types[_own(column.name)] = kind
            if item:
                found.items[_own(column.name)] = item
    if not found.columns:
        raise WrongInput(
            f"source {path}: has no column of a type that rows can have; there are: {dict(found.left_out)}"
        )
    return found


def _type_of(column: Any) -> str:
    return column.metadata[b"type"].decode()


def _pictures(path: Path, format: str, columns: list[str]) -> list[str]:
    """Those of the columns that hold images as bytes, by the first rows."""
    if not columns:
        return []
    with Native() as native:
        _, *batches = islice(native.table(path, format, columns, 8), 2)
    found = []
    for name in columns:
        values = [value for batch in batches for value in batch.column(name).to_pylist()]
        values = [value.get("bytes") if isinstance(value, dict) else value for value in values]
        present = [value for value in values if isinstance(value, bytes)]
        if present and all(value.startswith(IMAGES) or value[8:12] == b"WEBP" for value in present):
            found.append(name)
    return found


def _kind(arrow: str) -> tuple[str, str | None] | None:
    """An Arrow type's logicalType and format."""
    if arrow.startswith("dictionary<"):
        return _kind(arrow.removeprefix("dictionary<values=").partition(",")[0])
    if match := re.fullmatch(r"(u?int)(8|16|32|64)", arrow):
        return "integer", f"{match[1][0]}{match[2]}"
    simple: dict[str, tuple[str, str | None]] = {
        "float": ("number", "f32"),
        "halffloat": ("number", "f32"),
        "double": ("number", None),
        "bool": ("boolean", None),
        "string": ("string", None),
        "large_string": ("string", None),
        "string_view": ("string", None),
        "null": ("string", None),
        "date32[day]": ("date", None),
        "date64[ms]": ("date", None),
    }
    if arrow.startswith("timestamp["):
        return "timestamp", None
    if arrow.startswith(("decimal", "time", "duration")):
        return ("number", None) if arrow.startswith("decimal") else ("string", None)
    return simple.get(arrow)


def _json(path: Path, server: dict[str, Any]) -> Found:
    with Lines(Place(path.name, str(path), path), server.get("encoding", "utf-8-sig")) as lines:
        if server["format"] == "jsonl":
            entries = [entry for line in islice(lines, JSON_ROWS) if (entry := _object(line)) is not None]
        else:
            entries, key = _document(lines.whole(1 << 28), path)
            server = server | ({"records": key} if key else {})
    values: dict[str, list[Any]] = {}
    for entry in entries:
        for name, value in entry.items():
            values.setdefault(name, []).append(value)
    found = Found("files", server, [])
    for name, own in values.items():
        present = [value for value in own if value is not None]
        items = [item for value in present if isinstance(value, list) for item in value]
        lists = all(isinstance(value, list) for value in present)
        if any(isinstance(value, (dict, list)) for value in (items if present and lists else present)):
            found.left_out[name] = "holds objects, or lists of more than single values; unfold it into columns"
        elif present and lists:
            found.columns.append((_own(name), name))
            found.types[_own(name)], found.items[_own(name)] = ("array", None), _item(items)
        elif not name.strip():
            found.left_out[name] = "has no name"
        else:
            found.columns.append((_own(name), name))
    if not found.columns:
        raise WrongInput(
            f"source {path}: none of its objects has a plain value under any name; unfold them into columns"
        )
    return found


def _item(items: list[Any]) -> tuple[str, str | None]:
    """The type that JSON's values have; text where they differ."""
    kinds = {type(item) for item in items if item is not None}
    for kind, name in ((bool, "boolean"), (int, "integer")):
        if kinds == {kind}:
            return name, None
    return ("number" if kinds and kinds <= {int, float} else "string"), None


def _object(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _document(text: str, path: Path) -> tuple[list[dict[str, Any]], str | None]:
    """The rows of a JSON document, and the key that they are under."""
    try:
        body = json.loads(text)
    except RecursionError:
        raise WrongInput(f"source {path}: is nested too deep to be rows; write a list of flat objects") from None
    except ValueError as error:
        raise WrongInput(f"source {path}: is not JSON ({str(error)[:100]}); mend it (was the file cut off?)") from None
    key = None
    if isinstance(body, dict):
        lists = {name: value for name, value in body.items() if isinstance(value, list) and value}
        lists = {name: value for name, value in lists.items() if isinstance(value[0], dict)}
        if not lists:
            raise WrongInput(f"source {path}: is one object, not a list of them; write a list of flat objects")
        key = max(lists, key=lambda name: len(lists[name]))
        body = lists[key]
    entries = [entry for entry in body if isinstance(entry, dict)] if isinstance(body, list) else []
    if not entries:
        raise WrongInput(f"source {path}: holds no list of objects; write a list of flat objects")
    return entries[:JSON_ROWS], key


def _folder(root: Path) -> Found:
    names = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        names += [os.path.relpath(os.path.join(folder, name), root) for name in sorted(files) if name[0] != "."]
        if len(names) > MAX_FILES:
            break
    endings = Counter(Path(name).suffix.lower() for name in names)
    idx = [name for name in names if re.search(r"images.*idx3", name)]
    if idx:
        return _idx(root, names, idx)
    if any(endings[ending] for ending in ENDINGS):
        return _images(root, [name for name in names if Path(name).suffix.lower() in ENDINGS], names)
    data = [name for name in names if Path(name.removesuffix(".gz")).suffix.lower().lstrip(".") in FORMATS]
    if data:
        return _alike(root, data)
    texts = [name for name in names if Path(name).suffix.lower() in DOCUMENTS]
    if texts:
        joined = _alike(root, texts, refuse=False)
        if joined is not None and joined.server.get("separator"):
            return joined
        return _corpus([name for name in texts if name.endswith(".txt")] or texts)
    kinds = ", ".join(ending or "no ending" for ending, _ in endings.most_common(5)) or "nothing"
    raise WrongInput(f"source {root}: holds no file that a source reads (there is: {kinds}); name a file in it")


def _idx(root: Path, names: list[str], images: list[str]) -> Found:
    files = []
    for name in images:
        labels = name.replace("images", "labels").replace("idx3", "idx1")
        if labels not in names:
            raise WrongInput(f"source {root / name}: has no labels beside it ({labels}); put them there")
        files += [name, labels]
    split = _by_name(images)
    if split and "validation" not in split["files"]:
        split["validation"] = 0.1
    types: dict[str, tuple[str, str | None]] = {"image": ("image", None), "label": ("integer", "u8")}
    return Found("idx", {"files": files}, [(name, name) for name in types], types, split=split, derived=DERIVED)


DERIVED = ("image_width", "image_height", "image_mode")


def _images(root: Path, images: list[str], names: list[str]) -> Found:
    for name in names:
        if Path(name).suffix.lower() in LISTS and os.path.dirname(name) == "":
            listed = _listing(root, name, _file(root / name))
            if listed is not None:
                return listed
    types: dict[str, tuple[str, str | None]] = {"image": ("image", None)}
    if all(os.path.dirname(name) for name in images):
        folders = {name.split("/")[0] for name in images}
        split = _by_name([f"{folder}/**" for folder in sorted(folders)]) if len(folders) <= 3 else None
        return Found(
            "images", {}, [(name, name) for name in ("image", "label", "file")], types, split=split, derived=DERIVED
        )
    return Found("images", {}, [(name, name) for name in ("image", "file")], types, derived=DERIVED)


def _listing(root: Path, name: str, listed: Found) -> Found | None:
    """The images of a folder as one of its files lists them; None where that names none."""
    kind = listed.server["format"]
    column = _naming(root, name, listed) if kind in ("csv", "tsv", "jsonl") else None
    if column is None:
        return None
    server = {key: value for key, value in listed.server.items() if key != "format"}
    if unread := sorted(server.keys() - IMAGES_SERVER.keys()):
        raise WrongInput(
            f"source {root / name}: column '{column}' names pictures, and a list of pictures begins with a header and "
            f"has every field in every row (found: {', '.join(f'{key}: {server[key]}' for key in unread)}); write it so"
        )
    if kind == "tsv" and not name.lower().endswith(".tsv"):
        server["delimiter"] = "\t"
    columns = [("image", column), *(one for one in listed.columns if one[1] != column and one[0] != "image")]
    return Found(
        "images",
        {"files": [name], **server},
        columns,
        {"image": ("image", None)},
        left_out=listed.left_out,
        derived=DERIVED,
        folder=root,
    )


def _naming(root: Path, name: str, listed: Found) -> str | None:
    """The column of a list that names images below its folder."""
    rows: list[dict[str, Any]] = []
    columns = [column for _, column in listed.columns]
    if listed.server["format"] == "jsonl":
        with open(root / name, encoding="utf-8-sig") as file:
            rows = [entry for line in islice(file, 50) if (entry := _object(line))]
    else:
        text = (root / name).read_bytes()[: 1 << 16].decode(listed.server.get("encoding", "utf-8-sig"), "ignore")
        delimiter = listed.server.get("delimiter", "\t" if listed.server["format"] == "tsv" else ",")
        found = records(text, delimiter, listed.server.get("quoting", True))[:50]
        rows = [dict(zip(columns, row, strict=False)) for row in found]
    return next((column for column in columns if any(_is_image(root, row.get(column)) for row in rows)), None)


def _is_image(root: Path, value: Any) -> bool:
    """Whether a value names an image of the folder; a name that leads out of it does not."""
    if not isinstance(value, str) or Path(value).suffix.lower() not in ENDINGS:
        return False
    inside = not Path(value).is_absolute() and ".." not in Path(value).parts
    return inside and os.path.isfile(root / value)  # os: False for a name that is too long, too


def _alike(root: Path, names: list[str], refuse: bool = True) -> Any:
    """Files of one format and the same columns."""
    found = [(name, _file(root / name)) for name in names[:50]]
    first = found[0][1]
    for name, other in found[1:]:
        if (other.server, other.columns) != (first.server, first.columns):
            if not refuse:
                return None
            raise WrongInput(
                f"source {root}: {name} and {found[0][0]} are not alike (columns {_shown(other)} and {_shown(first)}); "
                "draft one of them"
            )
    split = _by_name(names)
    if not split:
        endings = sorted({Path(name).suffix for name in names})
        first.server["files"] = [
            f"**/*{ending}" if any("/" in name for name in names) else f"*{ending}" for ending in endings
        ]
    first.split = split
    return first


def _by_name(names: list[str]) -> dict[str, Any] | None:
    """Splits pinned by what the files are called, when every file's name says one."""
    files: dict[str, Any] = {}
    for name in names:
        fitting = [split for split, pattern in SPLIT_NAMES.items() if re.search(pattern, name.lower())]
        if len(fitting) != 1:
            return None
        files.setdefault(fitting[0], []).append(name)
    if len(files) < 2 or "train" not in files:
        return None
    return {"files": {split: found[0] if len(found) == 1 else found for split, found in files.items()}}


def _corpus(names: list[str]) -> Found:
    endings = sorted({Path(name).suffix for name in names})
    nested = any("/" in name for name in names)
    patterns = [f"**/*{ending}" if nested else f"*{ending}" for ending in endings]
    found = Found("corpus", {"encoding": "detect", "files": patterns}, [("text", "text"), ("document", "document")])
    found.split = _by_name(names)
    if found.split:
        del found.server["files"]
    return found


def _shown(found: Found) -> str:
    return ", ".join(physical for _, physical in found.columns[:6]) + (" ..." if len(found.columns) > 6 else "")
