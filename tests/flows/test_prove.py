"""The proofs, short: one seed and two kills of a run that both look at. `make prove` runs them long."""

from collections.abc import Iterator

import pytest

from flows.proofs import cache, parity, resume, tracking
from flows.prove import Options, proof_names, prove
from flows.scratch import STEPS, Kill, Scratch, break_and_mend, compare_runs, scratch
from infra.errors import WrongInput

COMMAND = ["train", "scratch", "--workers", "2"]


def quiet(note: str) -> None: ...


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, ray_address: str) -> Iterator[Scratch]:
    with scratch(tmp_path_factory.mktemp("scratch"), 1, ray_address) as made:
        yield made


@pytest.fixture(scope="module")
def broken(place: Scratch) -> tuple[str, list[Kill]]:
    return break_and_mend(place, COMMAND, kills=2, seed=0, workers=2, say=quiet)


def test_a_killed_run_ends_in_the_bits_of_one_that_was_not(place: Scratch, broken: tuple[str, list[Kill]]) -> None:
    run, kills = broken
    assert len(kills) == 2
    unbroken = place.ask(*COMMAND, "--fresh")["run"]
    assert unbroken != run
    assert compare_runs(place, unbroken, run) == {
        "last_checkpoints": [STEPS, STEPS],
        "different_tensors": [],
        "weights_and_optimizer_equal": True,
        "model_equal": True,
        "curves_equal": True,
        "ledgers_equal": True,
    }


def test_a_killed_run_is_one_mlflow_run_with_each_step_once(place: Scratch, broken: tuple[str, list[Kill]]) -> None:
    found = tracking._count(place, broken[0])
    assert (found["runs"], found["duplicate_steps"], found["missing_steps"]) == (1, 0, 0)
    assert found["steps"] == STEPS
    assert found["replayed_differently"] == "", "on the same number of workers a replay finds the same values"


def test_gradients_are_the_same_on_two_workers_and_a_wrong_reduction_is_noticed() -> None:
    found = parity.prove(Options(), quiet, sizes=(1, 2))
    assert found["held"], found
    assert {one["arm"] for one in found["arms"]} == {"ddp", "fsdp", "wrong"}


def test_proofs_are_found_by_name() -> None:
    assert {"resume", "tracking", "parity"} <= set(proof_names())
    with pytest.raises(WrongInput, match="did you mean 'parity'"):
        prove("partiy", Options(), quiet)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "kills"), [(2, 50), (4, 10)])
def test_fifty_kills_leave_no_trace(workers: int, kills: int) -> None:
    found = resume.prove(Options(kills=kills, workers=workers, elastic=workers == 2), quiet)
    assert found["held"], found


@pytest.mark.slow
def test_ten_kills_leave_one_mlflow_run() -> None:
    found = tracking.prove(Options(kills=10), quiet)
    assert found["held"], found


@pytest.mark.slow
def test_gradients_are_the_same_on_four_workers() -> None:
    found = parity.prove(Options(), quiet)
    assert found["held"], found


def test_what_changed_is_rerun_and_named_and_nothing_else(ray_address: str) -> None:
    found = cache.prove(Options(), quiet, cases=cache.QUICK, address=ray_address)
    assert found["held"], found
    assert len(found["cases"]) == len(cache.QUICK)


@pytest.mark.slow
def test_a_cached_result_never_lies() -> None:
    found = cache.prove(Options(), quiet)
    assert found["held"], found
