"""What a person sees while work goes on: one live line in a terminal, plain lines elsewhere; always on stderr.

    with stage("pretrain", unit="steps") as progress:
        progress.update(120, 2000, "loss 5.31")

A stage says at least every `PLAIN_INTERVAL_S` seconds how far it is, also while the work inside is silent.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PLAIN_INTERVAL_S = 10.0
LIVE_INTERVAL_S = 0.25


class Progress:
    """How far one stage is. `update` may be called from any thread, as often as one likes."""

    def __init__(self, name: str, unit: str = ""):
        self.name, self.unit = name, unit
        self.done: float = 0
        self.total: float = 0
        self.note = ""
        self.started = time.monotonic()
        self._first: tuple[float, float] | None = None  # (time, done) of the first update: a resumed run starts high

    def update(self, done: float, total: float = 0, note: str | None = None) -> None:
        self._first = self._first or (time.monotonic(), done)
        self.done, self.total = done, total or self.total
        if note is not None:
            self.note = note

    def say(self, note: str) -> None:
        self.note = note

    def tell(self, line: str) -> None:
        """A line that stays."""
        _write(f"\r\x1b[K{self.name:<12}  {line}" if sys.stderr.isatty() else f"{self.name:<12}  {line}", live=False)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def seconds_left(self) -> float | None:
        """At the pace since the first update; None while that is too short a time to tell."""
        if self._first is None or not self.total:
            return None
        passed, work = time.monotonic() - self._first[0], self.done - self._first[1]
        return passed * (self.total - self.done) / work if passed > 3 and work > 0 else None

    def line(self) -> str:
        parts = [f"{self.name:<12}", f"{self.seconds:6.1f} s"]
        if self.total:
            share = min(self.done / self.total, 1.0)
            bar = "#" * round(20 * share)
            parts.append(f"[{bar:<20}] {_count(self.done)}/{_count(self.total)} {self.unit}".rstrip())
            if share < 1 and (seconds := self.seconds_left()) is not None:
                parts.append(f"ETA {seconds:.0f} s")
        elif self.done:
            parts.append(f"{_count(self.done)} {self.unit}".rstrip())
        if self.note:
            parts.append(self.note)
        return "  ".join(parts)


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


@contextmanager
def stage(name: str, unit: str = "") -> Iterator[Progress]:
    """Show a stage while its block runs; its last line stays, with a mark for how it ended."""
    progress = Progress(name, unit)
    ended = threading.Event()
    live = sys.stderr.isatty()

    def show() -> None:
        while not ended.wait(LIVE_INTERVAL_S if live else PLAIN_INTERVAL_S):
            _write(progress.line(), live)

    if not live:
        _write(f"{name:<12}  starts", live=False)
    shower = threading.Thread(target=show, daemon=True)
    shower.start()
    mark = "failed"
    try:
        yield progress
        mark = "done"
    except KeyboardInterrupt:
        mark = "interrupted"
        raise
    finally:
        ended.set()
        shower.join()
        if live:
            sys.stderr.write("\r\x1b[K")
        _write(f"{progress.line()}  {mark}", live=False)


def _write(line: str, live: bool) -> None:
    # One line at any width: a wrapped live line cannot be taken back with a carriage return.
    if live:
        import shutil

        sys.stderr.write("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1])
    else:
        sys.stderr.write(line + "\n")
    sys.stderr.flush()
