"""Where a source's files lie: one file, a glob, or a folder with the patterns that its contract names.

The order is the contract's; what one glob finds is sorted by the bytes of its path. Nothing is read from outside the
folder that was named: not through `..`, an absolute path, or a link.
"""

import glob
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts.splits import SPLITS, fits
from infra.errors import WrongInput, choices

if TYPE_CHECKING:
    from data_contracts.contract import Contract
    from infra.store import Store

SHOWN = 12
"""Files of a folder that an error lists."""


@dataclass(frozen=True)
class Place:
    name: str
    """Path below the source's root, with '/': the same on every machine."""
    address: str
    """As errors say it."""
    path: Path | None = None
    store: "Store | None" = None
    key: str = ""

    def local(self) -> Path:
        """A file on this machine; what an object store holds is fetched into its cache. Raises NotFound."""
        if self.path is not None:
            return self.path
        assert self.store is not None
        return self.store.local_path(self.key)

    def fingerprint(self) -> list[Any]:
        if self.path is not None:
            stat = self.path.stat()
            return [os.path.abspath(self.path), stat.st_size, stat.st_mtime_ns]
        assert self.store is not None
        return [self.address, self.store.modified(self.key)]


def patterns_of(contract: "Contract") -> list[tuple[str, str]]:
    """(field, pattern) of each file or glob that the contract names below a folder, in its order."""
    found = [("slipway.files", pattern) for pattern in contract.server.get("files", [])]
    if not found:
        files = contract.split.files
        found = [(f"slipway.split.files.{name}", pattern) for name in SPLITS for pattern in files.get(name, ())]
    for field, pattern in found:
        if not isinstance(pattern, str) or leads_out(pattern):
            raise WrongInput(f"contract {contract.path}: {field}: {pattern!r} must be a path below the source's folder")
    return found


def leads_out(name: str) -> bool:
    """Whether a name that stands in data or a contract is no path below a folder."""
    return name.startswith(("/", "\\", "~")) or ".." in name.replace("\\", "/").split("/") or "\0" in name


def inside(root: Path, name: str, where: str) -> Path:
    """The file `name` below `root`. Raises WrongInput for one that leads out of it, also by a link."""
    path = root / name
    if leads_out(name) or not os.path.realpath(path).startswith(os.path.realpath(root).rstrip("/") + "/"):
        raise WrongInput(f"{where}: '{name[:100]}' leads out of the folder {root}; only files below it are read")
    return path


def base_of(contract: "Contract", uri: str | None) -> str:
    """The path, glob or s3:// address that the source is at."""
    if uri is not None:
        return uri.removeprefix("file://")
    said = contract.server.get("path")
    if said is None:
        raise WrongInput(
            f"contract {contract.path}: servers[0].path is missing; say where the data is, or give --source"
        )
    return os.path.join(os.path.dirname(contract.path), said.removeprefix("file://"))


def places(contract: "Contract", uri: str | None, cache: Path, default: str | None = None) -> list[Place]:
    """The files in order; `default` is the pattern where the contract names none. Raises WrongInput for no file."""
    base = base_of(contract, uri)
    if base.startswith("s3://"):
        return _in_store(contract, base, cache, default)
    if "://" in base:
        raise WrongInput(f"source {base}: is no address that source {contract.source} reads; give a path or s3://")
    if os.path.isdir(base):
        found = _in_folder(contract, Path(base), default)
    else:
        names = [base] if os.path.exists(base) else glob.glob(base, recursive=True)
        root = _fixed_part(base)
        paths = [name for name in sorted(names, key=os.fsencode) if not os.path.isdir(name)]
        found = [Place(os.path.relpath(name, root), name, Path(name)) for name in paths]
        if not found:
            raise WrongInput(f"source {base}: no such file; mend `servers[0].path` in {contract.path} or give --source")
    for place in found:
        path = place.local()
        if not path.is_file() or not os.access(path, os.R_OK):
            raise WrongInput(f"source {path}: cannot be read; it must be a file that you may open")
    return found


def _fixed_part(pattern: str) -> str:
    """The folder that every path a glob finds is below."""
    folder = os.path.dirname(pattern)
    while glob.has_magic(folder):
        folder = os.path.dirname(folder)
    return folder or "."


def sibling(place: Place, name: str, where: str) -> Place:
    """The file that another file of the source names, below the same root. Raises WrongInput for one that leads out."""
    if place.path is None:
        if leads_out(name):
            raise WrongInput(f"{where}: '{name[:100]}' leads out of the source; only objects below it are read")
        return Place(name, f"{place.address.removesuffix(place.name)}{name}", None, place.store, name)
    root = Path(place.path.absolute())
    for _ in Path(place.name).parts:
        root = root.parent
    return Place(name, str(root / name), inside(root, name, where))


def _in_folder(contract: "Contract", root: Path, default: str | None) -> list[Place]:
    wanted = patterns_of(contract) or ([] if default is None else [("files", default)])
    if not wanted:
        raise WrongInput(f"source {root}: is a folder; name a file, or a glob such as {root / '*.csv'}")
    found: dict[str, Place] = {}
    for field, pattern in wanted:
        if (root / pattern).is_file():
            names = [pattern]
        else:
            names = sorted(glob.glob(glob.escape(str(root)) + "/" + pattern, recursive=True), key=os.fsencode)
            names = [os.path.relpath(name, root) for name in names if not os.path.isdir(name)]
        if not names:
            there = sorted(str(path.relative_to(root)) for path in _some_files(root))
            raise WrongInput(f"source {root}: {field}: no file is '{pattern}'; {choices(pattern, there)}")
        for name in names:
            found.setdefault(name, Place(name, str(root / name), inside(root, name, f"source {root}: {field}")))
    return list(found.values())


def _some_files(root: Path) -> list[Path]:
    found = []
    for folder, _, names in os.walk(root):
        found += [Path(folder) / name for name in names]
        if len(found) > SHOWN:
            break
    return found[:SHOWN]


def _in_store(contract: "Contract", uri: str, cache: Path, default: str | None) -> list[Place]:
    from infra.store import open_store

    root = uri if uri.endswith("/") else uri.rpartition("/")[0]
    while glob.has_magic(root):
        root = root.rpartition("/")[0]
    root = root.rstrip("/")
    if root in ("s3:", "s3:/"):
        root = uri.rstrip("/")
    store = open_store(root, cache / "s3")
    keys = sorted(store.list(""), key=str.encode)
    rest = uri[len(root) :].strip("/")
    if rest and not glob.has_magic(rest) and rest not in keys:  # a prefix without its '/'
        store, rest = open_store(uri, cache / "s3"), ""
        root, keys = uri, sorted(store.list(""), key=str.encode)
    wanted = patterns_of(contract) if not rest else [("--source", rest)]
    found: dict[str, Place] = {}
    for field, pattern in wanted or [("--source", default or "**/*")]:
        names = [pattern] if pattern in keys else [key for key in keys if fits(key, pattern)]
        if not names:
            raise WrongInput(f"source {root}: {field}: no object is '{pattern}'; {choices(pattern, keys[:SHOWN])}")
        for name in names:
            found.setdefault(name, Place(name, f"{root}/{name}", None, store, name))
    return list(found.values())
