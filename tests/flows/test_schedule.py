"""What an experiment may say under `schedule:`, who is told, and what stays secret."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.config import load_config
from flows.orchestration import events, notify
from flows.orchestration.schedule import parse_schedule
from flows.orchestration.zombies import OUTCOMES
from infra.errors import SlipwayError, WrongInput
from infra.settings import Settings, child_environment
from tests.flows.scheduler import Webhook
from tests.flows.shop import EXPERIMENT

SECTION = """\
schedule:
  cron: "0 3 * * 1-5"
  timezone: Europe/Berlin
  on: [version, drift]
  notify: https://hooks.example.org/services/a-secret-path
"""


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    server = Webhook()
    yield server
    server.shutdown()


def test_a_section_is_read_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "reviews.yaml").write_text(EXPERIMENT + SECTION)  # `on` is true to YAML 1.1
    found = parse_schedule(load_config(str(tmp_path / "reviews.yaml")).schedule, "")
    assert found is not None
    assert (found.cron, found.timezone, found.on) == ("0 3 * * 1-5", "Europe/Berlin", ("version", "drift"))


WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a minute that is none": ({"cron": "61 3 * * *"}, ("schedule.cron", "61 3 * * *", "bad minute")),
    "four fields": ({"cron": "0 3 * *"}, ("schedule.cron", "4 fields", "five")),
    "a word": ({"cron": "@daily"}, ("schedule.cron", "five")),
    "unknown time zone": ({"cron": "* * * * *", "timezone": "Europe/Berln"}, ("schedule.timezone", "Europe/Berlin")),
    "a zone in small letters": ({"cron": "* * * * *", "timezone": "berlin"}, ("schedule.timezone", "Europe/Berlin")),
    "unknown trigger": ({"on": ["drfit"]}, ("schedule.on", "did you mean 'drift'")),
    "one trigger, no list": ({"on": "drift"}, ("schedule.on", "[version, drift, rollback]")),
    "unknown key": ({"crn": "* * * * *"}, ("schedule.crn", "did you mean 'cron'")),
    "nothing that starts it": ({"timezone": "UTC"}, ("neither cron nor on",)),
    "no URL": ({"on": ["drift"], "notify": "hooks.example.org/s3cr3t"}, ("schedule.notify", "Prefect block")),
}


@pytest.mark.parametrize(("section", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_one_line_that_names_the_setting(section: dict[str, Any], said: tuple[str, ...]) -> None:
    with pytest.raises(WrongInput) as caught:
        parse_schedule(section, "experiment reviews")
    line = str(caught.value)
    assert line.startswith("experiment reviews: schedule") and "\n" not in line
    assert [word for word in said if word not in line] == []
    assert "s3cr3t" not in line


def test_the_section_stays_in_its_file(tmp_path: Path) -> None:
    """What is written of an experiment goes into run logs, scorecards and model versions."""
    (tmp_path / "reviews.yaml").write_text(EXPERIMENT + SECTION)
    experiment = load_config(str(tmp_path / "reviews.yaml"))
    assert "a-secret-path" not in experiment.model_dump_json(by_alias=True)
    assert "a-secret-path" not in repr(parse_schedule(experiment.schedule, ""))


NEWS = notify.message(events.FAILED, "reviews", "2026-01-01T00:00:00+00:00", {"reason": "no data"})


def test_a_webhook_that_stumbles_is_told_in_the_end(webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "PAUSES_S", (0.0, 0.0))
    webhook.answers = [503, 429]
    notify.tell(webhook.url, NEWS)
    (heard,) = webhook.heard
    assert heard["model"] == "reviews" and "no data" in heard["text"]


@pytest.mark.parametrize("answers", [[404], [503, 503, 503], []], ids=["refused", "away", "nothing there"])
def test_a_webhook_that_does_not_listen_is_said_without_its_address(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch, answers: list[int]
) -> None:
    monkeypatch.setattr(notify, "PAUSES_S", (0.0, 0.0))
    webhook.answers = answers
    if not answers:
        webhook.shutdown()
        webhook.server_close()
    with pytest.raises(SlipwayError) as caught:
        notify.tell(webhook.url, NEWS)
    assert "127.0.0.1" in str(caught.value) and "a-secret-path" not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__, "a traceback would show it"
    assert webhook.heard == []


def test_without_a_server_an_event_costs_no_import() -> None:
    script = (
        "import sys\n"
        "from flows.orchestration import events\n"
        "from infra.settings import Settings\n"
        "assert not events.emit(Settings(), events.DRIFT_FOUND, 'reviews', {})\n"
        "print([name for name in ('prefect', 'httpx') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], env=child_environment(), capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_a_server_that_is_away_does_not_hold_up_the_work(free_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(prefect_api=f"http://127.0.0.1:{free_port}/api")
    assert not events.emit(settings, events.VERSION_REGISTERED, "reviews", {"version": "reviews@0"})
    (line,) = capsys.readouterr().err.splitlines()
    assert "slipway.version.registered of reviews did not reach" in line


GATED = {"scorecard": "0" * 64, "passed": True}
ENDS: dict[str, tuple[list[str], dict[str, dict[str, Any]], str, str]] = {
    "nothing to do": ([], {"gate": GATED, "promote": {"promoted": True}}, "Up to date", "nothing"),
    "nothing to do and rejected before": (
        [],
        {"gate": {**GATED, "passed": False}, "promote": {"promoted": False}},
        "Up to date",
        "the gates said no",
    ),
    "a new champion": (["train", "gate", "promote"], {"gate": GATED, "promote": {"promoted": True}}, "Promoted", "/2"),
    "a worse one": (
        ["train", "gate", "promote"],
        {"gate": {**GATED, "passed": False}, "promote": {"promoted": False}},
        "Rejected",
        "scorecards/0",
    ),
    "a reviewer has to": (
        ["train", "gate", "promote"],
        {"gate": GATED, "promote": {"promoted": False, "waits": "1 of 2 approvals"}},
        "Waiting",
        "1 of 2 approvals",
    ),
    "only data was read": (["register"], {"gate": GATED, "promote": {"promoted": True}}, "Completed", "register"),
}


@pytest.mark.parametrize(("ran", "outputs", "name", "said"), ENDS.values(), ids=ENDS)
def test_the_final_state_says_what_came_of_it(
    ran: list[str], outputs: dict[str, dict[str, Any]], name: str, said: str
) -> None:
    from flows.orchestration.scheduled import outcome
    from flows.retrain import Report
    from flows.steps import Decision

    kinds = ("register", "train", "gate", "promote")
    decisions = [
        Decision(step=f"{kind} reviews", status="stale" if kind in ran else "cached", reasons=[]) for kind in kinds
    ]
    found = {f"{kind} reviews": output for kind, output in ({"train": {"version": 2}} | outputs).items()}
    state = outcome(Settings(), "reviews", Report(decisions=decisions, outputs=found))
    assert state.name == name and said in (state.message or "")
    assert name == "Completed" or name in OUTCOMES, "what watches for silence would take it for a crash"
