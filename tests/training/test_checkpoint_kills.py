"""Killed at any moment of a save, a run finds its newest whole checkpoint."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training import saves_until_killed


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_random_points_of_saves_the_newest_whole_one_loads(tmp_path: Path, kills: int) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    lives = subprocess.run(
        [sys.executable, saves_until_killed.__file__, str(tmp_path), str(kills), str(seed)],
        stdout=subprocess.PIPE, text=True, check=False, env={**os.environ},
    )  # fmt: skip
    found = [json.loads(line) for line in lives.stdout.splitlines()]
    assert lives.returncode == 0 and len(found) == kills, f"seed {seed}, after {len(found)} kills"
    assert all(one["skipped"] == [] for one in found), "an entry in the log is a whole checkpoint"
    steps = [one["step"] for one in found]
    assert steps == sorted(steps) and steps[-1] > kills / 10
    partial = sum(one["partial"] > 0 for one in found)
    print(f"{kills} kills over {steps[-1]} saves, {partial} of them in the middle of a checkpoint")
    assert partial > kills / 20, "kills fall into saves"
