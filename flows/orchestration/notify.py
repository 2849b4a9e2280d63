"""Tell people: JSON posted to a webhook, or a message through a Prefect notification block.

A webhook's URL is a secret: it is in no message, log line or exception of ours.
"""

import json
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from infra.errors import SlipwayError

PAUSES_S = (1.0, 4.0, 15.0, 60.0)
"""Between one try and the next."""
TIMEOUT_S = 30.0
PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Answers after which another try may succeed (RFC 9110, RFC 6585)."""


def tell(place: str, news: dict[str, Any]) -> None:
    """place: a webhook's URL or `type/name` of a block. Raises SlipwayError when nobody took the news."""
    if "://" in place:
        post(place, news)
        return
    from prefect.blocks.core import Block

    try:
        block: Any = Block.load(place)
        block.notify(news["text"], subject=news["subject"])
    except Exception as error:  # a block may hold any service; its message may name a URL
        raise SlipwayError(f"notify: Prefect block '{place}' could not be used ({type(error).__name__})") from None


def post(url: str, news: dict[str, Any]) -> None:
    """Post JSON, again where that may help. Raises SlipwayError that names the host and the answer, nothing else."""
    body = json.dumps({"format": 1, **news}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    said = ""
    for pause in (*PAUSES_S, None):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):
                return
        except urllib.error.HTTPError as error:
            said = f"it answered {error.code}"
            if error.code not in PASSING:
                break
        except (OSError, ValueError) as error:
            said = type(getattr(error, "reason", error)).__name__
        if pause is None:
            break
        time.sleep(pause)
    raise SlipwayError(f"notify: the webhook at {urlsplit(url).hostname} could not be told ({said})") from None


def message(event: str, subject: str, occurred: str, payload: dict[str, Any]) -> dict[str, Any]:
    """The news of an event: `text` is what chat services show, the rest is for programs."""
    what = {
        "slipway.retrain.failed": "its retrain failed",
        "slipway.drift.found": "drift was found in what its champion sees",
        "slipway.candidate.waiting": "a candidate passed the gates and waits for a reviewer (slipway review)",
        "prefect.flow-run.Crashed": "its retrain was killed; the next one takes it up",
    }.get(event, event)
    reason = payload.get("reason")
    text = f"slipway: {subject}: {what}" + (f": {reason}" if reason else "")
    return {"text": text, "subject": f"slipway: {subject}", "event": event, "model": subject, "occurred": occurred,
            "details": payload}  # fmt: skip
