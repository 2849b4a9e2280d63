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


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize("parts", [1, 3])
def test_a_file_that_says_how_many_rows_it_has_is_believed(
    contract: Maker, tmp_path: Path, ending: str, parts: int
) -> None:
    """Compressed, these rows take a hundredth of their size."""
    import pyarrow as pa
    import pyarrow.feather as feather
    import pyarrow.parquet as pq

    table = pa.table({"text": ["the same text in every row"] * 20_000, "kind": ["word"] * 20_000})
    for part in range(parts):
        path = tmp_path / f"{part}.{ending}"
        if ending == "parquet":
            pq.write_table(table, path)
        else:
            feather.write_feather(table, path, compression="zstd")
    said = Said()
    register(FolderStore(tmp_path / "store"), contract(COLUMNS, split={"test": 0, "validation": 0}),
             str(tmp_path / f"*.{ending}"), said)  # fmt: skip
    assert said.notes[0].startswith(f"about {20_000 * parts:,} rows")


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


REGISTERING = """
import json, resource, sys
from pathlib import Path
from data_contracts import memory
from data_contracts.contract import load_contract
from data_contracts.registry import register
from infra.store import FolderStore

made = []
class Kept(memory.Memory):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        made.append(self)
memory.Memory = Kept
folder = Path(sys.argv[1])
register(FolderStore(folder / "store"), load_contract(str(folder / "made.odcs.yaml")), cache=folder / "cache")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([peak, made[0]._needed(made[0].rows, made[0].rule_bytes)]))
"""


@pytest.mark.slow
def test_the_estimate_is_near_the_real_peak(
    document: Callable[..., dict[str, Any]], write: Writer, tmp_path: Path
) -> None:
    import json
    import subprocess
    import sys

    import yaml

    columns: dict[str, Any] = {
        "number": {"logicalType": "integer", "unique": True},
        **{name: {"logicalType": "string", "required": True} for name in ("text", "word", "name")},
    }
    rows = [
        {"number": number, "text": f"{number} and more of it " * 8, "word": f"word {number % 99}", "name": f"n{number}"}
        for number in range(200_000)
    ]
    write(tmp_path / "rows.parquet", rows)
    made = document(columns, path="rows.parquet", format="parquet")
    (tmp_path / "made.odcs.yaml").write_text(yaml.safe_dump(made), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", REGISTERING, str(tmp_path)], capture_output=True, text=True, check=True
    )
    peak, estimate = json.loads(done.stdout)
    assert 0.8 < estimate / peak < 1.5, f"estimated {estimate / 1e6:.0f} MB, took {peak / 1e6:.0f}"
