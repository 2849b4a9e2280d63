"""Folders of files in the object store that are whole or absent.

`<kind>/<digest>/<name>` holds the files and `<kind>/<digest>/manifest.json`, written last, makes them exist. The
digest is of the names and hashes of the files: the same files have the same name anywhere, whoever wrote them.
"""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.digests import digest, digest_file
from infra.errors import SlipwayError, WrongInput
from infra.store import FolderStore, NotFound, Store

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


def check_format(document: dict[str, Any], known: int, where: str) -> None:
    """Refuse a file written by a newer Slipway. Raises WrongInput."""
    found = document.get("format")
    if not isinstance(found, int) or found > known:
        raise WrongInput(f"{where}: format {found!r} is newer than this Slipway reads ({known}); upgrade slipway")


def commit(store: Store, kind: str, files: dict[str, Path], facts: dict[str, Any] | None = None) -> Artifact:
    """Upload `files` (name in the artifact -> local file), then the manifest. Writing the same files again is free."""
    listing = {
        name: {"sha256": digest_file(path), "bytes": path.stat().st_size} for name, path in sorted(files.items())
    }
    artifact = Artifact(kind, digest({name: entry["sha256"] for name, entry in listing.items()}), listing, facts or {})
    manifest = f"{artifact.prefix}/manifest.json"
    if store.exists(manifest) and not damage(store, artifact):
        return load(store, kind, artifact.digest)
    for name, path in files.items():
        store.upload(path, f"{artifact.prefix}/{name}")
    body = {"format": FORMAT, "digest": artifact.digest, "files": listing, "facts": artifact.facts}
    store.put(manifest, json.dumps(body, indent=1, sort_keys=True).encode())
    return artifact


def commit_folder(store: Store, kind: str, folder: Path, facts: dict[str, Any] | None = None) -> Artifact:
    """`commit` of every file below `folder`, under its path relative to it."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return commit(store, kind, files, facts)


def load(store: Store, kind: str, artifact_digest: str) -> Artifact:
    """The artifact of that digest. Raises NotFound when it was never finished, WrongInput when a newer one wrote it."""
    where = f"{kind}/{artifact_digest}/manifest.json"
    body = json.loads(store.get(where))
    check_format(body, FORMAT, where)
    return Artifact(kind, body["digest"], body["files"], body["facts"])


def damage(store: Store, artifact: Artifact) -> str | None:
    """The first file that is missing or is not what the manifest says, as one phrase; None when all is whole."""
    if artifact.digest != digest({name: entry["sha256"] for name, entry in artifact.files.items()}):
        return f"{artifact.prefix}/manifest.json was altered"
    for name, entry in artifact.files.items():
        try:
            path = store.local_path(f"{artifact.prefix}/{name}")
        except NotFound:
            return f"{artifact.prefix}/{name} is missing"
        if path.stat().st_size != entry["bytes"] or digest_file(path) != entry["sha256"]:
            return f"{artifact.prefix}/{name} was altered"
    return None


def is_whole(store: Store, kind: str, artifact_digest: str) -> bool:
    try:
        return damage(store, load(store, kind, artifact_digest)) is None
    except (NotFound, ValueError, KeyError):
        return False


def fetch(store: Store, artifact: Artifact) -> Path:
    """A local folder with the artifact's files, verified. Raises SlipwayError when one is missing or altered."""
    found = damage(store, artifact)
    if found:
        raise SlipwayError(f"{store.uri}: {found}; run the step that makes it again (slipway retrain)")
    if isinstance(store, FolderStore):
        return store.folder / artifact.prefix
    folder = Path(tempfile.gettempdir()) / f"slipway-{os.getuid()}" / artifact.prefix
    for name in artifact.files:
        target = folder / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = target.with_name(f".{target.name}.{os.getpid()}")
            aside.write_bytes(store.get(f"{artifact.prefix}/{name}"))
            os.replace(aside, target)
    return folder
