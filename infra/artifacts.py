"""Folders of files in the object store that are whole or absent.

`<kind>/<digest>/<name>` holds the files and `<kind>/<digest>/manifest.json`, written last, makes them exist. The
digest is of the names and hashes of the files: the same files have the same name anywhere, whoever wrote them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.digests import digest, digest_file
from infra.errors import SlipwayError, WrongInput
from infra.store import NotFound, Store

FORMAT = 1


@dataclass(frozen=True)
class Artifact:
    kind: str
    digest: str
    files: dict[str, dict[str, Any]]
    """name -> {"sha256": hex, "bytes": size}"""
    facts: dict[str, Any]
    """What the writer wants a reader to know; not part of the digest."""

    @property
    def prefix(self) -> str:
        return f"{self.kind}/{self.digest}"


class Damaged(SlipwayError, ValueError):
    """A part is missing or is not what was written; making it again is the way out."""


def check_format(document: Any, known: int, where: str) -> None:
    """Refuse a file that a newer Slipway wrote, or none. Raises WrongInput."""
    found = document.get("format") if isinstance(document, dict) else None
    if type(found) is not int or found < 1:
        raise WrongInput(f"{where}: has no format number, so Slipway did not write it as it is; restore or remove it")
    if found > known:
        raise WrongInput(f"{where}: format {found!r} is newer than this Slipway reads ({known}); upgrade slipway")


def commit(store: Store, kind: str, files: dict[str, Path], facts: dict[str, Any] | None = None) -> Artifact:
    """Upload `files` (name in the artifact -> local file), then the manifest.

    Files that are there already, whole, are not written again and keep the facts of their first writer.
    """
    if "manifest.json" in files:
        raise ValueError("an artifact's own manifest.json takes that name")
    listing = {
        name: {"sha256": digest_file(path), "bytes": path.stat().st_size} for name, path in sorted(files.items())
    }
    artifact = Artifact(kind, _digest(listing), listing, facts or {})
    manifest = f"{artifact.prefix}/manifest.json"
    if is_whole(store, kind, artifact.digest):
        store.put(manifest, store.get(manifest))  # it is in use again: what is young is no garbage
        return load(store, kind, artifact.digest)
    for name, path in files.items():
        store.upload(path, f"{artifact.prefix}/{name}")
    body = {"format": FORMAT, "digest": artifact.digest, "files": listing, "facts": artifact.facts}
    if store.create(manifest, data := json.dumps(body, indent=1, sort_keys=True).encode()):
        return artifact
    if is_whole(store, kind, artifact.digest):  # another writer was first: its facts stand
        return load(store, kind, artifact.digest)
    store.put(manifest, data)  # what stands there is damaged
    return artifact


def commit_folder(store: Store, kind: str, folder: Path, facts: dict[str, Any] | None = None) -> Artifact:
    """`commit` of every file below `folder`, under its path relative to it."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return commit(store, kind, files, facts)


def load(store: Store, kind: str, artifact_digest: str) -> Artifact:
    """The artifact of that digest.

    Raises NotFound when it was never finished, Damaged when its manifest was altered, WrongInput when a newer Slipway
    wrote it.
    """
    where = f"{kind}/{artifact_digest}/manifest.json"
    data = store.get(where)
    try:
        body = json.loads(data)
    except ValueError as error:
        raise Damaged(f"{store.uri}: {where} is not JSON ({error}); run the step that makes it again") from error
    check_format(body, FORMAT, where)
    try:
        if body["digest"] == artifact_digest == _digest(body["files"]):
            return Artifact(kind, artifact_digest, body["files"], body["facts"])
    except (KeyError, TypeError, AttributeError):
        pass  # said below
    raise Damaged(f"{store.uri}: {where} was altered; run the step that makes it again (slipway retrain)")


def _digest(files: dict[str, dict[str, Any]]) -> str:
    return digest({name: entry["sha256"] for name, entry in files.items()})


def damage(store: Store, artifact: Artifact) -> str | None:
    """The first file that is missing or is not what the manifest says, as one phrase; None when all is whole."""
    for name, entry in artifact.files.items():
        try:
            path = store.local_path(f"{artifact.prefix}/{name}")
        except NotFound:
            return f"{artifact.prefix}/{name} is missing"
        if digest_file(path) != entry["sha256"]:
            return f"{artifact.prefix}/{name} was altered"
    return None


def is_whole(store: Store, kind: str, artifact_digest: str) -> bool:
    try:
        return damage(store, load(store, kind, artifact_digest)) is None
    except (NotFound, Damaged):
        return False


def fetch(store: Store, artifact: Artifact) -> Path:
    """A local folder with the artifact's files, verified. Raises Damaged when one is missing or altered."""
    found = damage(store, artifact)
    if found:
        raise Damaged(f"{store.uri}: {found}; run the step that makes it again (slipway retrain)")
    return store.local_folder(artifact.prefix, artifact.files)
