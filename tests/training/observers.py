"""What listens to the loop in tests."""

from collections.abc import Callable
from typing import Any

from infra.store import Store
from training import loop
from training.checkpoint import Checkpoints
from training.state import TrainState


class Silent(loop.Observer):
    """Remembers the metrics and wishes for nothing."""

    def __init__(self) -> None:
        self.points: dict[int, dict[str, float]] = {}

    def metrics(self, step: int, values: dict[str, float]) -> None:
        assert step not in self.points, f"step {step} was reported twice"
        self.points[step] = values


class Saving(Silent):
    """Writes checkpoints as `wish` says, by (step) -> (save, stop); `entries` are those that are whole."""

    def __init__(
        self,
        store: Store,
        world: loop.World,
        wish: Callable[[int], tuple[bool, bool]] = lambda step: (False, False),
        attempt: int = 1,
        keep: int = 2,
    ):
        super().__init__()
        self.entries: list[dict[str, Any]] = []
        self.wish = wish
        self.checkpoints = Checkpoints(store, "run", attempt, world, keep=keep, record=self._record)

    def _record(self, facts: dict[str, Any]) -> dict[str, Any]:
        self.entries.append(facts)
        return facts

    def wishes(self, step: int) -> tuple[bool, bool]:
        save, stop = self.wish(step)
        return save and not self.checkpoints.busy, stop

    def save(self, step: int, state: TrainState) -> None:
        self.checkpoints.save(step, state)

    def written(self) -> tuple[int, int]:
        return self.checkpoints.written()

    def heard(self, whole: int, failed: int) -> None:
        self.checkpoints.heard(whole, failed)

    def wait(self) -> None:
        self.checkpoints.wait()
