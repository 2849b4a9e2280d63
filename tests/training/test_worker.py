"""Attempts as plain processes, stopped, continued, starved of store, disk and memory: the run goes on, or says why."""

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from infra.store import FolderStore, Store
from tests.training.attempts import (
    RUN,
    attempt,
    kill,
    make_run,
    state_of,
    wait_for,
    work_as_one_of_several,
    work_until_one_is_out_of_memory,
)
from tests.training.gloo_group import GlooGroup
from training.feed import read_ledger
from training.run_log import RunLog, read_state


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return FolderStore(tmp_path / "store")


def steps_of(store: Store) -> list[int]:
    return [step for step, _, _ in read_state(RunLog(store, RUN)).points]


def fed(config: dict[str, Any], number: int = 1) -> int:
    """The newest step that an attempt has been given samples for."""
    entries = [{"attempt": number, "workers": 1}]
    return max(read_ledger(Path(config["ledger"]), RUN, entries), default=0)


def test_an_attempt_that_was_stopped_and_overtaken_ends_itself_and_nothing_of_it_counts(
    store: Store, tmp_path: Path
) -> None:
    config = make_run(store, tmp_path, steps=500, checkpoint_every_steps=20)
    first = attempt(config)
    wait_for(lambda: len(state_of(config).checkpoints) > 1, first)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGSTOP)
    stopped_at = fed(config)
    second = attempt(config)
    second.join()
    os.kill(first.pid, signal.SIGCONT)
    first.join()
    assert (first.exitcode, second.exitcode) == (0, 0)
    assert fed(config) < 500, "it noticed and did not train to the end"
    entries = list(RunLog(store, RUN).entries())
    taken = next(entry for entry in entries if entry["kind"] == "attempt" and entry["attempt"] == 2)
    assert [entry for entry in entries if entry["attempt"] == 1 and entry["sequence"] > taken["sequence"]] == []
    assert 0 < taken["from_step"] <= stopped_at and taken["checkpoint"]["step"] == taken["from_step"]
    state = read_state(RunLog(store, RUN))
    assert (state.status, state.attempt) == ("finished", 2)
    assert steps_of(store) == list(range(1, 501))


def test_all_workers_of_an_overtaken_attempt_end(store: Store, tmp_path: Path) -> None:
    """Also those that have not noticed, and whose neighbour's process stays, as Ray's do."""
    config = make_run(store, tmp_path, steps=400, checkpoint_every_steps=5)
    pair = GlooGroup(2, tmp_path)
    with ThreadPoolExecutor(1) as thread:
        overtaken = thread.submit(pair.run, work_as_one_of_several, config)
        wait_for(lambda: state_of(config).checkpoints)
        second = attempt(config)
        second.join()
        assert overtaken.result() == [None, None]
    pair.close()
    assert second.exitcode == 0
    assert (state_of(config).status, state_of(config).attempt) == ("finished", 2)


def test_where_one_worker_fails_for_good_the_others_are_ended_and_nothing_is_tried_again(
    store: Store, tmp_path: Path
) -> None:
    """gloo does not notice a worker that has returned: Ray ends all when one raises, and starts them once more."""
    config = make_run(store, tmp_path, steps=40)
    pair = GlooGroup(2, tmp_path)
    with pytest.raises(AssertionError, match="MemoryError"):
        pair.run(work_until_one_is_out_of_memory, config)
    assert (state_of(config).status, state_of(config).ending["exit_code"]) == ("failed", 2)
    assert pair.run(work_as_one_of_several, config) == [None, None]
    pair.close()
    assert (state_of(config).status, state_of(config).attempt) == ("failed", 1)


