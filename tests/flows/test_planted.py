"""Bad candidates, each with one thing wrong: the gate meant for it says no, and which others object is stated.

All gates there are judge each of them. Nothing is trained: evaluations, data and packages are stored as training would
have stored them.
"""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from flows.judging.evidence import Evidence, Subject
from flows.judging.gate import gate_names, parse_gates, run_gates
from tests.flows.conftest import CONTRACT, SLICES
from tests.flows.gate_examples import contamination as leaking
from tests.flows.gate_examples import package as packaging
from tests.flows.gate_examples.slices import confused
from training.run_log import RunLog

GATES: dict[str, Any] = {
    "threshold": {"metric": "accuracy", "minimum": 0.6},
    "champion": {"margin": 0.06},
    "baseline": {"margin": 0.02},
    "beats_baseline": {"severity": "block"},
    "slices": {},
    "calibration": {"maximum": 0.1},
    "drift": {},
    "contract": {},
    "freshness": {"maximum_age_days": 30.0},
    "contamination": {"maximum_share": 0.02},
    "label_issues": {"maximum_share": 0.15},
    "energy": {"maximum_kwh": 1.0},
    "package": {},
    "answers": {},
    "latency": {"p95_ms": 100.0},
    "size": {"maximum_mb": 2.0},
}
PACKAGED = ("package", "answers", "latency", "size")
"""Gates that start a process."""

Planted = tuple[Subject, Subject | None]
"""Candidate and champion."""


def make(
    world: Any,
    right: float = 0.9,
    baseline: float = 0.8,
    dataset: str = "named",
    plant: Callable[[pa.Table], pa.Table] = lambda table: table,
    **package: Any,
) -> Subject:
    wanted: dict[str, Any] = {"answer": "record", "right": right, "dataset": dataset, "plant": plant, **package}
    address = packaging.save_package(world, **wanted) if world.packages else "models:/none"
    candidate = world.candidate(right=right, baseline=baseline, dataset=dataset, package=address, plant=plant)
    log = RunLog(world.store, candidate.run)
    log.append("run", experiment={}, key="", author="mel")
    log.append("finished", model=candidate.model, energy_kwh=0.01, co2_kg=0.004)
    return candidate


def good(world: Any) -> Planted:
    return make(world, right=0.91), world.promote(make(world))


def worse_than_the_champion(world: Any) -> Planted:
    return make(world, right=0.86), world.promote(make(world, right=0.95))


def worse_on_one_slice(world: Any) -> Planted:
    return make(world, plant=confused), world.promote(make(world))


def unsure(table: pa.Table) -> pa.Table:
    """Right as often, and says that it is right in six of ten."""
    return table.set_column(table.column_names.index("confidence"), "confidence", pa.array([0.6] * table.num_rows))


def badly_calibrated(world: Any) -> Planted:
    return make(world, plant=unsure), world.promote(make(world))


def no_better_than_the_baseline(world: Any) -> Planted:
    return make(world, right=0.9, baseline=0.9), world.promote(make(world))


def trained_on_leaked_data(world: Any) -> Planted:
    leaking.add_pinned(world, False, leaking.PINNED + SLICES)
    return make(world, dataset="pinned"), world.promote(make(world, dataset="pinned"))


def trained_on_stale_data(world: Any) -> Planted:
    rows = [f"{label} {n} is here,{label}" for n in range(300) for label in ("ant", "bee", "cat")]
    world.add_dataset("stale", "text,label\n" + "\n".join(rows) + "\n", CONTRACT + SLICES, age_days=90)
    return make(world, dataset="stale"), world.promote(make(world, dataset="stale"))


def trained_on_drifted_data(world: Any) -> Planted:
    return make(world, dataset="drifted"), world.promote(make(world, dataset="old"))


def with_a_package_that_does_not_load(world: Any) -> Planted:
    return make(world, answer="torn"), world.promote(make(world))


def whose_answers_differ_after_packaging(world: Any) -> Planted:
    return make(world, answer="ant"), world.promote(make(world))


def too_slow(world: Any) -> Planted:
    return make(world, seconds=0.2), world.promote(make(world))


def too_big(world: Any) -> Planted:
    return make(world, ballast_bytes=3_000_000), world.promote(make(world))


def trained_on_mislabelled_data(world: Any) -> Planted:
    """A fifth of the labels are wrong for both: the candidate is no worse than the champion, and neither is known."""
    return make(world, right=0.78, baseline=0.7), world.promote(make(world, right=0.78, baseline=0.7))


def that_took_too_much_energy(world: Any) -> Planted:
    candidate = make(world)
    RunLog(world.store, candidate.run).append("finished", model=candidate.model, energy_kwh=3.0, co2_kg=1.2)
    return candidate, world.promote(make(world))


PLANTED: dict[Callable[[Any], Planted], tuple[str, set[str]]] = {
    worse_than_the_champion: ("champion", {"slices"}),  # every class got worse
    worse_on_one_slice: ("slices", set()),
    badly_calibrated: ("calibration", set()),
    no_better_than_the_baseline: ("beats_baseline", set()),
    trained_on_leaked_data: ("contamination", set()),
    trained_on_stale_data: ("freshness", set()),
    trained_on_drifted_data: ("drift", {"contamination"}),  # its new rows nearly repeat one another
    with_a_package_that_does_not_load: ("package", {"answers", "latency"}),
    whose_answers_differ_after_packaging: ("answers", set()),
    too_slow: ("latency", set()),
    too_big: ("size", set()),
    trained_on_mislabelled_data: ("label_issues", {"calibration"}),  # it is as sure as before, of wrong labels
    that_took_too_much_energy: ("energy", set()),
}
"""Candidate -> the gate meant for it, and the others that object."""


def objecting(world: Any, planted: Planted, gates: dict[str, Any]) -> dict[str, str]:
    """Gate -> sentence of every no."""
    verdicts = run_gates(parse_gates(gates, "x"), *planted, Evidence(world.store, world.settings))
    return {verdict.gate: verdict.sentence for verdict in verdicts if not verdict.passed}


def test_every_gate_is_among_those_that_judge():
    assert set(GATES) == set(gate_names())


@pytest.mark.parametrize("plant", [good, *(one for one, (gate, _) in PLANTED.items() if gate not in PACKAGED)])
def test_the_gate_meant_says_no_without_asking_the_package(world, plant):
    world.packages = False
    gates = {name: settings for name, settings in GATES.items() if name not in PACKAGED}
    meant, others = PLANTED.get(plant, (None, set()))
    found = objecting(world, plant(world), gates)
    assert set(found) == ({meant} | others if meant else set()), found


@pytest.mark.slow
@pytest.mark.parametrize("plant", [good, *PLANTED])
def test_all_gates_judge_and_the_gate_meant_says_no(world, plant):
    world.packages = True
    meant, others = PLANTED.get(plant, (None, set()))
    found = objecting(world, plant(world), GATES)
    assert set(found) == ({meant} | others if meant else set()), found
    assert not any("Could not be judged" in found[name] for name in found if name == meant), found
