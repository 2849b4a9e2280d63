"""Regular expressions under a time limit: one that backtracks without end is told before a rule is run with it.

`re` takes no limit, and nothing stops it in a thread. So each pattern first searches its values here, in a process of
its own that a timer ends; Great Expectations then runs what is known to come to an end. RE2, which never backtracks,
would need no limit, but knows no lookahead and gives `$`, `\\d` and `\\w` other meanings.

Run as a script, with nothing of Slipway imported: {"seconds", "patterns"} on the first line, then on each
[place of the pattern, values]. It answers nothing, or {"place": of the pattern, "value": text}.
"""

import json
import re
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

SECONDS = 2.0
"""Of computing, for one pattern over all its values, beside PER_CHARACTER."""
PER_CHARACTER = 2e-6
"""Seconds; a pattern that hardly backtracks takes a hundredth of it (measured: 5e-9 to 1.2e-8)."""
TICK = 0.1
BATCH = 8192


class TooSlow(Exception):
    def __init__(self, place: int, value: str):
        super().__init__(f"pattern {place} takes too long on {value[:60]!r}")
        self.place, self.value = place, value


def check_time(searches: "list[tuple[str, pa.ChunkedArray]]", seconds: float = SECONDS) -> None:
    """Let each pattern search its values once. Raises TooSlow with the place of the first that is too slow."""
    import subprocess

    import pyarrow as pa

    if not searches:
        return
    command = [sys.executable, "-I", __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            head = {"seconds": seconds, "patterns": [pattern for pattern, _ in searches]}
            process.stdin.write(json.dumps(head).encode() + b"\n")
            for place, (_, values) in enumerate(searches):
                for start in range(0, len(values), BATCH):
                    batch = values.slice(start, BATCH).drop_null().cast(pa.string()).to_pylist()
                    process.stdin.write(json.dumps([place, batch]).encode() + b"\n")
            process.stdin.close()
        except BrokenPipeError:
            pass  # the answer says why
        except BaseException:
            process.kill()
            raise
        answer = process.stdout.read()
        with suppress(BrokenPipeError):
            process.stdin.close()
    if answer:
        raise TooSlow(**json.loads(answer))
    if process.returncode:
        raise RuntimeError(f"the process that times patterns ended with {process.returncode}")


class _Late(Exception):
    pass


class _Clock:
    """The time that a pattern has had, and what it searches now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.began = self.used = 0.0
        self.characters = 0
        self.value = ""

    def tick(self, *_: Any) -> None:
        if self.used + time.process_time() - self.began > self.seconds + PER_CHARACTER * self.characters:
            raise _Late


def main() -> None:
    signal.signal(signal.SIGPROF, signal.SIG_IGN)
    head = json.loads(sys.stdin.readline())
    compiled = [re.compile(pattern) for pattern in head["patterns"]]
    clocks = [_Clock(head["seconds"]) for _ in compiled]
    signal.setitimer(signal.ITIMER_PROF, TICK, TICK)
    for line in sys.stdin:
        place, values = json.loads(line)
        search, clock = compiled[place].search, clocks[place]
        clock.began = time.process_time()
        signal.signal(signal.SIGPROF, clock.tick)
        try:
            for value in values:
                clock.value = value
                clock.characters += len(value)
                search(value)
        except _Late:
            print(json.dumps({"place": place, "value": clock.value}))
            return
        finally:
            signal.signal(signal.SIGPROF, signal.SIG_IGN)
        clock.used += time.process_time() - clock.began


if __name__ == "__main__":
    main()
