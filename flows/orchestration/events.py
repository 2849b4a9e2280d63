"""What happened, told to Prefect's server, where triggers and notifications listen.

    slipway.version.registered      a new version of a dataset exists          subject: the dataset
    slipway.drift.found             inference data drifted from the profile    subject: the model
    slipway.champion.rolled-back    an earlier champion is champion again      subject: the model
    slipway.candidate.waiting       gates said yes, a person has to            subject: the model
    slipway.retrain.failed          a retrain ended without a result           subject: the model

An event is news, not a record: what it tells of lies in the store whether or not anybody heard it. So one that cannot
be delivered costs a line on stderr and nothing else. Its payload goes to webhooks: no settings, no secrets.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from infra.errors import SlipwayError
from infra.settings import Settings

VERSION_REGISTERED = "slipway.version.registered"
DRIFT_FOUND = "slipway.drift.found"
ROLLED_BACK = "slipway.champion.rolled-back"
WAITING = "slipway.candidate.waiting"
FAILED = "slipway.retrain.failed"

NOBODY = "-"
SUBJECT, BY = "slipway.subject", "slipway.by"
"""Labels of an event's resource: what it is about, and the experiment whose retrain caused it."""
RETRIES = 2
TIMEOUT_S = 10.0

_retraining: ContextVar[str] = ContextVar("retraining", default=NOBODY)


@contextmanager
def retraining(settings: Settings, experiment: str) -> Iterator[None]:
    """A retrain of this experiment: what it tells of does not start the same one again, and its failure is told."""
    token = _retraining.set(experiment)
    try:
        yield
    except Exception as error:
        # What is no message of ours may name anything, a password too.
        reason = str(error) if isinstance(error, SlipwayError) else type(error).__name__
        emit(settings, FAILED, experiment, {"outcome": "failed", "reason": reason})
        raise
    finally:
        _retraining.reset(token)


def emit(settings: Settings, name: str, subject: str, payload: dict[str, Any]) -> bool:
    """Tell the server, where one is configured; whether it took it. payload: JSON values."""
    if not settings.prefect_api:
        return False
    from prefect.client.orchestration import get_client
    from prefect.events.schemas.events import Event, Resource
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    kind = "dataset" if name == VERSION_REGISTERED else "model"
    resource = {"prefect.resource.id": f"slipway.{kind}.{subject}", "prefect.resource.name": subject,
                SUBJECT: subject, BY: _retraining.get()}  # fmt: skip
    event = Event(event=name, resource=Resource(resource), payload=payload)
    # Posted, not given to `emit_event`: that one's thread drops what it has not sent when a short command ends.
    try:
        with (
            temporary_settings({PREFECT_API_URL: settings.prefect_api, PREFECT_CLIENT_MAX_RETRIES: RETRIES}),
            get_client(httpx_settings={"timeout": TIMEOUT_S}, sync_client=True) as client,
        ):
            client.request("POST", "/events", json=[event.model_dump(mode="json")])
    except Exception as error:  # whatever is wrong with the server, the work this tells of is done
        answer = getattr(getattr(error, "response", None), "status_code", "no answer")  # never its URL
        print(f"slipway: {name} of {subject} did not reach Prefect's server ({type(error).__name__}, {answer})",
              file=sys.stderr)  # fmt: skip
        return False
    return True
