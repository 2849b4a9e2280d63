"""Energy and CO2 are the sum over nodes and attempts, whatever crashed."""

import json
import time
from pathlib import Path

import pytest

from infra.store import FolderStore
from training.energy import NodeEnergy, spent

RUN = "example-0123456789ab-1"


def test_a_node_measures_and_says_what_it_took(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    with NodeEnergy(store, RUN, 1, 0, country="FRA") as energy:
        time.sleep(1.5)
    measured = spent(store, RUN)
    assert measured["energy_kwh"] > 0 and measured["co2_kg"] > 0
    assert not energy.thread.is_alive()
    with NodeEnergy(store, RUN, 2, 0, country=""):
        time.sleep(1.5)
    france = measured["co2_kg"] / measured["energy_kwh"]
    both = spent(store, RUN)
    world = (both["co2_kg"] - measured["co2_kg"]) / (both["energy_kwh"] - measured["energy_kwh"])
    assert france < 0.2 < world, "kg a kWh: France's electricity is mostly nuclear"


def test_nodes_and_attempts_add_up(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert spent(store, RUN) == {}
    for attempt, node, kwh in ((1, 0, 0.5), (1, 1, 0.25), (2, 0, 1.0)):
        body = {"format": 1, "energy_kwh": kwh, "co2_kg": kwh / 2}
        store.put(f"runs/{RUN}/attempts/{attempt}/energy-{node}.json", json.dumps(body).encode())
    store.put(f"runs/{RUN}/attempts/2/heartbeat.json", b"{}")
    assert spent(store, RUN) == pytest.approx({"energy_kwh": 1.75, "co2_kg": 0.875})
