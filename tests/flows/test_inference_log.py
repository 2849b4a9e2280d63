"""What a model saw and said is logged whole, personal values as hashes; files that do not fit are named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from data_contracts.row_sample import hidden
from flows.inference.log import FORMAT, METADATA, Answered, LogFormat, LogWriter, log_keys, now, read_log, write
from flows.inference.parts import Parts
from flows.inference.predict import Served, predict_file, predict_inputs
from infra.errors import SlipwayError, WrongInput
from infra.progress import Progress
from infra.store import FolderStore
from tests.flows.rider import LABELS, MONDAY, Rider, Rides, csv, draw


@pytest.fixture(scope="module")
def rides(tmp_path_factory: pytest.TempPathFactory) -> Rides:
    return Rides(tmp_path_factory.mktemp("rides"), draw(0, 600))


@pytest.fixture
def asked(rides: Rides) -> Served:
    for key in list(rides.store.list("inference/")):
        rides.store.delete(key)
    return Served(rides.version, rides.contract, list(rides.contract.inputs))


def everything(rides: Rides) -> pa.Table:
    found = read_log(rides.store, log_keys(rides.store, "rides"), rides.form)
    assert found.misfits == []
    return found.table


def test_a_file_is_answered_row_by_row_and_logged(rides, asked, tmp_path):
    rows = draw(3, 50)
    text = csv(rows).splitlines()
    text[0] = f"name,{text[0]}"
    lines = [text[0], *(f"n{number},{line}" for number, line in enumerate(text[1:]))]
    lines[7] = "n6,warm,town,,1,,True"
    lines[9] = "n8,0.5"
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out.parquet"
    counts = predict_file(rides.store, asked, tmp_path / "rows.csv", out, Progress("predict"), id_column="name")
    assert counts == {"rows": 50, "answered": 48, "faults": 2, "truncated": 0}
    table = parquet.read_table(out)
    facts = json.loads(table.schema.metadata[b"slipway.predictions"])
    assert (facts["format"], facts["model"], facts["labels"]) == (1, "rides/1", LABELS)
    told = table.to_pylist()
    assert told[6]["label"] is None and told[6]["error"] == "heat: 'warm' is not a number"
    assert "row" in told[8]["error"] and told[8]["id"] is None
    good = [number for number in range(50) if number not in (6, 8)]
    answers = Rider()([rows[number] for number in good])
    assert [told[number]["label"] for number in good] == [one["label"] for one in answers]
    assert [told[number]["id"] for number in good] == [f"n{number}" for number in good]
    (key,) = log_keys(rides.store, "rides")
    log = everything(rides)
    assert log["id"].to_pylist() == [f"n{number}" for number in good]
    assert log["confidence"].to_pylist() == [one["confidence"] for one in answers]
    assert log["input.heat"].to_pylist() == [rows[number]["heat"] for number in good]
    assert log["input.mail"].to_pylist() == [hidden(rows[number]["mail"], rides.contract) for number in good]
    assert b"example.org" not in rides.store.get(key)


def test_the_same_inputs_have_the_same_ids_in_any_format(rides, asked, tmp_path):
    rows = draw(4, 20)
    (tmp_path / "rows.csv").write_text(csv(rows))
    inputs = [{name: row[name] for name in rides.contract.inputs} for row in rows]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in inputs))
    parquet.write_table(pa.Table.from_pylist(inputs), tmp_path / "rows.parquet")
    found = []
    for name in ("rows.csv", "rows.jsonl", "rows.parquet"):
        predict_file(rides.store, asked, tmp_path / name, tmp_path / "out", Progress("predict"), log=False)
        found.append(parquet.read_table(tmp_path / "out").to_pylist())
    assert found[0] == found[1] == found[2] and len({row["id"] for row in found[0]}) == 20
    assert log_keys(rides.store, "rides") == []


def test_an_input_is_read_as_the_contract_says(rides, asked):
    text = '{"heat": "0.5", "place": "town", "mail": null, "season": 2}'
    (answer,) = predict_inputs(rides.store, asked, (text,))
    assert answer["label"] == "True"
    assert predict_inputs(rides.store, asked, ('[0.5, "town", "", 2]',), log=False) == [answer]
    assert everything(rides).select(["input.season", "input.mail"]).to_pylist() == [
        {"input.season": 2, "input.mail": None}
    ]
    with pytest.raises(WrongInput, match="give a JSON list of 4 values"):
        predict_inputs(rides.store, asked, ("0.5",))
    with pytest.raises(WrongInput, match="season: 'summer' is not an integer"):
        predict_inputs(rides.store, asked, ('[0.5, "town", "", "summer"]',))


@pytest.mark.parametrize("killed", ["while it answers", "between log and part"])
def test_an_interrupted_file_goes_on_where_it_was_and_is_logged_once(killed, rides, asked, tmp_path, monkeypatch):
    monkeypatch.setattr("data_contracts.text_files.BATCH_ROWS", 10)
    monkeypatch.setattr("flows.inference.predict.BATCH_ROWS", 20)
    (tmp_path / "rows.csv").write_text(csv(draw(6, 70)))

    def answer(name: str) -> dict[str, int]:
        return predict_file(rides.store, asked, tmp_path / "rows.csv", tmp_path / name, Progress("predict"))

    class Counted(Rider):
        asked, left = 0, 50 if killed == "while it answers" else 10**6

        def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            Counted.asked += len(rows)
            if Counted.asked > self.left:
                raise KeyboardInterrupt
            return super().__call__(rows)

    def add(self: Parts, number: int, table: pa.Table, counts: dict[str, int]) -> None:
        if number == 2:
            raise KeyboardInterrupt
        put(self, number, table, counts)

    put = Parts.add
    with pytest.MonkeyPatch.context() as harmed:
        harmed.setattr("flows.inference.predict.load_predictor", lambda store, model: Counted())
        if killed == "between log and part":
            harmed.setattr(Parts, "add", add)
        with pytest.raises(KeyboardInterrupt):
            answer("out.parquet")
    assert not (tmp_path / "out.parquet").exists() and (tmp_path / ".out.parquet.parts").is_dir()
    Counted.asked, Counted.left = 0, 10**6
    monkeypatch.setattr("flows.inference.predict.load_predictor", lambda store, model: Counted())
    counts = answer("out.parquet")
    assert Counted.asked == 30, "the first two parts of 20 had their answers"
    log = everything(rides)["id"].to_pylist()
    assert len(log) == 70 == len(set(log))
    assert counts == answer("whole.parquet") == {"rows": 70, "answered": 70, "faults": 0, "truncated": 0}
    assert parquet.read_table(tmp_path / "out.parquet").equals(parquet.read_table(tmp_path / "whole.parquet"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet", "rows.csv", "whole.parquet"]


def test_parts_of_another_file_are_not_gone_on_with(rides, asked, tmp_path, monkeypatch):
    monkeypatch.setattr("data_contracts.text_files.BATCH_ROWS", 10)
    monkeypatch.setattr("flows.inference.predict.BATCH_ROWS", 10)
    (tmp_path / "rows.csv").write_text(csv(draw(6, 30)))
    with pytest.MonkeyPatch.context() as harmed:
        harmed.setattr(Parts, "finish", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            predict_file(rides.store, asked, tmp_path / "rows.csv", tmp_path / "out", Progress("predict"), log=False)
    rows = draw(7, 30)
    (tmp_path / "rows.csv").write_text(csv(rows))
    predict_file(rides.store, asked, tmp_path / "rows.csv", tmp_path / "out", Progress("predict"), log=False)
    assert parquet.read_table(tmp_path / "out")["label"].to_pylist() == [one["label"] for one in Rider()(rows)]


def test_an_output_is_whole_or_absent(rides, asked, tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(draw(1, 1)[0]) + '\n{"heat": 1')
    with pytest.raises(WrongInput, match="the file is truncated"):
        predict_file(rides.store, asked, tmp_path / "rows.jsonl", tmp_path / "out.parquet", Progress("predict"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]
    with pytest.raises(WrongInput, match="has no column 'place', which contract"):
        (tmp_path / "rows.csv").write_text("heat,mail,season\n1,,2\n")
        predict_file(rides.store, asked, tmp_path / "rows.csv", tmp_path / "out.parquet", Progress("predict"))
    with pytest.raises(WrongInput, match="there is no folder"):
        predict_file(rides.store, asked, tmp_path / "rows.csv", tmp_path / "none" / "out", Progress("predict"))


def table_with(rides: Rides, **columns: Any) -> pa.Table:
    """A file of another server: ten rows in pandas' own types, some columns otherwise (None: without it)."""
    table = rides.answered(0, draw(5, 10)).drop_columns(["model", "probabilities"])
    table = table.set_column(2, "version", pa.array([1] * 10, pa.int32())).append_column(
        "seconds", pa.array([0.1] * 10)
    )
    for name, values in columns.items():
        place = table.schema.get_field_index(name.replace("__", "."))
        table = table.remove_column(place)
        if values is not None:
            table = table.add_column(place, name.replace("__", "."), values)
    return table


