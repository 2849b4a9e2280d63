"""A name whose value changes: a sequence of entries in the store, each created if absent; the newest is the value.

    <prefix>/000000000001.json, 000000000002.json ...      {"format": N, ..., "time", "nonce"}

Of writers that race for one number one wins, and the others take the next: no update is lost, on disk or on S3.
"""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from infra.artifacts import check_format
from infra.store import Store


def keys(store: Store, prefix: str) -> list[str]:
    """Keys of the entries, oldest first; `prefix` ends in '/'."""
    return list(store.list(prefix))


def read(store: Store, key: str, known: int) -> dict[str, Any]:
    """Raises WrongInput for an entry that a newer Slipway wrote (`known`: the newest format there is)."""
    body = json.loads(store.get(key))
    check_format(body, known, key)
    return body


def newest(store: Store, prefix: str, known: int) -> dict[str, Any] | None:
    found = keys(store, prefix)
    return read(store, found[-1], known) if found else None


def entries(store: Store, prefix: str, known: int) -> list[dict[str, Any]]:
    """All entries, oldest first."""
    return [read(store, key, known) for key in keys(store, prefix)]


def append(
    store: Store, prefix: str, known: int, make: Callable[[dict[str, Any] | None], dict[str, Any] | None]
) -> dict[str, Any] | None:
    """Add the entry that `make` makes of the newest one (None: no entry is needed). Returns what was added.

    `make` is asked again whenever another writer was first.
    """
    while True:
        found = keys(store, prefix)
        facts = make(read(store, found[-1], known) if found else None)
        if facts is None:
            return None
        number = int(found[-1].rpartition("/")[2].removesuffix(".json")) + 1 if found else 1
        # The nonce: `create` answers whether these bytes are there, and two writers must not both believe they won.
        body = {"format": known, **facts, "time": now(), "nonce": os.urandom(8).hex()}
        if store.create(f"{prefix}{number:012d}.json", json.dumps(body, indent=1, sort_keys=True).encode()):
            return body


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
