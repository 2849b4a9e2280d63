"""A stage says how far it is, at any time, in one line."""

import io
import re
import threading

import pytest

from infra import progress
from infra.progress import Progress, stage


@pytest.fixture
def clock(monkeypatch):
    """Seconds, set by the test."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_tells_stage_time_share_and_note(clock):
    shown = Progress("pretrain", "steps")
    assert shown.line() == "pretrain         0.0 s"
    clock[0] += 5
    shown.update(500, 2000, "loss 5.31")
    assert shown.line() == "pretrain         5.0 s  [#####               ] 500/2,000 steps  loss 5.31"
    shown.update(2000)
    assert shown.line().endswith("[####################] 2,000/2,000 steps  loss 5.31")


def test_a_total_that_is_not_known_shows_the_count_alone(clock):
    shown = Progress("register", "rows")
    shown.update(19_000)
    assert shown.line().endswith("19,000 rows")


def test_a_small_total_is_not_rounded_to_nothing(clock):
    shown = Progress("register", "MB")
    shown.update(0.021, 0.0412)
    assert shown.line().endswith("0.021/0.0412 MB")


def test_time_left_is_at_the_pace_since_the_first_update(clock):
    shown = Progress("pretrain", "steps")
    clock[0] += 20  # Ray starts
    shown.update(1000, 2000)  # resumed
    assert shown.seconds_left() is None, "nothing is known yet"
    clock[0] += 10
    shown.update(1100)
    assert shown.seconds_left() == pytest.approx(90)
    assert "ETA 90 s" in shown.line()
    shown.update(2000)
    assert "ETA" not in shown.line()


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Screen])
def test_a_silent_stage_is_shown_all_the_same(stream, monkeypatch):
    """The work inside says nothing; the stage still does."""
    said = threading.Event()
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", 0.01)
    monkeypatch.setattr(progress, "LIVE_INTERVAL_S", 0.01)
    screen = stream()
    write = screen.write

    def watched(text):
        if "half" in text:
            said.set()
        return write(text)

    screen.write = watched
    monkeypatch.setattr("sys.stderr", screen)
    with stage("evaluate", unit="rows") as shown:
        shown.update(1, 2, "half")
        assert said.wait(timeout=30), "no line came while the work went on"
    assert screen.getvalue().rstrip().endswith("done")


def test_the_last_line_says_how_it_ended(monkeypatch, capsys):
    for error in (None, ValueError, KeyboardInterrupt):
        try:
            with stage("gates"):
                if error:
                    raise error
        except (ValueError, KeyboardInterrupt):
            pass
    captured = capsys.readouterr()
    ends = [line.split()[-1] for line in captured.err.splitlines() if not line.endswith("starts")]
    assert ends == ["done", "failed", "interrupted"]
    assert captured.out == "", "stdout belongs to --json"


def test_a_live_line_never_wraps(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    progress._write("x" * 200, live=True)
    assert len(re.sub(r"\r\x1b\[K", "", screen.getvalue())) < 40
