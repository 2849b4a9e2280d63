"""Many register at once, and some die: a version is absent or whole, and one commit makes it."""

import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from data_contracts.audit import audit
from data_contracts.contract import Contract, parse_contract
from data_contracts.registry import damage, list_versions, register, resolve
from data_contracts.tags import history, tag
from infra.store import FolderStore, S3Store, Store

Maker = Callable[..., Contract]
Writer = Callable[..., Path]
Rows = list[dict[str, Any]]
COLUMNS = {"text": "string", "kind": "string", "age": "integer"}
# A fresh process that has imported what registering needs, and has no threads of ours.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["pytest", "data_contracts.draft", "data_contracts.version_files", "data_contracts.tags", "boto3", "datasketch"]
)


def process(job: Callable[..., None], *arguments: Any) -> Any:
    """A child that runs a function of this file; by path, because the tests are on no import path of a child's."""
    # The fork server keeps the environment of its first day.
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    started = {"JOB": (job.__name__, arguments), "AWS": aws}
    return PROCESSES.Process(target=runpy.run_path, args=(__file__, started, "__main__"))


Place = tuple[str, ...]
"""What a process needs to open the store: a folder, or bucket and prefix."""


def place_of(store: Store) -> Place:
    if isinstance(store, FolderStore):
        return (str(store.folder),)
    assert isinstance(store, S3Store)
    return (store.bucket, store.prefix, str(store.cache))


def open_place(place: Place) -> Store:
    return FolderStore(Path(place[0])) if len(place) == 1 else S3Store(place[0], place[1], Path(place[2]))


def register_in(place: Place, text: str, path: str, start: Barrier, answers: Any) -> None:
    start.wait()
    try:
        store = open_place(place)
        made = parse_contract(text, "made.odcs.yaml")
        version, created = register(store, made, path, cache=Path(path).parent / f"cache-{os.getpid()}")
        answers.put((version.digest, created))
    except Exception as error:  # the parent waits for every answer
        answers.put((repr(error), False))


def register_at_once(store: Store, made: Contract, path: Path, number: int) -> None:
    start, answers = PROCESSES.Barrier(number), PROCESSES.Queue()
    arguments = (place_of(store), made.text, str(path), start, answers)
    processes = [process(register_in, *arguments) for _ in range(number)]
    for one in processes:
        one.start()
    found = [answers.get(timeout=600) for _ in processes]  # many processes on two cores take turns
    for one in processes:
        one.join(timeout=300)
        assert one.exitcode == 0
    assert len({digest for digest, _ in found}) == 1, found
    assert sum(created for _, created in found) == 1, "one commit, the rest say it exists"
    (version,) = list_versions(store)
    assert version.digest == found[0][0] and damage(store, version) is None
    assert all(check.passed for check in audit(store, version))
    # The files that racers wrote for nothing are at most a few: the same rows make the same bytes.
    assert len(history(store, "made", "latest")) == 1


@pytest.fixture
def rows(sentences: Rows) -> Rows:
    return [row | {"age": index if index % 50 else "x"} for index, row in enumerate(sentences)]


def test_processes_that_register_one_version_commit_it_once(
    contract: Maker, write: Writer, tmp_path: Path, rows: Rows
) -> None:
    register_at_once(FolderStore(tmp_path / "store"), contract(COLUMNS), write(tmp_path / "rows.csv", rows), 8)


@pytest.mark.slow
def test_fifty_processes_commit_once(contract: Maker, write: Writer, tmp_path: Path, rows: Rows) -> None:
    register_at_once(FolderStore(tmp_path / "store"), contract(COLUMNS), write(tmp_path / "rows.csv", rows), 50)


real = pytest.mark.skipif("S3_ENDPOINT" not in os.environ, reason="needs a real S3 server: S3_ENDPOINT (make test-s3)")


@real
@pytest.mark.slow
def test_fifty_processes_commit_once_on_a_real_server(
    contract: Maker, write: Writer, s3_store: S3Store, tmp_path: Path, rows: Rows
) -> None:
    register_at_once(s3_store, contract(COLUMNS), write(tmp_path / "rows.csv", rows), 50)


def tag_in(place: Place, refs: list[str], number: int, start: Barrier) -> None:
    store = open_place(place)
    start.wait()
    for round_ in range(4):
        tag(store, refs[(number + round_) % 2], "production", f"writer {number} round {round_}")