def test_training_goes_on_while_the_store_is_away_and_nothing_is_lost(store: Store, tmp_path: Path) -> None:
    config = make_run(store, tmp_path, steps=700, checkpoint_every_steps=30)
    process = attempt(config)
    wait_for(lambda: state_of(config).checkpoints, process)
    (tmp_path / "store").rename(tmp_path / "away")
    (tmp_path / "store").touch()  # nothing can be made below a file
    before = fed(config)
    wait_for(lambda: fed(config) > before + 60, process)
    time.sleep(2)  # heartbeats, metrics and checkpoints fall into it
    (tmp_path / "store").unlink()
    (tmp_path / "away").rename(tmp_path / "store")
    process.join()
    assert process.exitcode == 0
    state = read_state(RunLog(store, RUN))
    assert (state.status, state.attempt) == ("finished", 1)
    assert steps_of(store) == list(range(1, 701))
    metrics = [entry["time"] for entry in RunLog(store, RUN).entries() if entry["kind"] == "metrics"]
    assert all(later - earlier > 9 for earlier, later in pairwise(metrics))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip("a file system can be mounted by root alone")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_costs_nothing_but_the_checkpoints_that_did_not_fit(small_disk: Path, tmp_path: Path) -> None:
    store = FolderStore(small_disk / "store")
    config = make_run(store, tmp_path, steps=500, checkpoint_every_steps=30)
    process = attempt(config)
    wait_for(lambda: state_of(config).checkpoints, process)
    free = shutil.disk_usage(small_disk).free
    (small_disk / "ballast").write_bytes(bytes(free - free % 4096))
    before = fed(config)
    wait_for(lambda: fed(config) > before + 60, process)
    assert shutil.disk_usage(small_disk).free < 20_000, "it was full all the time"
    (small_disk / "ballast").unlink()
    process.join()
    assert process.exitcode == 0
    assert read_state(RunLog(store, RUN)).status == "finished"
    assert steps_of(store) == list(range(1, 501))


def test_a_worker_that_runs_out_of_memory_names_the_settings_to_lower(store: Store, tmp_path: Path) -> None:
    config = make_run(store, tmp_path, steps=5, batch_size=200)
    config["experiment"]["settings"] |= {"intermediate_size": 65536, "hidden_size": 8192}
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (5_000_000_000, hard))  # inherited by the child
    try:
        process = attempt(config)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    process.join()
    assert process.exitcode == 0
    state = state_of(config)
    assert (state.status, state.ending["exit_code"]) == ("failed", 2)
    assert "training.micro_batch_size (now 200 samples at once)" in state.ending["message"]
    assert "settings.max_length (now 24)" in state.ending["message"]


def test_a_run_is_stopped_after_a_checkpoint_by_an_object_that_any_host_can_write(store: Store, tmp_path: Path) -> None:
    config = make_run(store, tmp_path, steps=2000, checkpoint_every_s=1e6)
    process = attempt(config)
    wait_for(lambda: fed(config) > 5, process)
    store.put(f"runs/{RUN}/attempts/1/stop", b"{}")
    process.join()
    state = state_of(config)
    assert state.status == "stopped" and 5 < state.step < 2000
    assert state.checkpoints[-1]["step"] == state.step, "it stopped with a checkpoint of that very step"


def test_a_used_up_budget_stops_the_run_and_a_raised_one_lets_it_go_on(store: Store, tmp_path: Path) -> None:
    config = make_run(store, tmp_path, steps=300, budget={"hours": 1e-6})
    process = attempt(config)
    process.join()
    state = state_of(config)
    assert state.status == "stopped" and state.step < 300
    assert "training.budget.hours" in state.ending["reason"]
    config["experiment"]["training"]["budget"] = {"hours": 5.0}
    process = attempt(config)
    process.join()
    assert state_of(config).status == "finished"
    assert steps_of(store) == list(range(1, 301))


def test_a_killed_attempt_loses_only_what_came_after_its_checkpoint(store: Store, tmp_path: Path) -> None:
    config = make_run(store, tmp_path, steps=120, checkpoint_every_steps=10)
    first = attempt(config)
    wait_for(lambda: len(state_of(config).checkpoints) > 2, first)
    kill(first)
    second = attempt(config)
    second.join()
    assert second.exitcode == 0
    entries = [entry for entry in RunLog(store, RUN).entries() if entry["kind"] == "attempt"]
    ledger = read_ledger(Path(config["ledger"]), RUN, entries)
    assert list(ledger) == steps_of(store) == list(range(1, 121))
    assert all(len(samples) == 8 for samples in ledger.values())
