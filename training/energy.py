"""The energy a run takes and the CO2 that goes with it, as codecarbon estimates them: one tracker on each node.

Each node's tracker puts what it has counted beside the attempt's heartbeat; the run's figure is the sum over nodes and
attempts. So it is the same for any number of workers, and what crashed attempts took is in it.
"""

import json
import threading
from contextlib import suppress
from typing import Any

from infra.errors import SlipwayError
from infra.store import Store

FORMAT = 1
EVERY_S = 15.0


class NodeEnergy:
    """Counts one node's energy in a thread of its own while open. To be used by one worker of each node."""

    def __init__(self, store: Store, run: str, attempt: int, node: int, country: str):
        self.store, self.country = store, country
        self.key = f"runs/{run}/attempts/{attempt}/energy-{node}.json"
        self.begun, self.ended = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._count, daemon=True)

    def __enter__(self) -> "NodeEnergy":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        if self.begun.is_set():
            self.thread.join()

    def _count(self) -> None:
        tracker, newest = _tracker(self.country)
        if self.ended.is_set():
            return  # a fit of a second was over before the tracker had been imported: no figure, and not a nought
        self.begun.set()
        tracker.start()  # seconds: it looks for what the machine can measure
        last = False
        while not last:
            last = self.ended.wait(EVERY_S)
            tracker.flush()
            with suppress(SlipwayError):  # the next one holds it too
                self.store.put(self.key, json.dumps({"format": FORMAT, **newest}).encode())
        tracker.stop()


def spent(store: Store, run: str) -> dict[str, float]:
    """`energy_kwh` and `co2_kg` of a run so far, over its nodes and attempts; empty before anything was counted."""
    total: dict[str, float] = {}
    for key in store.list(f"runs/{run}/attempts/"):
        if key.rpartition("/")[2].startswith("energy-"):
            body = json.loads(store.get(key))
            for name in ("energy_kwh", "co2_kg"):
                total[name] = total.get(name, 0.0) + body[name]
    return total


def _tracker(country: str) -> tuple[Any, dict[str, float]]:
    """A codecarbon tracker of this machine that asks no server, and the dict its `flush` keeps up to date."""
    import logging

    from codecarbon import OfflineEmissionsTracker
    from codecarbon.input import DataSource
    from codecarbon.output_methods.base_output import BaseOutput
    from codecarbon.output_methods.emissions_data import EmissionsData

    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)  # its own log_level comes after its first lines
    newest: dict[str, float] = {"energy_kwh": 0.0, "co2_kg": 0.0}

    class Keep(BaseOutput):
        def out(self, total: EmissionsData, delta: EmissionsData) -> None:
            newest.update(energy_kwh=total.energy_consumed, co2_kg=total.emissions)

    world: float = DataSource().get_carbon_intensity_per_source_data()["world_average"]
    tracker = OfflineEmissionsTracker(
        country_iso_code=country or "USA",  # it insists on one; the next line overrules it
        force_carbon_intensity_g_co2e_kwh=None if country else world,
        measure_power_secs=EVERY_S,
        tracking_mode="machine",
        save_to_file=False,
        output_handlers=[Keep()],
        allow_multiple_runs=True,
        log_level="critical",
    )
    return tracker, newest
