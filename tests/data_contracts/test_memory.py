"""What registering will take is said before it starts, and refused above a limit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_contracts.contract import Contract
from data_contracts.memory import BASE, Memory
from data_contracts.registry import register
from infra.errors import WrongInput
from infra.progress import Progress
from infra.store import FolderStore

Maker = Callable[..., Contract]
Writer = Callable[..., Path]
Rows = list[dict[str, Any]]
COLUMNS: dict[str, Any] = {"text": {"logicalType": "string", "required": True}, "kind": "string"}


class Said(Progress):
    def __init__(self) -> None:
        super().__init__("register")
        self.notes: list[str] = []

    def say(self, note: str) -> None:
        self.notes.append(note)


def test_the_estimate_is_said_first(contract: Maker, write: Writer, tmp_path: Path, sentences: Rows) -> None:
    said = Said()
    register(FolderStore(tmp_path / "store"), contract(COLUMNS), str(write(tmp_path / "rows.csv", sentences)), said)
    assert "GB of memory" in said.notes[0] and "rows" in said.notes[0]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_set_above_the_limit_is_refused_and_leaves_nothing(
    contract: Maker, write: Writer, tmp_path: Path, sentences: Rows, ending: str
) -> None:
    store = FolderStore(tmp_path / "store")
    path = str(write(tmp_path / f"rows.{ending}", sentences * 20))
    with pytest.raises(WrongInput) as caught:
        register(store, contract(COLUMNS), path, memory_limit=BASE + 100_000)
    message = str(caught.value)
    assert "the limit is 0.4 GB" in message and "SLIPWAY_MEMORY_LIMIT_GB" in message and "\n" not in message
    assert not list(store.list(""))
    register(store, contract(COLUMNS), path, memory_limit=BASE + 100_000_000)


def test_near_duplicates_take_more(contract: Maker, write: Writer, tmp_path: Path, sentences: Rows) -> None:
    path = str(write(tmp_path / "rows.csv", sentences))
    near = contract(COLUMNS, inputs=["text"], duplicates={"near": "report"})
    with pytest.raises(WrongInput, match=r"slipway\.duplicates\.near"):
        register(FolderStore(tmp_path / "store"), near, path, memory_limit=BASE + 1_000_000)
    register(FolderStore(tmp_path / "store"), contract(COLUMNS), path, memory_limit=BASE + 1_000_000)


def test_the_estimate_grows_with_the_rows(contract: Maker, sentences: Rows) -> None:
    import pyarrow as pa

    batch = pa.RecordBatch.from_pylist(sentences)
    needed = []
    for size in (10, 20):
        memory = Memory(contract(COLUMNS), batch.nbytes * size, 1)
        with pytest.raises(WrongInput):
            memory.first(batch)
        memory.limit = 10**12
        needed.append(memory.first(batch))
    assert [note.split(",")[0].split()[1] for note in needed] == ["4", "8"]
