"""Ray: joined where `ray_address` says, else started on this machine; once per process."""

import logging
import os
import re
from pathlib import Path

from infra import reach
from infra.errors import WrongInput
from infra.settings import Settings


def connect(settings: Settings, workers: int, gpus_per_worker: float = 0) -> None:
    """Make sure this process is connected to a cluster with room for `workers` training workers.

    Raises WrongInput when the cluster cannot be reached, has another version, has nodes that cannot see the store, or
    never has that many CPUs or GPUs.
    """
    import ray

    if not ray.is_initialized():
        if settings.ray_address:
            knock(settings.ray_address)
        # Ray puts the driver's current folder first on its workers' import path, where a user's own `training/` would
        # hide ours: be in an empty folder while it looks. Its workers start in that folder too, so it has to stay.
        here = os.getcwd()
        empty = settings.folder / "ray" / "empty"
        empty.mkdir(parents=True, exist_ok=True)
        os.chdir(empty)
        try:
            if settings.ray_address:
                ray.init(address=settings.ray_address, log_to_driver=False, logging_level=logging.ERROR)
            else:
                # The training controller wants a CPU of its own beside the workers'.
                num_cpus = max(os.cpu_count() or 1, int(workers * settings.cpus_per_worker) + 1)
                _start(num_cpus)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            ray.shutdown()  # it may have got half of the way
            raise _refusal(settings.ray_address, error) from error
        finally:
            os.chdir(here)
        for name in ("ray", "ray.train", "ray.tune", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
    _refuse_unshared_folder(settings)
    if lacking := shortage(settings, workers, gpus_per_worker):
        raise WrongInput(f"scaling.workers: {lacking}; lower scaling.workers or add nodes")


def _start(num_cpus: int) -> None:
    """A cluster of this process alone. On a busy machine it may take more than the 30 s that Ray gives itself."""
    import ray

    for last in (False, False, True):
        try:
            # Without an address Ray would look for a cluster that anybody started on this machine, and join that.
            ray.init("local", num_cpus=num_cpus, include_dashboard=False, log_to_driver=False,
                     logging_level=logging.ERROR)  # fmt: skip
            return
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            if last:
                raise RuntimeError(str(error)) from error


def shortage(settings: Settings, workers: int, gpus_per_worker: float = 0) -> str:
    """Why the cluster as it is now has no room for the workers, as one phrase; "" where it has."""
    import ray

    have = ray.cluster_resources()
    for unit, each in (("CPU", settings.cpus_per_worker), ("GPU", gpus_per_worker)):
        if have.get(unit, 0) < workers * each:
            fitting = int(have.get(unit, 0) // each)
            return (
                f"{workers} workers of {each:g} {unit} do not fit the cluster's {have.get(unit, 0):g} {unit} on "
                f"{sum(node['Alive'] for node in ray.nodes())} node(s), where {fitting} do"
            )
    return ""


def knock(address: str) -> None:
    """Raises WrongInput where nothing listens at a cluster's HOST:PORT; Ray itself would look for minutes."""
    if address not in ("auto", "local"):
        reach.knock("ray_address", address, address if "://" in address else f"//{address}", None)


def _refusal(address: str, error: Exception) -> WrongInput:
    versions = re.findall(r"Ray: (\S+)\s+Python: (\S+)", str(error))
    if len(versions) == 2:
        (ray_there, python_there), (ray_here, python_here) = versions
        return WrongInput(
            f"ray_address '{address}': the cluster runs Ray {ray_there} on Python {python_there}, and this is Ray "
            f"{ray_here} on Python {python_here}; install the same on both sides, or change SLIPWAY_RAY_ADDRESS"
        )
    if not address:
        return WrongInput(f"Ray does not start on this machine ({error}); its logs are in /tmp/ray/session_latest/logs")
    return WrongInput(f"ray_address '{address}': no cluster answers ({error}); start one or change SLIPWAY_RAY_ADDRESS")


def nodes_elsewhere() -> list[str]:
    """Addresses of the cluster's live nodes that are not on this machine."""
    import psutil
    import ray

    here = {one.address for addresses in psutil.net_if_addrs().values() for one in addresses}
    return sorted({node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]} - here)


def _refuse_unshared_folder(settings: Settings) -> None:
    elsewhere = nodes_elsewhere()
    if elsewhere and settings.store_uri.startswith("file:") and not settings.shared_workspace:
        raise WrongInput(
            f"store {settings.store_uri}: is a folder of this machine, and Ray has {len(elsewhere)} node(s) elsewhere "
            f"({', '.join(elsewhere[:3])}); set SLIPWAY_STORE to s3://BUCKET/PREFIX, or SLIPWAY_SHARED_WORKSPACE=true "
            "where every node sees that folder under the same path"
        )


def address() -> str:
    """Where other processes join the cluster this one is connected to: a value for SLIPWAY_RAY_ADDRESS."""
    import ray

    return ray.get_runtime_context().gcs_address


def disconnect() -> None:
    """Leave the cluster; one that `connect` started ends."""
    import ray

    ray.shutdown()


def storage_folder(settings: Settings) -> str:
    """Where Ray keeps its own notes of a run; nothing Slipway relies on."""
    folder: Path = settings.folder / "ray"
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)