def test_another_servers_file_is_read(rides, asked):
    write(rides.store, "rides", table_with(rides))
    write(rides.store, "rides", table_with(rides, version=pa.array([2] * 10)))
    found = read_log(rides.store, log_keys(rides.store, "rides"), rides.form)
    assert (found.table.num_rows, found.files, found.misfits, found.others) == (10, 2, [], {2: 10})


MISFITS: dict[str, Callable[[Rides], Any]] = {
    "has no column 'prediction'": lambda rides: table_with(rides, prediction=None),
    "has no column 'input.heat'": lambda rides: table_with(rides, input__heat=None),
    "write a timestamp with a time zone": lambda rides: table_with(rides, time=pa.array([MONDAY] * 10).cast("int64")),
    "'id' is null in 1 rows": lambda rides: table_with(rides, id=pa.array([None, *"123456789"])),
    "a column is of another type than rides says": lambda rides: table_with(rides, input__heat=pa.array(["hot"] * 10)),
    "'confidence' goes from 80 to 80": lambda rides: table_with(rides, confidence=pa.array([80.0] * 10)),
    "'input.mail' is personal and not hashed": lambda rides: table_with(rides, input__mail=pa.array(["me@x.org"] * 10)),
    "its metadata have no 'slipway.inference'": lambda rides: table_with(rides).replace_schema_metadata({}),
    "format 2 is newer than this Slipway reads": lambda rides: table_with(rides).replace_schema_metadata(
        {METADATA: json.dumps({"format": FORMAT + 1})}
    ),
    "'model' 000000000000 is not the digest": lambda rides: table_with(rides).append_column(
        "model", pa.array(["0" * 64] * 10)
    ),
    "is not whole Parquet": lambda rides: b"PAR1 and then nothing",
}


