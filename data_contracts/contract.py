"""Data contracts: Open Data Contract Standard v3 documents and what Slipway reads from them.

A contract is checked three times before a row is read: as YAML (no alias bombs, no key twice), against the JSON
schema that ships in `open-data-contract-standard` (its Python model drops misspelt keys in silence), and for what
Slipway makes of it (every column named anywhere exists). Slipway's own settings are custom properties:

    slipway.inputs       columns the model sees                                             [text]
    slipway.label        the column it predicts                                             label
    slipway.split        {test: 0.1, validation: 0.1, group: column whose rows stay together}, or kept as given:
                         {files: {train: train.csv, test: [test-*.csv]}, validation: 0.1 of the training rows}
                         {column: split, values: {dev: validation}}
    slipway.filters      [{name: too-old, where: {...}}]: rows left out on purpose (data_contracts.filters)
    slipway.null         texts that mean "no value"                                         [""]
    slipway.duplicates   {columns: [...], keep: first}: later rows equal in these are filtered (keep: all keeps them);
                         {near: quarantine, similarity: 0.8}: inputs that nearly repeat one of another split are
                         quarantined, or said (near: report)
    slipway.quarantine   {limit: 0.1}: refuse the version when a larger share of rows is quarantined
    slipway.drift        {alpha: 0.05, effect: 0.1, block: true, columns: {name: {effect: 0.2, block: false,
                         ignore: true, test: categories}}}
    slipway.slices       [column, {name: long, condition: {...}}]: parts of the test split that a model must not get
                         worse on (data_contracts.slices)

and on a column, `slipway.severity: warning` turns what its schema says from quarantine into a remark,
`slipway.length: {maximum: 200, unit: words, over: filter}` and `slipway.language: {expected: en, limit: 0.05}` are
budgets of a text column (data_contracts.budgets), and `slipway.type: image` makes a `string` column one of decoded
pixels. `slipway.condition: {type: comparison, column: {name: cnt}, operator: ">", parameter: 109}` makes a boolean
column that no source holds: whether the row meets the condition (data_contracts.conditions), a null meeting none. An
image column brings three more, which rules and models may name: NAME_width and NAME_height in pixels,
NAME_mode (L, RGB, RGBA, I;16 or F). A list is an `array` with, say, `items: {logicalType: string}`. A column's
`physicalName` is what the data call it, where that is another name.
"""

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from infra.digests import digest
from infra.errors import WrongInput, choices

CONTRACTS = Path(__file__).parent / "contracts"
SUFFIX = ".odcs.yaml"
DATA = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather", ".ipc", ".gz", ".zip", ".txt", ".xlsx")
"""Endings that no contract has. A JSON document is YAML, and may be one."""
DERIVED = {"width": "integer", "height": "integer", "mode": "string"}
"""Columns that an image column brings: NAME_width and so on."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
"""A dataset's or tag's name: a folder in the store and a word in `name@digest`."""
QUARANTINE_LIMIT = 0.1
"""Share of quarantined rows above which a version is refused where the contract says no other."""


@dataclass(frozen=True, kw_only=True)
class Column:
    name: str
    type: str
    """ODCS logicalType."""
    arrow: str
    """Name of the Arrow type that values are cast to."""
    item: str = ""
    """logicalType of a list's items."""
    required: bool = False
    unique: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    """logicalTypeOptions without the format: minimum, maxLength, pattern, minItems ..."""
    enum: tuple[Any, ...] = ()
    severity: str = "error"
    quality: tuple[dict[str, Any], ...] = ()
    length: dict[str, Any] | None = None
    """{"maximum", "unit", "over"} of a text, as `budgets` has it."""
    language: dict[str, Any] | None = None
    """{"expected", "limit", "over"} of a version's texts."""
    physical: str = ""
    """What the data call it; empty where that is its name."""
    condition: dict[str, Any] | None = None
    """Of a boolean column that no source holds: true where the row meets it."""

    @property
    def there(self) -> str:
        return self.physical or self.name


