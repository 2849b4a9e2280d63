"""Ctrl-C that is not lost: libraries swallow KeyboardInterrupt, or turn it into errors of their own."""

import signal
from types import FrameType

_asked: list[int] = []


def watch() -> None:
    """From now on Ctrl-C is remembered as well as raised. Only the main thread may call this."""
    _asked.clear()
    signal.signal(signal.SIGINT, _interrupt)


def asked() -> bool:
    """Whether Ctrl-C was pressed since `watch`."""
    return bool(_asked)


def check() -> None:
    """Raise KeyboardInterrupt if it was pressed: called between steps, in case it was swallowed inside one."""
    if _asked:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    _asked.append(number)
    raise KeyboardInterrupt
