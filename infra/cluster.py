"""Ray: joined where `ray_address` says, else started on this machine; once per process."""

import logging
import os
from pathlib import Path

from infra.errors import WrongInput
from infra.settings import Settings


def connect(settings: Settings, workers: int, gpus_per_worker: float = 0) -> None:
    """Make sure this process is connected to a cluster with room for `workers` training workers.

    Raises WrongInput when the cluster cannot be reached or never has that many CPUs or GPUs.
    """
    import ray

    if not ray.is_initialized():
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
                ray.init(num_cpus=num_cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise WrongInput(
                f"ray_address '{settings.ray_address}': no cluster answers ({error}); start one or unset it"
            ) from error
        finally:
            os.chdir(here)
        for name in ("ray", "ray.train", "ray.tune", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
    have = ray.cluster_resources()
    for unit, each in (("CPU", settings.cpus_per_worker), ("GPU", gpus_per_worker)):
        if have.get(unit, 0) < workers * each:
            fitting = int(have.get(unit, 0) // each)
            raise WrongInput(
                f"scaling.workers: {workers} workers of {each:g} {unit} do not fit the cluster's "
                f"{have.get(unit, 0):g} {unit} on {len(ray.nodes())} node(s), where {fitting} do; lower "
                "scaling.workers or add nodes"
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
