"""Other tools understand a version: Croissant readers, the hub; and no report tells a personal value."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_contracts.contract import Contract, parse_contract
from data_contracts.registry import Version, contract_of, read_file, read_quarantine, register
from infra.store import FolderStore

Maker = Callable[..., Contract]
Writer = Callable[..., Path]
Rows = list[dict[str, Any]]
COLUMNS: dict[str, Any] = {
    "text": {"logicalType": "string", "required": True, "description": "What was | said."},
    "kind": "string",
    "age": "integer",
    "share": {"logicalType": "number", "logicalTypeOptions": {"format": "f32"}},
    "born": "date",
    "seen": "timestamp",
    "good": "boolean",
}


@pytest.fixture
def version(
    document: Callable[..., dict[str, Any]], write: Writer, tmp_path: Path, sentences: Rows
) -> tuple[FolderStore, Version]:
    body = document(COLUMNS, label="kind", inputs=["text"]) | {
        "description": {
            "purpose": "To test.",
            "authoritativeDefinitions": [{"type": "licence", "url": "https://example.org/licence"}],
        },
        "team": {"name": "the testers"},
        "tags": ["made"],
    }
    rows = [row | {"age": index, "share": 0.5, "born": "2020-01-01", "seen": "2020-01-01T00:00:00Z", "good": "true"}
            for index, row in enumerate(sentences)]  # fmt: skip
    store = FolderStore(tmp_path / "store")
    made = parse_contract(yaml.safe_dump(body), "made.odcs.yaml")
    return store, register(store, made, str(write(tmp_path / "rows.csv", rows)))[0]


def test_croissant_is_valid_and_reads_the_rows(version: tuple[FolderStore, Version], tmp_path: Path) -> None:
    import mlcroissant

    store, made = version
    path = read_file(store, made, "croissant")  # beside it, under their addresses in it, lie the rows
    dataset = mlcroissant.Dataset(jsonld=path)
    issues = dataset.metadata.ctx.issues
    assert not issues.errors and not issues.warnings, issues.report()
    assert dataset.metadata.name == "made" and [one.uuid for one in dataset.metadata.record_sets] == [
        "train", "validation", "test"]  # fmt: skip
    rows = list(dataset.records("test"))
    assert len(rows) == made.counts["test"]
    assert set(rows[0]) == {f"test/{name}" for name in ("row_id", *COLUMNS)}
    body = json.loads(path.read_text(encoding="utf-8"))
    assert body["license"] == "https://example.org/licence" and body["creator"]["name"] == "the testers"


def test_the_card_is_one_that_the_hub_reads(version: tuple[FolderStore, Version]) -> None:
    from huggingface_hub import DatasetCard

    store, made = version
    card = DatasetCard.load(read_file(store, made, "README"))
    data = card.data.to_dict()
    assert data["license"] == "other" and data["license_link"] == "https://example.org/licence"
    assert data["size_categories"] == ["n<1K"] and data["tags"] == ["made"]
    (config,) = data["configs"]
    folder = read_file(store, made, "data/train").parent.parent
    for one in config["data_files"]:
        assert len(list(folder.glob(one["path"]))) == 1, "the hub finds each split's file beside the card"
    assert {one["name"]: one["num_examples"] for one in data["dataset_info"]["splits"]} == {
        split: made.counts[split] for split in ("train", "validation", "test")}  # fmt: skip
    assert "| text | string | input | What was \\| said. |" in card.text and "To test." in card.text


def test_the_card_loads_as_a_data_set(version: tuple[FolderStore, Version], tmp_path: Path) -> None:
    """The front matter's `configs` and `dataset_info` agree with the files, as `datasets` sees them."""
    import shutil

    import datasets

    store, made = version
    folder = tmp_path / "hub"
    shutil.copytree(read_file(store, made, "README").parent / "data", folder / "data")
    shutil.copy(read_file(store, made, "README"), folder / "README.md")
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {name: part.num_rows for name, part in loaded.items()} == {
        split: made.counts[split] for split in ("train", "validation", "test")}  # fmt: skip


SECRETS = ("jane.roe@example.org", "SECRET-WORD", "4711")


def test_no_report_tells_a_personal_value(contract: Maker, write: Writer, tmp_path: Path, sentences: Rows) -> None:
    columns = {
        "text": "string",
        "email": {"logicalType": "string", "classification": "PII", "logicalTypeOptions": {"pattern": "^[a-z]+$"}},
        "word": {"logicalType": "string", "classification": "restricted", "enum": [{"value": "plain"}]},
        "code": {"logicalType": "integer", "classification": "confidential", "logicalTypeOptions": {"maximum": 100}},
        "number": {"logicalType": "integer", "classification": "pii"},
    }
    rows = [{"text": row["text"], "email": "a", "word": "plain", "code": "1", "number": "1"} for row in sentences]
    rows[5]["email"], rows[6]["word"], rows[7]["code"], rows[8]["number"] = *SECRETS, "SECRET-WORD"
    rows[9]["email"], rows[9]["word"] = SECRETS[0], SECRETS[1]
    store = FolderStore(tmp_path / "store")
    version, _ = register(store, contract(columns, inputs=["text"], label="word"), str(write(tmp_path / "r.csv", rows)))
    assert version.counts["quarantined"] == 5
    assert contract_of(store, version).digest == version.contract_digest
    for key in store.list("datasets/"):
        if key.endswith((".json", ".md")):
            text = store.get(key).decode()
            assert not any(secret in text for secret in SECRETS[:2]), key
            assert "4711" not in text.replace(version.digest, "") or _only_in_hex(text), key
    reasons = " ".join(read_quarantine(store, version).column("reason").to_pylist())
    assert "#" in reasons and not any(secret in reasons for secret in SECRETS)


def _only_in_hex(text: str) -> bool:
    """Whether 4711 stands only inside longer runs of hex digits (digests, hashes)."""
    import re

    return not re.search(r"(?<![0-9a-f.])4711(?![0-9a-f])", text)