@pytest.mark.parametrize("reason", MISFITS)
def test_a_file_that_does_not_fit_is_named_and_the_others_are_read(rides, asked, reason):
    write(rides.store, "rides", table_with(rides))
    made = MISFITS[reason](rides)
    if isinstance(made, bytes):
        rides.store.put("inference/rides/2026-01-01/other.parquet", made)
    else:
        write(rides.store, "rides", made)
    found = read_log(rides.store, log_keys(rides.store, "rides"), rides.form)
    assert found.table.num_rows == 10
    assert len(found.misfits) == 1 and reason in found.misfits[0] and "\n" not in found.misfits[0]


def test_files_of_earlier_days_are_left_unread(rides, asked):
    rides.store.put("inference/rides/2026-02-01/old.parquet", b"")
    rides.store.put("inference/rides/2026-03-02/new.parquet", b"")
    assert log_keys(rides.store, "rides", MONDAY) == ["inference/rides/2026-03-02/new.parquet"]


class Flaky(FolderStore):
    away = True

    def put(self, key: str, data: bytes | memoryview) -> None:
        if self.away:
            raise SlipwayError("the store is away")
        super().put(key, data)


def test_answers_wait_for_a_store_that_is_away(rides, asked, tmp_path, monkeypatch):
    """None is lost, none is written twice; past the limit the oldest are dropped, and counted."""
    monkeypatch.setattr("flows.inference.log.WAITING_ROWS", 25)
    said: list[str] = []
    store = Flaky(tmp_path)
    writer = LogWriter(store, LogFormat(rides.version, rides.contract, LABELS), said.append)
    rows = [{name: row[name] for name in rides.contract.inputs} for row in draw(1, 40)]
    for begin in range(0, 40, 10):
        part = rows[begin : begin + 10]
        writer.add(Answered([str(begin + n) for n in range(10)], now(10), part, Rider()(part)))
    writer._flush()
    assert writer.dropped == 20 and any("oldest answers are not logged" in line for line in said)
    store.away = False
    writer.close()
    found = read_log(store, log_keys(store, "rides"), rides.form).table
    assert found["id"].to_pylist() == [str(number) for number in range(20, 40)] and writer.written == 20


def test_a_log_that_cannot_be_written_at_the_end_is_said(rides, asked, tmp_path):
    writer = LogWriter(Flaky(tmp_path), LogFormat(rides.version, rides.contract))
    row = {name: draw(1, 1)[0][name] for name in rides.contract.inputs}
    writer.add(Answered(["a"], now(1), [row], Rider()([row])))
    with pytest.raises(SlipwayError, match="1 answers could not be written"):
        writer.close()


def test_the_readers_page_says_what_the_writer_writes(rides):
    text = (Path(__file__).parents[2] / "docs" / "inference.md").read_text(encoding="utf-8")
    told = [line.split("|")[1].strip(" `") for line in text.splitlines() if line.startswith("| `")]
    assert told == ["id", "time", "version", "model", "input.COLUMN", "prediction", "confidence", "probabilities"]
    assert {name for name in rides.form.schema.names if not name.startswith("input.")} == set(told) - {"input.COLUMN"}
