import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import SlipwayError
from infra.store import FolderStore
from training.run_log import (
    AttemptLog,
    Overtaken,
    RunLog,
    RunState,
    begin_attempt,
    live_beat,
    new_entry,
    read_state,
    read_tail,
)


def _log(tmp_path: Path) -> RunLog:
    return RunLog(FolderStore(tmp_path / "store"), "model-abc-1")


def _begin(log: RunLog, attempt: int, from_step: int = 0) -> None:
    log.append("attempt", attempt, host="here", pid=1, workers=1, from_step=from_step, checkpoint=None)


def test_an_overtaken_attempt_may_write_and_nothing_of_it_counts(tmp_path: Path) -> None:
    log = _log(tmp_path)
    _begin(log, 1)
    log.append("metrics", 1, points=[[step, {"loss": 1.0}, 0.0] for step in range(1, 8)])
    log.append("checkpoint", 1, step=5, place="p", digest="d")
    _begin(log, 2, from_step=5)
    log.append("metrics", 1, points=[[8, {"loss": 9.0}, 0.0]])  # the old one goes on
    log.append("checkpoint", 1, step=8, place="p", digest="late")
    log.append("finished", 1, model="wrong", steps=8)
    log.append("metrics", 2, points=[[6, {"loss": 2.0}, 0.0]])
    state = read_state(log)
    assert [(step, values["loss"]) for step, values, _ in state.points] == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0),
                                                                            (5, 1.0), (6, 2.0)]  # fmt: skip
    assert [one["digest"] for one in state.checkpoints] == ["d"]
    assert state.status == "running"


def _attempt(log: RunLog, driver: str = "d", from_step: int = 0) -> AttemptLog:
    state = read_tail(log)
    return begin_attempt(log, state, state.attempt, driver, workers=1, from_step=from_step, checkpoint=None)


def test_of_500_writes_after_the_take_over_none_counts(tmp_path: Path) -> None:
    log = _log(tmp_path)
    old = _attempt(log)
    old.append("checkpoint", step=5, place="p", digest="d", points=[[5, {"loss": 1.0}, 0.0]])
    new = _attempt(log, "another", from_step=5)
    for number in range(500):
        with pytest.raises(Overtaken, match=f"overtaken by attempt 2 on .* .process {os.getpid()}.*from step 5"):
            old.append("metrics", points=[[6 + number, {"loss": 9.0}, 0.0]])
    assert log.last_sequence() == 3, "what it wrote is not even there"
    log.beat(2)
    for number in range(250):  # and by force, as no attempt can
        log.append("metrics", 1, points=[[6 + number, {"loss": 9.0}, 0.0]])
        log.append("checkpoint", 1, step=6 + number, place="p", digest="late", before=old.state.position())
    new.append("metrics", points=[[6, {"loss": 2.0}, 0.0]])
    for state in (read_state(log), read_tail(log)):
        assert [one["digest"] for one in state.checkpoints] == ["d"]
        assert [(step, values["loss"]) for step, values, _ in state.points] == [(5, 1.0), (6, 2.0)]


def test_a_driver_replaces_its_own_workers_and_nobody_elses(tmp_path: Path) -> None:
    log = _log(tmp_path)
    first = _attempt(log, "ours")
    facts: dict[str, Any] = {"workers": 1, "from_step": 0, "checkpoint": None}
    second = begin_attempt(log, read_tail(log), 0, "ours", **facts)
    assert (first.attempt, second.attempt) == (1, 2)
    with pytest.raises(Overtaken, match="attempt 2"):  # it looked when there was none
        begin_attempt(log, read_tail(log), 0, "theirs", **facts)
    stale = read_tail(log)
    third = begin_attempt(log, read_tail(log), 2, "theirs", **facts)
    with pytest.raises(Overtaken, match="attempt 3"):  # it looked before the other began
        begin_attempt(log, stale, 2, "third", **facts)
    assert third.attempt == read_state(log).attempt == 3


class Lossy(FolderStore):
    """Every second write arrives, and its answer is lost."""

    writes = 0

    def create(self, key: str, data: bytes) -> bool:
        self.writes += 1
        done = super().create(key, data)
        if self.writes % 2:
            raise SlipwayError("the connection was lost")
        return done


def test_a_write_whose_answer_was_lost_is_not_written_twice(tmp_path: Path) -> None:
    log = RunLog(Lossy(tmp_path / "store"), "model-abc-1")
    writer = AttemptLog(log, RunState(log.run), 0)
    begun = new_entry("attempt", 1, {"from_step": 0, "host": "here", "pid": 1})
    for entry in (begun, *(new_entry("metrics", 1, {"points": [[step, {}, 0.0]]}) for step in range(1, 9))):
        while True:
            try:
                writer.settle(entry)
                writer.attempt = 1
                break
            except SlipwayError as error:
                assert "lost" in str(error)
    assert [step for step, _, _ in read_state(log).points] == list(range(1, 9))
    assert log.last_sequence() == 9


class Counting(FolderStore):
    reads = 0

    def get(self, key: str) -> bytes:
        self.reads += 1
        return super().get(key)


