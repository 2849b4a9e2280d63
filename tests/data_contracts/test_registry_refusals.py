"""What is refused leaves nothing behind, and says the way out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_contracts.contract import Contract
from data_contracts.registry import read_split, register
from infra.errors import Refused, WrongInput
from infra.store import FolderStore

Maker = Callable[..., Contract]
Writer = Callable[..., Path]
Rows = list[dict[str, Any]]
COLUMNS = {"text": {"logicalType": "string", "required": True}, "kind": "string"}


def test_a_source_that_moves_while_it_is_read_is_refused(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = write(tmp_path / "rows.csv", sentences)
    made = contract(COLUMNS)
    from data_contracts.sources import files

    real = files.read

    def read(*arguments: Any) -> Any:
        yield from real(*arguments)
        path.touch()

    monkeypatch.setattr(files, "read", read)
    with pytest.raises(WrongInput, match="changed while it was read"):
        register(folder, made, str(path))
    assert not list(folder.list(""))


def refused(store: FolderStore, contract: Contract, path: Path) -> str:
    with pytest.raises(Refused) as caught:
        register(store, contract, str(path))
    assert not list(store.list("")), "a refusal leaves nothing behind"
    message = str(caught.value)
    assert "\n" not in message and path.name in message
    return message


def test_a_set_that_violates_its_contract_in_every_row_is_refused(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows
) -> None:
    path = write(tmp_path / "rows.csv", sentences)
    made = contract({"text": "string", "kind": "integer"})
    assert "every row (400) violates contract made.odcs.yaml: kind:type 400 times" in refused(folder, made, path)
    short = {"logicalType": "string", "logicalTypeOptions": {"maxLength": 3}}
    assert "text:length 400 times" in refused(folder, contract(COLUMNS | {"text": short}), path)


@pytest.mark.parametrize(("limit", "refuses"), [(0.0, True), (0.024, True), (0.025, False), (1, False)])
def test_the_limit_of_quarantine_is_kept(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows, limit: float, refuses: bool
) -> None:
    rows = [row | ({"text": ""} if index % 40 == 0 else {}) for index, row in enumerate(sentences)]
    path = write(tmp_path / "rows.csv", rows)
    made = contract(COLUMNS, quarantine={"limit": limit})
    if refuses:
        assert "2.5% of 400 rows violate" in refused(folder, made, path)
    else:
        assert register(folder, made, str(path))[0].counts["quarantined"] == 10


def test_a_rule_of_the_whole_set_refuses_it(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows
) -> None:
    quality = [{"type": "library", "metric": "rowCount", "mustBeGreaterThan": 500}]
    made = contract(COLUMNS, quality=quality)
    assert "table:rowCount: 400 rows, mustBeGreaterThan 500" in refused(
        folder, made, write(tmp_path / "rows.csv", sentences)
    )


def test_an_empty_split_is_refused_with_the_way_out(
    contract: Maker, write: Writer, folder: FolderStore, tmp_path: Path, sentences: Rows
) -> None:
    path = write(tmp_path / "rows.csv", sentences[:3])
    made = contract(COLUMNS, split={"test": 0.001, "validation": 0})
    message = refused(folder, made, path)
    assert "split 'test' would be empty (3 rows" in message and "set slipway.split in made.odcs.yaml" in message
    version, _ = register(folder, contract(COLUMNS, split={"test": 0, "validation": 0}), str(path))
    assert version.counts["train"] == 3 and len(read_split(folder, version, "test")) == 0
