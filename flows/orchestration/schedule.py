"""When a model is retrained by itself, and who hears of it: `schedule` in an experiment.

    schedule:
      cron: "0 3 * * *"                     five fields: minute, hour, day of month, month, day of week
      timezone: Europe/Berlin               IANA name; default UTC
      on: [version, drift, rollback]        what else starts a retrain
      notify: https://hooks.example.org/x   a URL to post to, or a Prefect block: slack-webhook/ops
      pause: true                           on the server, and does nothing until `slipway schedule resume`

The section is no part of what a result depends on, and never leaves the file it stands in: a webhook's URL is a secret.
"""

import difflib
import re
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from pydantic import Field, ValidationError, field_validator

from flows.orchestration.events import DRIFT_FOUND, ROLLED_BACK, VERSION_REGISTERED
from infra.errors import WrongInput, choices
from infra.settings import Settings
from training.experiment import Strict

EVENTS = {"version": VERSION_REGISTERED, "drift": DRIFT_FOUND, "rollback": ROLLED_BACK}
"""What `on:` may name, and the event it is."""
TAG = POOL = "slipway"
"""On a Prefect server: what all our deployments and automations are tagged with; the work pool that runs them."""
BLOCK = re.compile(r"[a-z0-9-]+/[a-z0-9][a-z0-9-]*")
NEAREST = 3


class Schedule(Strict):
    cron: str | None = None
    """Five fields: minute, hour, day of month, month, day of week. None: only what `on` names starts a retrain."""
    timezone: str = "UTC"
    """IANA name of the zone that `cron` is read in: Europe/Berlin."""
    on: tuple[Literal["version", "drift", "rollback"], ...] = ()
    """A new version of the experiment's dataset, drift found in what its champion sees, its champion rolled back."""
    notify: str | None = Field(None, repr=False)
    """Who hears of a failure, of drift and of a candidate that waits for a reviewer: the URL of a webhook, which is
    posted JSON, or a Prefect notification block as `type/name`."""
    pause: bool = False

    @field_validator("cron")
    @classmethod
    def _parsable(cls, text: str | None) -> str | None:
        from cronsim import CronSim, CronSimError

        if text is None:
            return None
        if len(text.split()) != 5:
            raise ValueError(f"found {len(text.split())} fields in '{text}'; write five: minute hour day month weekday")
        try:
            CronSim(text, datetime(2026, 1, 1))
        except CronSimError as error:
            raise ValueError(f"'{text}' cannot be parsed ({str(error).lower()}); write it as '0 3 * * 1-5'") from None
        return text

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        known = available_timezones()
        if name not in known:
            lowered = {one.lower(): one for one in known}
            near = difflib.get_close_matches(name.lower(), lowered, n=NEAREST, cutoff=0.5)
            hint = (
                f"did you mean {' or '.join(lowered[one] for one in near)}?" if near else "write one as Europe/Berlin"
            )
            raise ValueError(f"'{name}' is unknown; {hint}")
        return name

    @field_validator("notify")
    @classmethod
    def _reachable(cls, place: str | None) -> str | None:
        if place is None or BLOCK.fullmatch(place):
            return place
        parts = urlsplit(place)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("is neither a URL (https://...) nor a Prefect block (slack-webhook/ops)")  # never its text
        return place


def parse_schedule(section: Mapping[str, Any], where: str) -> Schedule | None:
    """The schedule of an experiment, None without one. Raises WrongInput: which field, what was found."""
    if not section:
        return None
    for key in section:
        if key not in Schedule.model_fields:
            raise WrongInput(f"{where}: schedule.{key}: unknown key; {choices(str(key), Schedule.model_fields)}")
    try:
        found = Schedule(**section)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "tuple_type":
            raise WrongInput(f"{where}: schedule.on: is no list; write [{', '.join(EVENTS)}] or a part of it") from None
        if first["loc"][0] == "on" and first["type"] == "literal_error":
            named = str(section["on"][first["loc"][1]])
            raise WrongInput(f"{where}: schedule.on: '{named}' is unknown; {choices(named, EVENTS)}") from None
        raise WrongInput(f"{where}: schedule.{field}: {first['msg'].removeprefix('Value error, ')}") from None
    if found.cron is None and not found.on and not found.notify:
        raise WrongInput(f"{where}: schedule: neither cron nor on is given; nothing would ever start it")
    return found


def runner_command(settings: Settings) -> list[str]:
    """The process that runs what is scheduled, until it is told to end (SIGTERM). Its folder does not matter; its
    environment is that of the retrains it runs."""
    return [sys.executable, "-P", "-m", "flows.orchestration.runner"]
