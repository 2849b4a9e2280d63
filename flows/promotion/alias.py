"""MLflow's alias `champion` follows the promotion log, and with it the description and tags of the version it names.

    promotions/<model>/mirrored.json            which entry the alias was last set from
    promotions/<model>/mirroring/<nonce>.json   a process is about to set the alias, or died doing so

Setting an alias is a blind overwrite: a slow process may put an older one over a newer. It looks again afterwards and
mends that; should it be killed before, its note under `mirroring/` stays, and the next command sets the alias again.
"""

import json
import os
import secrets
import socket
from typing import Any

from flows.models import versions
from flows.promotion.log import Entry, champion
from infra.artifacts import check_format
from infra.digests import digest_bytes
from infra.errors import SlipwayError
from infra.settings import Settings
from infra.store import NotFound, Store

FORMAT = 1
ALIAS = "champion"
DEAD_AFTER_S = 3600.0
"""A process elsewhere that announced itself so long ago sets nothing any more."""


def mirror(store: Store, settings: Settings, name: str) -> bool:
    """Let the alias follow; True when it was behind, or may have been. Otherwise MLflow is not even imported."""
    mine = f"{_announcements(name)}{secrets.token_hex(8)}.json"
    dead: set[str] = set()
    done = 0
    while True:
        reigning = champion(store, name)
        if reigning is None or done == reigning.sequence:
            break
        others = [key for key in store.list(_announcements(name)) if key != mine]
        note = mirrored(store, name)
        if not done and not others and note and note["sequence"] >= reigning.sequence:
            break
        version = next((v for v in versions(store, name) if v.version == reigning.version), None)
        if version is None or not version.mlflow_version:
            raise SlipwayError(
                f"model {name}/{reigning.version}: champion by the log, but MLflow was never told of this version; "
                "run slipway train again to register it"
            )
        if not done:
            body = {"format": FORMAT, "host": socket.gethostname(), "pid": os.getpid()}
            store.put(mine, json.dumps(body).encode())
        # Only who was dead before the alias is set cannot set it afterwards.
        dead |= {key for key in others if _is_dead(store, key, store.modified(mine))}
        from infra.tracking import set_alias

        set_alias(settings, name, version.mlflow_version, ALIAS, *_told(reigning))
        body = {"format": FORMAT, "sequence": reigning.sequence, "entry": digest_bytes(store.get(reigning.key))}
        store.put(_note_key(name), json.dumps(body, sort_keys=True).encode())
        done = reigning.sequence  # and look again: the champion may have changed since
    if done:
        for key in (*dead, mine):
            store.delete(key)
    return done > 0


def mirrored(store: Store, name: str) -> dict[str, Any] | None:
    """{"sequence", "entry": digest of its bytes} of the entry that the alias was last set from."""
    try:
        note = json.loads(store.get(_note_key(name)))
    except (NotFound, ValueError):
        return None  # a lost or torn note costs one more set_alias
    check_format(note, FORMAT, _note_key(name))
    return note


def _told(entry: Entry) -> tuple[str, dict[str, str]]:
    """What MLflow says of the version: a sentence, and tags to search for."""
    who, day = entry.author or "nobody named", entry.time[:16].replace("T", " ")
    why = f": {entry.reason}" if entry.reason else ""
    tags = {"entry": str(entry.sequence), "kind": entry.kind, "scorecard": entry.scorecard, "dataset": entry.dataset}
    said = f"Became champion by {entry.kind} (log entry {entry.sequence}, {who}, {day} UTC){why}"
    return said, {f"slipway.{name}": value for name, value in tags.items() if value}


def _is_dead(store: Store, key: str, now: float) -> bool:
    """Whether the process that announced itself there sets nothing any more. now: by the store's own clock."""
    try:
        body, age = json.loads(store.get(key)), now - store.modified(key)
    except (NotFound, ValueError):
        return True  # it has finished, or the note was torn
    if body.get("host") == socket.gethostname() and isinstance(body.get("pid"), int):
        try:
            os.kill(body["pid"], 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
    return age > DEAD_AFTER_S


def _announcements(name: str) -> str:
    return f"promotions/{name}/mirroring/"


def _note_key(name: str) -> str:
    return f"promotions/{name}/mirrored.json"