@pytest.mark.parametrize("kind", ["folder", pytest.param("real", marks=real)])
def test_sixteen_writers_of_one_tag_lose_no_update(
    contract: Maker, write: Writer, tmp_path: Path, sentences: Rows, request: pytest.FixtureRequest, kind: str
) -> None:
    store: Store = FolderStore(tmp_path / "store") if kind == "folder" else request.getfixturevalue("s3_store")
    refs = [register(store, contract({"text": "string", "kind": "string"}),
                     str(write(tmp_path / "rows.csv", sentences[:count])))[0].ref for count in (300, 400)]  # fmt: skip
    start = PROCESSES.Barrier(16)
    writers = [process(tag_in, place_of(store), refs, number, start) for number in range(16)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=300)
        assert writer.exitcode == 0
    entries = history(store, "made", "production")
    expected = [f"writer {number} round {round_}" for number in range(16) for round_ in range(4)]
    assert sorted(entry["who"] for entry in entries) == sorted(expected)
    keys = [key.rpartition("/")[2] for key in store.list("datasets/made/refs/production/")]
    assert keys == [f"{number:012d}.json" for number in range(1, 65)]
    for number in range(16):
        own = [entry["who"] for entry in entries if entry["who"].startswith(f"writer {number} ")]
        assert own == sorted(own), "each writer's updates stand in its own order"


# Interruption -------------------------------------------------------------------------------------------------------


OURS = ("data_contracts", "infra")
LAST_CALLS = 100
"""So many calls from the end the manifest is about to be written."""


def die_at(call: int) -> list[int]:
    """Kill this process, as nothing can be caught of, at the given call of a function of ours; counts them all."""
    calls = [0]

    def count(frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "c_call") and frame.f_globals.get("__name__", "").partition(".")[0] in OURS:
            calls[0] += 1
            if calls[0] == call:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    return calls


def register_and_die(place: Place, text: str, path: str, call: int, answers: Any) -> None:
    store = open_place(place)
    made = parse_contract(text, "made.odcs.yaml")
    calls = die_at(call)
    register(store, made, path)
    sys.setprofile(None)
    answers.put(calls[0])


def interrupt(store: Store, made: Contract, path: Path, times: int) -> None:
    """Kill a registration at `times` points spread over its calls; afterwards it is absent or whole."""
    import shutil

    answers = PROCESSES.Queue()

    def run(call: int, where: Store) -> int:
        child = process(register_and_die, place_of(where), made.text, str(path), call, answers)
        child.start()
        child.join(timeout=300)
        assert child.exitcode is not None
        return int(child.exitcode)

    def clear() -> None:
        for key in list(store.list("")):
            store.delete(key)
        if isinstance(store, FolderStore):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(store.folder)

    assert run(-1, store) == 0
    total, whole = answers.get(timeout=60), resolve(store, "made").digest
    assert total > 1000
    clear()
    seen = {"absent": 0, "whole": 0}
    for number in range(times):
        # A third spread over all calls, a third over the last tenth (files), a third over the last (manifest, tag).
        share = (number + 0.5) / times
        span = (total, total // 10, LAST_CALLS)[number % 3]
        call = total - int(span * (1 - share))
        died = run(call, store) == -signal.SIGKILL
        # A retry more or less of S3's client: the very last calls may come to nothing, and the registration to its end.
        assert died or call > 0.99 * total, f"call {call} of {total}"
        versions = list_versions(store)
        seen["whole" if versions else "absent"] += 1
        for version in versions:
            assert version.digest == whole and damage(store, version) is None
            assert all(check.passed for check in audit(store, version))
        version, created = register(store, made, str(path))
        assert (version.digest, created) == (whole, not versions)
        assert resolve(store, "made").digest == whole and damage(store, version) is None
        clear()
    assert seen["absent"] and (seen["whole"] or times < 10), seen


def test_a_killed_registration_is_absent_or_whole(contract: Maker, write: Writer, tmp_path: Path, rows: Rows) -> None:
    made = contract(COLUMNS)
    interrupt(FolderStore(tmp_path / "store"), made, write(tmp_path / "rows.csv", rows), 4)


@pytest.mark.slow
def test_fifty_kills_leave_nothing_half_done(contract: Maker, write: Writer, tmp_path: Path, rows: Rows) -> None:
    made = contract(COLUMNS)
    interrupt(FolderStore(tmp_path / "store"), made, write(tmp_path / "rows.csv", rows), 50)


@real
@pytest.mark.slow
def test_fifty_kills_leave_nothing_half_done_on_a_real_server(
    contract: Maker, write: Writer, s3_store: S3Store, tmp_path: Path, rows: Rows
) -> None:
    interrupt(s3_store, contract(COLUMNS), write(tmp_path / "rows.csv", rows), 50)


if __name__ == "__main__":
    os.environ.update(globals()["AWS"])
    name, arguments = globals()["JOB"]
    globals()[name](*arguments)
