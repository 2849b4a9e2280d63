"""What `slipway up` started in a workspace, and whether it still runs. Read by every command, so it stays light."""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.errors import WrongInput

FORMAT = 1
SAME_S = 2.0
"""How far apart two readings of one process's start may be: it is reckoned from the machine's, which is adjusted."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """One process of `slipway up`."""

    name: str
    """mlflow | prefect | runner"""
    pid: int
    began: float
    """When the process began, in seconds since 1970. A pid alone is not enough: it is given out again."""
    url: str = ""
    """Its page; none for the runner."""
    log: str = ""
    ready: bool = False
    """Whether it has answered."""

    @property
    def alive(self) -> bool:
        return began(self.pid) is not None and abs((began(self.pid) or 0) - self.began) < SAME_S

    @property
    def uptime_s(self) -> float:
        return time.time() - self.began


def began(pid: int) -> float | None:
    """When the process of that number began; None when there is none, or only its entry in the process table."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def folder_of(workspace: Path) -> Path:
    """Where the records, logs and files of the services are."""
    return workspace / "services"


def read(workspace: Path) -> dict[str, Service]:
    """Name -> what was last started, dead or alive. Raises WrongInput for a file of a newer Slipway."""
    path = folder_of(workspace) / "services.json"
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if body["format"] > FORMAT:
            raise WrongInput(f"{path}: format {body['format']} is newer than this Slipway's {FORMAT}; update Slipway")
        return {one["name"]: Service(**one) for one in body["services"]}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WrongInput(f"{path}: cannot be read ({error}); run slipway down, then remove it") from error


def running(workspace: Path) -> dict[str, Service]:
    """What runs and has answered."""
    return {name: service for name, service in read(workspace).items() if service.ready and service.alive}


def write(workspace: Path, services: dict[str, Service]) -> None:
    """Whole or not at all."""
    path = folder_of(workspace) / "services.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".services-{os.getpid()}")
    body = {"format": FORMAT, "services": [asdict(one) for one in services.values()]}
    aside.write_text(json.dumps(body, indent=1), encoding="utf-8")
    os.replace(aside, path)