def test_a_reader_starts_from_the_newest_checkpoint(tmp_path: Path) -> None:
    log = RunLog(Counting(tmp_path / "store"), "model-abc-1")
    log.append("run", key="k")
    writer = _attempt(log)
    for step in range(1, 301):
        whole = {"step": step, "place": "p", "digest": str(step)} if step % 100 == 0 else {}
        writer.append("checkpoint" if whole else "metrics", points=[[step, {"loss": 1.0}, 0.0]], **whole)
    writer.append("metrics", points=[[301, {"loss": 1.0}, 0.0]])
    log.store.reads = 0  # type: ignore[attr-defined]
    state = read_tail(log)
    assert log.store.reads < 10  # type: ignore[attr-defined]
    assert (state.step, state.attempt, state.first["key"]) == (301, 1, "k")
    assert [one["step"] for one in state.checkpoints] == [100, 200, 300]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("metrics"), st.integers(1, 3)),
            st.tuples(st.just("checkpoint"), st.integers(1, 3)),
            st.tuples(st.just("attempt"), st.integers(0, 5)),
            st.tuples(st.just("mlflow"), st.just(0)),
            st.tuples(st.just("late"), st.integers(1, 3)),
        ),
        max_size=30,
    )
)
def test_from_the_newest_checkpoint_a_reader_learns_what_the_whole_log_says(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int]]
) -> None:
    """Whatever the history: attempts that overtake each other, from any checkpoint, and write on after that."""
    log = _log(tmp_path_factory.mktemp("history"))
    log.append("run", key="k")
    writers = [_attempt(log)]
    log.beat(1)
    step = 0
    for kind, number in events:
        state = read_state(log)
        if kind == "attempt":
            known = [0, *(one["step"] for one in state.checkpoints)]
            step = known[-1 - min(number, len(known) - 1)]
            writers.append(_attempt(log, str(len(writers)), from_step=step))
            log.beat(len(writers))
        elif kind == "mlflow":
            log.append("mlflow", mlflow_run=str(state.sequence))
        elif kind == "late" and len(writers) > 1:
            late = {"step": step + number, "place": "p", "digest": "late", "before": writers[0].state.position()}
            log.append("checkpoint", 1, points=[[step + number, {"loss": 9.0}, 0.0]], **late)
        elif kind in ("metrics", "checkpoint"):
            step += number
            facts = {"step": step, "place": "p", "digest": str(step)} if kind == "checkpoint" else {}
            writers[-1].append(kind, points=[[step, {"loss": 1.0}, 0.0]], **facts)
    whole, tail = read_state(log), read_tail(log)
    for name in ("first", "attempt", "attempt_entry", "status", "mlflow_run", "sequence", "step"):
        assert getattr(tail, name) == getattr(whole, name), name
    assert tail.checkpoints == whole.checkpoints[-len(tail.checkpoints) :] if tail.checkpoints else True
    assert len(tail.checkpoints) >= min(8, len(whole.checkpoints))
    assert tail.points == whole.points[len(whole.points) - len(tail.points) :]


def test_an_attempt_is_alive_while_its_heartbeat_is_young_and_its_process_there(tmp_path: Path) -> None:
    log = _log(tmp_path)
    log.append("attempt", 1, host="elsewhere", pid=1, from_step=0)
    assert live_beat(log, read_tail(log)), "it began just now and has not been heard yet"
    log.beat(1, host="elsewhere", pid=7)
    beat = live_beat(log, read_tail(log))
    assert beat and beat["pid"] == 7
    for age, alive in ((59, True), (61, False)):
        log.beat(1, host="elsewhere", pid=7, time=time.time() - age)
        assert bool(live_beat(log, read_tail(log))) == alive
    child = multiprocessing.get_context("fork").Process(target=os.getpid)
    child.start()
    child.join()
    log.beat(1, host=os.uname().nodename, pid=child.pid)
    assert live_beat(log, read_tail(log)) is None, "a dead process of this host needs no waiting for"
    log.append("stopped", 1)
    log.beat(1, host="elsewhere", pid=7)
    assert live_beat(log, read_tail(log)) is None


def test_a_run_says_how_it_ended(tmp_path: Path) -> None:
    log = _log(tmp_path)
    assert read_state(log).status == "new"
    _begin(log, 1)
    assert read_state(log).status == "running"
    log.append("stopped", 1)
    assert read_state(log).status == "stopped"
    _begin(log, 2)
    log.append("finished", 2, model="m", steps=3)
    state = read_state(log)
    assert (state.status, state.ending["model"]) == ("finished", "m")


def test_a_step_counts_once_though_its_points_are_sent_again(tmp_path: Path) -> None:
    log = _log(tmp_path)
    _begin(log, 1)
    log.append("metrics", 1, points=[[1, {"loss": 0.1, "accuracy": 0.5}, 0.0], [3, {"loss": 0.3}, 0.0]])
    log.append("metrics", 1, points=[[3, {"loss": 0.3}, 0.0], [4, {"loss": 0.4}, 0.0]])
    assert read_state(log).curves() == {"loss": [(1, 0.1), (3, 0.3), (4, 0.4)], "accuracy": [(1, 0.5)]}


def _write(folder: str, writer: int) -> None:
    log = RunLog(FolderStore(Path(folder)), "model-abc-1")
    for number in range(20):
        log.append("metrics", 0, points=[[writer * 100 + number, {}, 0.0]])


def test_writers_that_meet_lose_no_entry(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(str(tmp_path / "store"), writer)) for writer in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()  # its exit code is that of what others have left to be done at an exit
    entries = list(_log(tmp_path).entries())
    assert [entry["sequence"] for entry in entries] == list(range(1, 81))
    assert len({entry["points"][0][0] for entry in entries}) == 80
