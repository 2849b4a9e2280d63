"""Is this machine, and what the settings name, fit for work: one check a part, with what to do about a red one.

The checks do the thing they ask about (write an object, open the tracking store) and take back what they wrote: a
doctor that is called in a folder without a workspace leaves none behind.
"""

import shutil
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from infra.errors import SlipwayError, WrongInput
from infra.settings import Settings
from infra.store import FolderStore, Store

PYTHON = (3, 11)
FREE_BYTES = 2 << 30
"""The demo's workspace is well below this; a disk with less fills up in the middle of a run."""
SKEW_S = 30.0
"""A live attempt writes its heartbeat every 15 s and may be taken over after 60: clocks this far apart blur that."""
REACH_S = 3.0
SERVER_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    found: str
    """One line."""
    advice: str = ""
    """What to do, one line; empty where all is well."""


def run_checks(settings: Settings) -> list[Check]:
    """All checks, in the order in which trouble is best mended. A check that fails in a way of its own is a red one."""
    checks: list[tuple[str, Callable[[Settings], Check]]] = [
        ("python", _python),
        ("torch", _torch),
        ("ray", _ray),
        ("disk", _disk),
        ("store", _store),
        ("clock", _clock),
        ("tracking", _tracking),
    ]
    results = []
    for name, check in checks:
        try:
            results.append(check(settings))
        except SlipwayError as error:
            found, _, advice = str(error).partition("; ")
            results.append(Check(name, False, found, advice or "mend what the message names"))
        except Exception as error:
            reason = " ".join(str(error).split())
            advice = (
                "install again: pip install -c constraints.txt -e ." if isinstance(error, ImportError) else "report"
            )
            results.append(Check(name, False, f"{type(error).__name__}: {reason}", advice))
    return results


def _python(settings: Settings) -> Check:
    found = f"{sys.version.split()[0]} at {sys.executable}"
    wanted = ".".join(map(str, PYTHON))
    return Check(
        "python",
        sys.version_info >= PYTHON,
        found,
        "" if sys.version_info >= PYTHON else f"make a virtual environment with Python {wanted} or newer",
    )


def _torch(settings: Settings) -> Check:
    import torch

    parts = [torch.__version__, f"{torch.get_num_threads()} CPU threads"]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            parts.append(f"{properties.name} with {properties.total_memory / 2**30:.0f} GiB")
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        built = f", though this build is for CUDA {torch.version.cuda}" if torch.version.cuda else ""
        parts.append(f"no GPU{built}")
        native = any(has is True for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)
    parts.append("bf16 in hardware" if native else "bf16 only emulated (slow: train in fp32)")
    return Check("torch", True, ", ".join(parts))


def _ray(settings: Settings) -> Check:
    import ray

    if not settings.ray_address:
        return Check("ray", True, f"{ray.__version__}, started on this machine for each run")
    address = settings.ray_address
    if address != "auto":  # ray.init itself tries for minutes
        _knock("ray_address", address, address if "://" in address else f"//{address}", None)
    from infra.cluster import connect

    connect(settings, workers=1)
    cpus = ray.cluster_resources().get("CPU", 0)
    return Check("ray", True, f"{ray.__version__}, cluster at {address} with {cpus:g} CPUs")


def _knock(setting: str, value: str, url: str, port: int | None) -> None:
    """Raises WrongInput when nothing listens at the host of `url`, at its port or else at `port`."""
    parts = urlparse(url)
    try:
        port = parts.port or port
    except ValueError:
        port = None
    if not parts.hostname or port is None:
        raise WrongInput(f"{setting} '{value}': names no host and port; write HOST:PORT")
    try:
        socket.create_connection((parts.hostname, port), timeout=REACH_S).close()
    except OSError as error:
        raise WrongInput(
            f"{setting} '{value}': no answer ({error.strerror or error}); start it or unset SLIPWAY_{setting.upper()}"
        ) from error


def _disk(settings: Settings) -> Check:
    free = shutil.disk_usage(_nearest(settings.folder)).free
    found = f"{free / 2**30:.1f} GiB free for {settings.folder}"
    if free < FREE_BYTES:
        return Check("disk", False, found, f"make room: at least {FREE_BYTES / 2**30:g} GiB, or set SLIPWAY_WORKSPACE")
    return Check("disk", True, found)


def _nearest(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _store(settings: Settings) -> Check:
    store = settings.object_store
    with _Probe(store) as key:
        problem = _promise_broken(store, key)
    if problem:
        return Check("store", False, f"{store.uri}: {problem}", "use a local disk, or an S3 bucket without versioning")
    return Check("store", True, f"{store.uri}: reads, writes, and creates only what is absent")


def _promise_broken(store: Store, key: str) -> str:
    """What the store does not keep of what everything else relies on; empty when it keeps all."""
    if not store.create(key, b"first"):
        return "an absent object could not be created"
    if store.get(key) != b"first":
        return "does not read what was written"
    if store.create(key, b"second") or store.get(key) != b"first":
        return "create-if-absent overwrote what was there, so two writers could both win"
    if list(store.list(key)) != [key]:
        return "does not list what was written"
    store.put(key, b"third")
    if store.get(key) != b"third":
        return "does not read what was overwritten"
    return ""


def _clock(settings: Settings) -> Check:
    store = settings.object_store
    try:
        with _Probe(store) as key:
            before = time.time()
            store.put(key, b"now")
            skew = store.modified(key) - before
    except SlipwayError:
        return Check("clock", False, "cannot be compared with the store's", "mend the store first")
    found = f"{abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} the store's"
    if abs(skew) > SKEW_S:
        return Check("clock", False, found, "set this machine's time (a time service such as chrony keeps it)")
    return Check("clock", True, found if abs(skew) >= 1 else "agrees with the store's")


class _Probe:
    """A key of our own for the length of a block, then no trace of it."""

    def __init__(self, store: Store):
        self.store = store
        self.key = f"doctor/{uuid.uuid4().hex}"

    def __enter__(self) -> str:
        self.before = _nearest(self.store.folder / "doctor") if isinstance(self.store, FolderStore) else None
        return self.key

    def __exit__(self, *error: object) -> None:
        self.store.delete(self.key)
        if self.before is None or not isinstance(self.store, FolderStore):
            return
        folder = self.store.folder / "doctor"
        while folder != self.before:
            try:
                folder.rmdir()
            except OSError:
                return  # somebody wrote there meanwhile, or it was never made
            folder = folder.parent


def _tracking(settings: Settings) -> Check:
    uri = settings.mlflow_uri
    if uri.startswith("sqlite:///") and not Path(path := uri.removeprefix("sqlite:///")).exists():
        # Making the database takes seconds and would leave a workspace behind: see that it could be made.
        try:
            tempfile.TemporaryFile(dir=_nearest(Path(path).parent)).close()
        except OSError as error:
            raise WrongInput(f"{uri}: cannot be made ({error.strerror}); set SLIPWAY_TRACKING_URI") from error
        return Check("tracking", True, f"{uri}: made by the first run")
    scheme = urlparse(uri).scheme
    if scheme in SERVER_PORTS:
        _knock("tracking_uri", uri, uri, SERVER_PORTS[scheme])  # MLflow itself tries for four minutes
    from infra import tracking

    return Check("tracking", True, f"{uri}: {tracking.probe(settings)}")
