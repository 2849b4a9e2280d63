"""Tags: `latest`, `production` and one's own. A tag is a sequence of entries, and names what the newest says."""

from typing import Any

from data_contracts import sequence
from data_contracts.contract import NAME
from data_contracts.registry import FORMAT, LATEST, Version, add_tag, resolve, tag_prefix
from infra.errors import WrongInput
from infra.store import Store


def tag(store: Store, ref: str, name: str, who: str) -> tuple[Version, bool]:
    """Let a tag name a version; whether that is news. Raises WrongInput for a name that cannot be a tag."""
    version = resolve(store, ref)
    if not NAME.fullmatch(name):
        raise WrongInput(f"tag '{name}': cannot name a version; use letters, digits, '-' and '_'")
    facts: dict[str, Any] = {"who": who}
    if name == LATEST:
        # Registering asks `latest` where its version came from, so that goes with it.
        known = [entry for entry in history(store, version.name, LATEST) if entry["digest"] == version.digest]
        if not known:
            raise WrongInput(f"tag latest: {version.ref} was never registered as latest; register it (data register)")
        facts |= {key: known[-1][key] for key in known[-1] if key not in ("format", "time", "nonce", "digest", "who")}
    return version, add_tag(store, version, name, facts)


def history(store: Store, dataset: str, name: str) -> list[dict[str, Any]]:
    """Every entry of a tag, oldest first: digest, time, who (of those that a person wrote)."""
    return sequence.entries(store, tag_prefix(dataset, name), FORMAT)


def tags(store: Store, dataset: str) -> dict[str, dict[str, Any]]:
    """Each tag of a dataset with its newest entry."""
    names = sorted({key.split("/")[3] for key in store.list(f"datasets/{dataset}/refs/")})
    return {name: history(store, dataset, name)[-1] for name in names}
