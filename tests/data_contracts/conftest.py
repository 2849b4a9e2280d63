"""Makers of contracts and files. They are functions handed out once a session, so that Hypothesis may use them."""

import csv
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_contracts.contract import Contract, parse_contract
from infra.store import FolderStore

Rows = list[dict[str, Any]]


def _document(columns: dict[str, Any], path: str = "rows.csv", format: str = "csv", **settings: Any) -> dict[str, Any]:
    quality = settings.pop("quality", None)
    server = settings.pop("server", {})
    table: dict[str, Any] = {
        "name": "rows",
        "properties": [
            {"name": name, **({"logicalType": facts} if isinstance(facts, str) else facts)}
            for name, facts in columns.items()
        ],
    }
    if quality:
        table["quality"] = quality
    return {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": settings.pop("id", "made"),
        "version": "1.0.0",
        "status": "active",
        "servers": [
            {
                "server": "here",
                "type": "local",
                "path": path,
                "format": format,
                "customProperties": [{"property": f"slipway.{key}", "value": value} for key, value in server.items()],
            }
        ],
        "schema": [table],
        "customProperties": [{"property": f"slipway.{key}", "value": value} for key, value in settings.items()],
    }


@pytest.fixture(scope="session")
def document() -> Callable[..., dict[str, Any]]:
    """document({"text": "string"}, label="kind") -> an ODCS document; keywords are `slipway.*` settings."""
    return _document


@pytest.fixture(scope="session")
def contract() -> Callable[..., Contract]:
    """The same, parsed; once for each text, because Hypothesis asks a hundred times."""
    parse = functools.cache(parse_contract)

    def make(columns: dict[str, Any], **settings: Any) -> Contract:
        return parse(yaml.safe_dump(_document(columns, **settings), sort_keys=False), "made.odcs.yaml")

    return make


@pytest.fixture(scope="session")
def write() -> Callable[[Path, Rows], Path]:
    """Write rows in the format that the file's ending says, as any other program would."""

    def to_file(path: Path, rows: Rows) -> Path:
        names = list(rows[0])
        if path.suffix in (".csv", ".tsv"):
            with open(path, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, names, delimiter="\t" if path.suffix == ".tsv" else ",")
                writer.writeheader()
                writer.writerows(rows)
        elif path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(rows), path)
        return path

    return to_file


@pytest.fixture(scope="session")
def sentences() -> Rows:
    """400 labelled sentences, all different: enough that no split is empty."""
    kinds = ("fruit", "metal", "river")
    return [
        {"text": f"sentence number {index} on a {kinds[index % 3]}", "kind": kinds[index % 3]} for index in range(400)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")
