"""Is this machine, and what the settings name, fit for work: one check a part, with what to do about a red one.

The checks do the thing they ask about (write an object, open the tracking store) and take back what they wrote: a
doctor that is called in a folder without a workspace leaves none behind.
"""

import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlparse

from infra.errors import SlipwayError, WrongInput
from infra.reach import ask, is_database_server, knock, knock_database, knock_prefect
from infra.secret import redact
from infra.services import open_doors
from infra.settings import Settings
from infra.store import FolderStore, Store

PYTHON = (3, 11)
FREE_BYTES = 2 << 30
"""The demo's workspace is well below this; a disk with less fills up in the middle of a run."""
SKEW_S = 30.0
"""A live attempt writes its heartbeat every 15 s and may be taken over after 60: clocks this far apart blur that."""
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
        ("database", _database),
        ("tracking", _tracking),
        ("prefect", _prefect),
        ("clock", _clock),
        ("access", _access),
    ]
    results = []
    for name, check in checks:
        try:
            results.append(check(settings))
        except SlipwayError as error:
            found, _, advice = str(error).partition("; ")
            results.append(Check(name, False, found, advice or "mend what the message names"))
        except Exception as error:
            reason = " ".join(redact(str(error)).split())
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
    from infra import cluster

    cluster.knock(settings.ray_address)  # before anything is written
    cluster.connect(settings, workers=1)
    cpus = ray.cluster_resources().get("CPU", 0)
    where = f"{len(cluster.nodes_elsewhere())} of {len(ray.nodes())} nodes on other machines"
    return Check("ray", True, f"{ray.__version__}, as the cluster at {settings.ray_address}; {cpus:g} CPUs, {where}")


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
    """This machine's clock beside the store's, and beside those of the servers in the settings."""
    skews = {}
    with suppress(SlipwayError), _Probe(settings.object_store) as key:
        before = time.time()
        settings.object_store.put(key, b"now")
        skews["the store's"] = settings.object_store.modified(key) - before
    for name, url in (("MLflow's", settings.mlflow_uri), ("Prefect's", f"{settings.prefect_api}/health")):
        if url.startswith(("http://", "https://")) and (date := ask(url).headers.get("date")):
            skews[name] = parsedate_to_datetime(date).timestamp() - time.time()
    if not skews:
        return Check("clock", False, "cannot be compared with the store's", "mend the store first")
    whose, skew = max(skews.items(), key=lambda one: abs(one[1]))
    if abs(skew) <= SKEW_S:
        return Check("clock", True, f"agrees with {' and '.join(skews)} to {max(1, round(abs(skew)))} s")
    found = f"{abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} {whose}"
    return Check("clock", False, found, "set this machine's time (a time service such as chrony keeps it)")


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


def _database(settings: Settings) -> Check:
    found = []
    for name, address, file in (
        ("tracking_uri", settings.tracking_uri, "mlflow.db"),
        ("prefect_database", settings.prefect_database, "prefect.db"),
    ):
        knock_database(name, address)
        if is_database_server(address):
            found.append(f"{address} lets us in")
        elif not address:
            found.append(f"{file} in the workspace")
    return Check("database", True, ", ".join(found) or "none of our own")


def _tracking(settings: Settings) -> Check:
    uri, shown = settings.mlflow_uri, settings.mlflow_shown
    if uri.startswith("sqlite:///") and not Path(path := uri.removeprefix("sqlite:///")).exists():
        # Making the database takes seconds and would leave a workspace behind: see that it could be made.
        try:
            tempfile.TemporaryFile(dir=_nearest(Path(path).parent)).close()
        except OSError as error:
            raise WrongInput(f"{uri}: cannot be made ({error.strerror}); set SLIPWAY_TRACKING_URI") from error
        return Check("tracking", True, f"{uri}: made by the first run")
    if settings.tracks_to_server:  # MLflow itself tries for four minutes
        knock("tracking_uri", shown, uri, SERVER_PORTS[urlparse(uri).scheme])
    if is_database_server(uri):
        try:
            knock_database("tracking_uri", settings.tracking_uri)
        except WrongInput:
            return Check("tracking", False, "not asked: its database does not let us in", "mend the database first")
    from infra import tracking

    return Check("tracking", True, f"{shown}: {tracking.probe(settings)}")


def _prefect(settings: Settings) -> Check:
    here = version("prefect")
    if not settings.prefect_api:
        return Check("prefect", True, f"{here}, a server for each flow; one that stays: slipway up")
    there = knock_prefect(settings)
    if there.split(".")[:2] != here.split(".")[:2]:
        return Check("prefect", False, f"{settings.prefect_api} runs {there}, and this is {here}",
                     f"pip install prefect=={there}, or bring the server to {here}")  # fmt: skip
    return Check("prefect", True, f"{here}, as the server at {settings.prefect_api}")


def _access(settings: Settings) -> Check:
    if lacking := open_doors(settings):
        found, _, advice = lacking[0].partition("; ")
        return Check("access", False, found, advice)
    who = "whoever has the secrets" if settings.listens_beyond else "this machine alone"
    return Check("access", True, f"the servers of slipway up listen on {settings.host}: {who}")
