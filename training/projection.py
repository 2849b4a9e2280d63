"""The one writer that carries a run's log into MLflow, beside the training and never in its way.

Metrics keep the log entry's own time: MLflow's key is (metric, step, value, time), so a repeat is the same row.
"""

import threading
from typing import Any

from infra.errors import SlipwayError
from infra.settings import Settings
from training.run_log import RunLog, read_state

EVERY_S = 5.0


class Projection:
    """Use as a context: projects every few seconds while open, and everything that is left when it closes."""

    def __init__(self, settings: Settings, log: RunLog, title: str, facts: dict[str, Any]):
        self.settings, self.log, self.title, self.facts = settings, log, title, facts
        self.run_id = ""
        self.sent = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._repeat, daemon=True)

    def __enter__(self) -> "Projection":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def _repeat(self) -> None:
        while not self.ended.wait(EVERY_S if self.run_id else 0.0):
            try:
                self.sync()
            except SlipwayError:
                self.ended.wait(EVERY_S)  # the tracking server may be away: the log keeps everything

    def sync(self) -> str:
        """Bring MLflow up to the log. Returns the MLflow run's id."""
        from infra import tracking

        state = read_state(self.log)
        self.run_id = state.mlflow_run or self._open_run()
        tracking.log_points(self.settings, self.run_id, state.points[self.sent :])
        self.sent = len(state.points)
        return self.run_id

    def _open_run(self) -> str:
        """Who loses the race for the log's first `mlflow` entry deletes the run it made."""
        from infra import tracking

        made = tracking.create_run(self.settings, self.title, self.log.run, self.facts)
        self.log.append("mlflow", mlflow_run=made)
        winner = read_state(self.log).mlflow_run
        if winner != made:
            tracking.delete_run(self.settings, made)
        return winner
