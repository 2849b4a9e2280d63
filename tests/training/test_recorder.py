"""What a worker records survives a store that is away; the machine's figures go with the steps."""

from pathlib import Path

import pytest

from infra.errors import SlipwayError
from infra.store import FolderStore
from training.experiment import Training
from training.recorder import Recorder
from training.run_log import Overtaken, RunLog, begin_attempt, read_state, read_tail
from training.sharding import World

RUN = "example-0123456789ab-1"


def recorder(folder: Path) -> Recorder:
    log = RunLog(FolderStore(folder / "store"), RUN)
    writer = begin_attempt(log, read_tail(log), read_tail(log).attempt, "d", workers=1, from_step=0, checkpoint=None)
    return Recorder(log, writer.attempt, World(), Training(steps=9), 9, 0, writer=writer)


def test_metrics_that_could_not_be_written_are_written_later_and_once(tmp_path: Path) -> None:
    one = recorder(tmp_path)
    for step in range(1, 4):
        one.metrics(step, {"loss": 1.0})
    (tmp_path / "store").rename(tmp_path / "away")
    (tmp_path / "store").touch()
    for _ in range(2):
        with pytest.raises(SlipwayError):
            one._flush()
    one.finding(3, "layer 2: half of the units are dead")
    one.metrics(4, {"loss": 1.0})
    (tmp_path / "store").unlink()
    (tmp_path / "away").rename(tmp_path / "store")
    one.end("stopped")
    entries = list(one.log.entries())
    assert [step for step, _, _ in read_state(one.log).points] == [1, 2, 3, 4]
    assert [entry["kind"] for entry in entries] == ["attempt", "finding", "stopped"]


def test_one_that_was_overtaken_wishes_to_stop_and_saves_nothing(tmp_path: Path) -> None:
    one = recorder(tmp_path)
    assert one.wishes(1) == (False, False)
    begin_attempt(one.log, read_tail(one.log), 1, "another", workers=1, from_step=0, checkpoint=None)
    with pytest.raises(Overtaken):
        one._beat()
    one.metrics(1, {"loss": 1.0})
    with pytest.raises(Overtaken):
        one._flush()
    assert one.wishes(1) == (False, True)
    assert read_state(one.log).points == []


def test_the_machines_figures_go_with_the_next_step_once(tmp_path: Path) -> None:
    one = recorder(tmp_path)
    one.machine.look()
    one.metrics(1, {"loss": 1.0})
    one.metrics(2, {"loss": 1.0})
    one.machine.look()
    one.metrics(3, {"loss": 1.0})
    one.end("stopped")
    first, second, third = (values for _, values, _ in read_state(one.log).points)
    assert {"system/cpu_percent", "system/memory_gb", "system/process_memory_gb"} <= first.keys()
    assert second.keys() == {"loss"}
    assert third["system/samples_per_s"] > 0
