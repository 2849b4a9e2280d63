"""A checkpoint is whole or absent, is written while the training goes on, and the newest whole one is what is used."""

import json
import random
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from infra.errors import SlipwayError, WrongInput
from infra.store import ASIDE, FolderStore, Store
from tests.training.observers import Saving
from tests.training.small_task import Sequences
from training import loop
from training.checkpoint import Checkpoints, load_checkpoint, newest_whole
from training.experiment import Training
from training.pieces import named_tensors
from training.state import TrainState

ALONE = loop.World()


def state_of(step: int, width: int = 15) -> TrainState:
    """A state whose every number is drawn anew for each step."""
    task = Sequences(width).build()
    optimizer = loop.build_optimizer(task, task.phases[0], Training(steps=1, batch_size=1))
    for parameter in task.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = TrainState(task, {"all": optimizer}, {}, {"patience": step})
    state.averages = {"embed.weight": torch.empty(51, width), "best|seen": torch.empty((), dtype=torch.int64)}
    change(state, step)
    return state


def change(state: TrainState, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for value in named_tensors(state).values():
            value.copy_(torch.randint(-1000, 1000, value.shape, generator=generator))


def save(observer: Saving, step: int, state: TrainState | None = None) -> None:
    observer.save(step, state or state_of(step))
    loop.settle(observer, ALONE)


def assert_loads(store: Store, entry: dict[str, Any] | None, step: int) -> None:
    assert entry is not None and entry["step"] == step
    found = state_of(999)
    assert load_checkpoint(store, entry, found) == step
    wanted = named_tensors(state_of(step))
    for name, value in named_tensors(found).items():
        assert torch.equal(value, wanted[name]), f"{name} differs"
    assert found.facts == {"patience": step}


def files_of(store: FolderStore, entry: dict[str, Any]) -> list[Path]:
    return sorted(store.local_path(key) for key in store.list(f"{entry['place']}/"))


def test_everything_comes_back_to_the_bit(store: Store) -> None:
    observer = Saving(store, ALONE)
    save(observer, 7)
    assert_loads(store, *newest_whole(store, observer.entries)[:1], step=7)


def test_files_are_safetensors_and_json_and_carry_their_format(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    store, state = FolderStore(tmp_path), state_of(7)
    observer = Saving(store, ALONE)
    save(observer, 7, state)
    files = files_of(store, observer.entries[0])
    assert [path.name for path in files] == ["00000-000.safetensors", "00000.json", "manifest.json"]
    assert [json.loads(path.read_text())["format"] for path in files[1:]] == [2, 2]
    stored = load_file(files[0])
    assert stored.keys() == named_tensors(state).keys()
    assert torch.equal(stored["model|embed.weight"], state.task.state_dict()["embed.weight"])


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << random.randrange(8)
    path.write_bytes(data)


def cut(path: Path, place: int) -> None:
    path.write_bytes(path.read_bytes()[:place])


def lose(path: Path, place: int) -> None:
    path.unlink()


@pytest.mark.parametrize(("harm", "said"), [(flip, "was altered"), (cut, "was altered"), (lose, "is missing")])
def test_a_harmed_file_is_noticed_and_the_checkpoint_before_is_used(
    tmp_path: Path, harm: Callable[[Path, int], None], said: str
) -> None:
    store = FolderStore(tmp_path)
    observer = Saving(store, ALONE)
    for step in (1, 2):
        save(observer, step)
    seed = random.randrange(10**6)
    random.seed(seed)
    for path in files_of(store, observer.entries[1]):
        whole = path.read_bytes()
        for _ in range(8):
            harm(path, place := random.randrange(len(whole)))
            entry, skipped = newest_whole(store, observer.entries)
            where = f"{path.name} at byte {place} of {len(whole)} (seed {seed})"
            assert [one["why"] for one in skipped] == [f"{path.name} {said}"], where
            assert_loads(store, entry, 1)
            path.write_bytes(whole)
    assert_loads(store, newest_whole(store, observer.entries)[0], 2)
    assert newest_whole(store, observer.entries)[1] == []


def test_a_block_that_changes_between_the_look_and_the_reading_is_noticed(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    observer = Saving(store, ALONE)
    save(observer, 1)
    flip(files_of(store, observer.entries[0])[0], 5000)
    with pytest.raises(SlipwayError, match=r"00000-000\.safetensors was altered"):
        load_checkpoint(store, observer.entries[0], state_of(2))


def test_without_a_whole_checkpoint_all_are_named(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    observer = Saving(store, ALONE)
    for step in (1, 2):
        save(observer, step)
        lose(files_of(store, observer.entries[-1])[-1], 0)
    entry, skipped = newest_whole(store, observer.entries)
    assert entry is None
    assert [(one["step"], one["why"]) for one in skipped] == [(step, "manifest.json is missing") for step in (2, 1)]


def test_another_models_checkpoint_is_refused_by_the_first_name_that_differs(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    observer = Saving(store, ALONE)
    save(observer, 1)
    with pytest.raises(WrongInput, match=r"'embed\.weight' is 51x15 there and 51x9 in this model"):
        load_checkpoint(store, observer.entries[0], state_of(1, width=9))


def test_a_checkpoint_of_the_first_format_is_refused_in_one_line(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("runs/run/checkpoints/1/5/abc/manifest.json", b"{}")
    with pytest.raises(WrongInput, match="has format 1"):
        newest_whole(store, [{"step": 5, "place": "runs/run/checkpoints/1/5", "digest": "abc"}])


class Gated(FolderStore):
    """A folder that is slow or away as the test says."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.gate = threading.Event()
        self.gate.set()
        self.away = False

    def put(self, key: str, data: bytes | memoryview) -> None:
        assert self.gate.wait(30)
        if self.away:
            raise SlipwayError("the store is away")
        super().put(key, data)


def test_what_is_written_is_the_state_when_it_was_asked_for(tmp_path: Path) -> None:
    store = Gated(tmp_path)
    store.gate.clear()
    observer, state = Saving(store, ALONE), state_of(1)
    observer.save(1, state)
    change(state, 50)  # the training goes on at once
    assert observer.written() == (0, 0)
    store.gate.set()
    loop.settle(observer, ALONE)
    assert_loads(store, observer.entries[0], 1)


def test_a_checkpoint_that_is_due_while_another_is_written_waits_its_turn(tmp_path: Path) -> None:
    store = Gated(tmp_path)
    begun: list[int] = []

    class Slow(Saving):
        def save(self, step: int, state: TrainState) -> None:
            begun.append(step)
            super().save(step, state)
            store.gate.clear()

        def wishes(self, step: int) -> tuple[bool, bool]:
            if step in (5, 20):
                store.gate.set()
                self.wait()  # its own part; that it is whole is heard with the next step
            return super().wishes(step)

        def wait(self) -> None:
            store.gate.set()
            super().wait()

    observer = Slow(store, ALONE, wish=lambda step: (True, False), keep=9)
    config = Training(steps=30, batch_size=8, validate_every=99)
    _, finished = loop.train(Sequences(), config, ALONE, observer)
    assert finished and begun[0] == 1 and begun[-1] == 30
    assert 2 <= len([step for step in begun if 1 < step < 30]) <= 3, "as many as found the writer free"
    assert [entry["step"] for entry in observer.entries] == begun, "each became whole, in order"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.checkpoint.RETRY_S", 0.2)


def test_training_goes_on_without_the_store_and_says_so_once(tmp_path: Path, impatient: None) -> None:
    store, said = Gated(tmp_path), list[str]()
    observer = Saving(store, ALONE)
    observer.checkpoints.say = said.append
    save(observer, 1)
    store.away = True
    for step in (2, 3):
        observer.save(step, state_of(step))
        while observer.written() == (0, 0):
            pass
        observer.heard(*observer.written())
        assert not observer.checkpoints.busy
    assert_loads(store, newest_whole(store, observer.entries)[0], 1)
    assert len(said) == 1 and "step 2: the store is away" in said[0]
    store.away = False
    save(observer, 4)
    assert_loads(store, newest_whole(store, observer.entries)[0], 4)
    store.away = True
    observer.save(5, state_of(5))
    while observer.written() == (0, 0):
        pass
    assert len(said) == 2, "another outage is said again"


@pytest.fixture
def no_large_files() -> Iterator[Callable[[int], None]]:
    """Files past so many bytes cannot be written, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_checkpoint_before_and_no_rubbish(
    tmp_path: Path, impatient: None, no_large_files: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.buffers.PART_BYTES", 3000)  # several files, of which the first still fit
    store, said = FolderStore(tmp_path), list[str]()
    observer = Saving(store, ALONE)
    observer.checkpoints.say = said.append
    save(observer, 1)
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    no_large_files(5000)
    observer.save(2, state_of(2))
    while observer.written() == (0, 0):
        pass
    no_large_files(resource.RLIM_INFINITY)
    assert observer.written() == (0, 1)
    assert len(said) == 1 and "the newest whole one stays" in said[0]
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before
    assert_loads(store, newest_whole(store, observer.entries)[0], 1)


def steps_kept(store: Store) -> list[str]:
    return sorted({"/".join(key.split("/")[3:5]) for key in store.list("runs/run/checkpoints/")})


def test_the_newest_and_the_best_are_kept(store: Store) -> None:
    observer, state = Saving(store, ALONE, keep=2), state_of(0)
    for step in range(1, 7):
        state.facts = {"best": {"step": 1 if step < 3 else 3}}
        save(observer, step, state)
    assert steps_kept(store) == ["1/3", "1/5", "1/6"]
    assert observer.entries[2]["best"] == {"step": 3}


def test_checkpoints_of_attempts_before_go_once_there_are_enough_new_ones(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    first = Saving(store, ALONE, keep=2)
    for step in (1, 2):
        save(first, step)
    store.put("runs/run/checkpoints/1/3/00000-000.safetensors", b"a killed writer's")
    unfinished = tmp_path / "runs/run/checkpoints/1/3" / f"{ASIDE}4711"
    unfinished.write_bytes(b"a killed writer's")
    second = Saving(store, ALONE, keep=2, attempt=2)
    save(second, 3)
    assert steps_kept(store) == ["1/1", "1/2", "1/3", "2/3"]
    save(second, 4)
    assert steps_kept(store) == ["2/3", "2/4"] and not unfinished.exists()
    late = Saving(store, ALONE, keep=2, attempt=1)  # a process that was stopped, and does not know what came after it
    for step in (5, 6, 7):
        save(late, step)
    assert {"2/3", "2/4"} <= set(steps_kept(store)), "an attempt removes nothing of one after it"


def test_what_another_worker_writes_of_the_next_checkpoint_is_not_among_the_old_ones(tmp_path: Path) -> None:
    """At the end of a run a worker may be at its last part while the first one still commits the checkpoint before."""
    store, entries = FolderStore(tmp_path), list[dict[str, Any]]()
    pair = [Checkpoints(store, "run", 1, loop.World(rank, 2), keep=2, record=entries.append) for rank in (0, 1)]
    first, second = pair
    for step in (1, 2, 3):
        for one in pair:
            one.save(step, state_of(step))
            one.wait()
        second.heard(2, 0)
        second.save(step + 1, state_of(step + 1))
        second.wait()
        first.heard(2, 0)
        first.wait()
    assert steps_kept(store) == ["1/2", "1/3", "1/4"]
    assert "runs/run/checkpoints/1/4/00001.json" in set(store.list("runs/run/checkpoints/1/4/"))


def test_a_part_that_one_worker_lacks_makes_no_checkpoint(tmp_path: Path) -> None:
    store, entries = FolderStore(tmp_path), list[dict[str, Any]]()
    both = [Checkpoints(store, "run", 1, loop.World(rank, 2), keep=2, record=entries.append) for rank in (0, 1)]
    for one in both:
        one.save(1, state_of(1))
        one.wait()
    assert [one.written() for one in both] == [(1, 0), (1, 0)]
    for one in both:
        one.heard(1, 1)
        one.wait()
    assert entries == [] and not any(one.busy for one in both)
    for one in both:
        one.save(2, state_of(2))
        one.wait()
    for one in both:
        one.heard(1, 0)
    assert entries == [] and all(one.busy for one in both), "one is whole, the other still being written"
    for one in both:
        one.heard(2, 0)
        one.wait()
    assert [entry["step"] for entry in entries] == [2]
    assert_loads(store, entries[0], 2)