@dataclass(frozen=True, kw_only=True)
class Split:
    test: float = 0.1
    validation: float = 0.1
    """Shares of the rows, or, where files pin the splits, of the rows pinned to train."""
    group: str | None = None
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Split -> names or globs of the files that hold it."""
    column: str | None = None
    """The column that says which split a row is in."""
    values: dict[str, str] = field(default_factory=dict)
    """What that column says -> split, beside the splits' own names."""

    @property
    def pinned(self) -> bool:
        return bool(self.files) or self.column is not None


@dataclass(frozen=True, kw_only=True)
class Contract:
    name: str
    document: dict[str, Any]
    """The YAML document as plain JSON values."""
    text: str
    columns: tuple[Column, ...]
    inputs: tuple[str, ...]
    label: str | None
    split: Split
    server: dict[str, Any]
    """The server section that says where the data is, its customProperties folded in."""
    servers: tuple[dict[str, Any], ...]
    """All of them; `server` is the first, until an address asks for another."""
    nulls: tuple[str, ...]
    duplicates: dict[str, Any] | None
    quarantine_limit: float
    drift: dict[str, Any]
    quality: tuple[dict[str, Any], ...]
    """Rules of the whole table; a column's own are with the column."""
    filters: tuple[dict[str, Any], ...] = ()
    """{name, where}."""
    path: str
    """Where it was read from, as the user said it."""
    slices: tuple[Any, ...] = ()
    """Columns, and {name, condition}."""

    @cached_property
    def digest(self) -> str:
        return digest(self.document)

    @cached_property
    def schema_section(self) -> dict[str, Any]:
        """What preparing and training depend on; a new owner or description is not in it."""
        return {
            "columns": [{"name": column.name, "type": column.arrow} for column in self.columns],
            "inputs": list(self.inputs),
            "label": self.label,
        }

    @property
    def schema_digest(self) -> str:
        return digest(self.schema_section)

    @property
    def source(self) -> str:
        """Name of the file in `data_contracts/sources` that reads it."""
        return self.server["source"]

    @property
    def as_read(self) -> "Contract":
        """The contract that a source is asked for: without the columns that are made of others' values."""
        return replace(self, columns=tuple(column for column in self.columns if column.condition is None))

    @property
    def images(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.type == "image")

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


def image_columns(name: str) -> list[str]:
    """The columns that an image is read from: its pixels, and those that tell their shape."""
    return [name, *(f"{name}_{suffix}" for suffix in DERIVED)]


def shipped() -> list[str]:
    return sorted(path.name.removesuffix(SUFFIX) for path in CONTRACTS.glob(f"*{SUFFIX}"))


def load_contract(path_or_name: str) -> Contract:
    """The contract in a file, or the shipped one of that name. Raises WrongInput."""
    path = Path(path_or_name)
    if path_or_name not in shipped() and (path.is_dir() or (path.is_file() and path.suffix.lower() in DATA)):
        raise WrongInput(
            f"contract {path}: is {'a folder' if path.is_dir() else 'a file'} of data; `slipway data draft {path}` "
            f"writes a contract for it, to register with --source {path}"
        )
    if not path.is_file():
        if path_or_name in shipped():
            path = CONTRACTS / f"{path_or_name}{SUFFIX}"
        else:
            raise WrongInput(
                f"contract {path_or_name}: no such file or shipped contract; {choices(path_or_name, shipped())}"
            )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise WrongInput(f"contract {path}: is not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise WrongInput(f"contract {path}: cannot be read ({error.strerror})") from None
    return parse_contract(text, str(path))


def parse_contract(text: str, where: str) -> Contract:
    """Check a contract and take from it what Slipway needs; `where` is named in errors. Raises WrongInput."""
    from data_contracts.contract_reader import Reader
    from data_contracts.odcs import check_document, drop_empty_lists, load_yaml

    where = f"contract {where}" if not where.startswith("contract ") else where
    document = load_yaml(text, where)
    drop_empty_lists(document)
    check_document(document, where)
    return Reader(document, text, where).contract()
