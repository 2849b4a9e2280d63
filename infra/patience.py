"""Asking again while a service is away: the run is not lost because the store or the tracking server is."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from infra.errors import Refused, SlipwayError

PATIENCE_S = 600.0
"""How long the end of a run waits for a service before it fails, resumably."""
LONGEST_PAUSE_S = 10.0

T = TypeVar("T")


def patiently(ask: Callable[[], T], say: Callable[[str], None], patience_s: float = PATIENCE_S) -> T:
    """The answer of `ask`, asked again while it raises SlipwayError; `say` is told why it takes so long.

    Pauses double and vary by a half, so that many who lost the same service do not come back at once. Raises the last
    error once `patience_s` have passed, and Refused at once: who was told no is told no again.
    """
    pause, begun = 0.5, time.monotonic()
    while True:
        try:
            return ask()
        except Refused:
            raise
        except SlipwayError as error:
            if time.monotonic() - begun + pause > patience_s:
                raise
            say(f"waiting ({error})")
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(2 * pause, LONGEST_PAUSE_S)
