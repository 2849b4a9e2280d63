"""The servers of a workspace: `slipway up` starts MLflow, Prefect and the runner of scheduled flows, `down` stops them.

Each is a session of its own, so closing the terminal does not reach it, and each carries a mark in its environment
that its children inherit: what a service started, in whatever process group, is found and stopped with it.
"""

import errno
import fcntl
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import SlipwayError, WrongInput
from infra.reach import ask, knock_database
from infra.service_records import Service, began, folder_of, read, running, write
from infra.settings import MLFLOW_USER, Settings, child_environment

if TYPE_CHECKING:
    import psutil

START_TIMEOUT_S = 180
"""New databases are migrated first: half a minute on a laptop, more on a busy one."""
STOP_TIMEOUT_S = 10
"""After that SIGTERM becomes SIGKILL. The runner is given it to end what it runs."""
MARK = "_SLIPWAY_SERVICE"
"""Environment variable of every process of a service: WORKSPACE:NAME."""
PASSWORD_LETTERS = 12
"""MLflow's least."""
USUAL_PORTS = {"mlflow": 5000, "prefect": 4200}
TITLES = {"mlflow": "MLflow", "prefect": "Prefect", "runner": "runner"}


@dataclass(frozen=True, kw_only=True)
class Started:
    """What `up` found or made of a service."""

    service: Service
    seconds: float | None
    """How long it took to answer; None when it ran already."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How a service is started."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    url: str = ""
    health: str = ""
    """Address that answers 200 when it is ready; "" for one without a page."""
    word: str = ""
    """What such a one writes into its log when it is ready."""
    cwd: Path


def up(
    settings: Settings, runner: Callable[[Settings], list[str]] | None, say: Callable[[str], None] = lambda _: None
) -> list[Started]:
    """Start what does not run, and wait until it answers. What is configured elsewhere is not started.

    runner: the command of the runner, given the settings with Prefect's address. Raises WrongInput for an open door, a
    port in use or a database that is not there, and SlipwayError when a server does not start; what failed is not
    left running.
    """
    if lacking := open_doors(settings):
        raise WrongInput(lacking[0])
    settings.create_workspace()
    with _locked(settings.folder):
        before = running(settings.folder)
        makers: dict[str, Callable[[Settings, int], Launch]] = {}
        if not settings.tracks_to_server:
            knock_database("tracking_uri", settings.tracking_uri)
            makers["mlflow"] = _mlflow
        if not configured_prefect(settings):
            knock_database("prefect_database", settings.prefect_database)
            makers["prefect"] = _prefect
        for name in makers.keys() - before.keys():
            _stop(settings.folder, name)  # what a killed service left behind would hold the port
        launches = [make(settings, choose_port(settings, name)) for name, make in makers.items() if name not in before]
        seconds = _start(settings, launches, say)
        api = configured_prefect(settings) or f"{running(settings.folder)['prefect'].url}/api"
        if runner and "runner" not in before:
            _stop(settings.folder, "runner")
            seconds |= _start(settings, [_runner(settings, api, runner)], say)
        return [Started(service=one, seconds=seconds.get(name)) for name, one in running(settings.folder).items()]


def open_doors(settings: Settings) -> list[str]:
    """What `up` requires and is not given, a line each; empty when nothing listens beyond this machine."""
    if not settings.listens_beyond:
        return []
    required = {
        "prefect_auth": ("Prefect", "USER:PASSWORD"),
        "mlflow_password": ("MLflow", f"{PASSWORD_LETTERS} characters or more"),
        "ray_token": ("Ray", "a long random text"),
    }
    return [
        f"host {settings.host}: listens beyond this machine, so {who} needs a secret; "
        f"set SLIPWAY_{name.upper()} ({form}), or host 127.0.0.1"
        for name, (who, form) in required.items()
        if not getattr(settings, name)
    ]


def configured_prefect(settings: Settings) -> str:
    """The API of a Prefect server that is not the workspace's own; "" without one."""
    ours = running(settings.folder).get("prefect")
    return "" if ours and settings.prefect_api == f"{ours.url}/api" else settings.prefect_api


def down(settings: Settings) -> list[Service]:
    """Stop everything that `up` started here, whole. Returns what was running."""
    if not folder_of(settings.folder).exists():
        return []
    with _locked(settings.folder):
        alive = [one for one in read(settings.folder).values() if one.alive]
        # The runner first: what it runs still reaches Prefect and MLflow to say that it ends.
        for name in ("runner", "prefect", "mlflow"):
            _stop(settings.folder, name)
    return alive


def _mlflow(settings: Settings, port: int) -> Launch:
    place = folder_of(settings.folder)
    environment = {
        # By environment: a command line is read by everybody on the machine, and an address may hold a password.
        "MLFLOW_BACKEND_STORE_URI": settings.mlflow_uri,
        "MLFLOW_ARTIFACTS_DESTINATION": settings.artifact_uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # four more processes, for judging by language models
    }
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--host", settings.host, "--port", str(port),
               "--workers", "1"]  # fmt: skip
    if settings.mlflow_password:
        if find_spec("flask_wtf") is None:
            raise WrongInput(
                "setting mlflow_password: MLflow asks for passwords with Flask-WTF, which is not installed; "
                "pip install 'slipway[cluster]'"
            )
        if len(settings.mlflow_password.reveal()) < PASSWORD_LETTERS:
            raise WrongInput(
                f"setting mlflow_password: MLflow takes {PASSWORD_LETTERS} characters or more; "
                "set a longer SLIPWAY_MLFLOW_PASSWORD"
            )
        configuration = place / "mlflow-auth.ini"
        configuration.write_text(
            "[mlflow]\ndefault_permission = READ\n"
            f"database_uri = sqlite:///{place / 'mlflow-auth.db'}\nadmin_username = {MLFLOW_USER}\n"
            "auth_cache_ttl_seconds = 60\n",  # else the slow hash of a password is made anew for each file of a package
            encoding="utf-8",
        )
        environment |= {
            "MLFLOW_AUTH_CONFIG_PATH": str(configuration),
            "MLFLOW_AUTH_ADMIN_USERNAME": MLFLOW_USER,
            "MLFLOW_AUTH_ADMIN_PASSWORD": settings.mlflow_password.reveal(),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
        }
        command += ["--app-name", "basic-auth"]
    url = f"http://{_asked_at(settings.host)}:{port}"
    return Launch(name="mlflow", command=command, environment=environment, url=url, health=f"{url}/health", cwd=place)


def _prefect(settings: Settings, port: int) -> Launch:
    url = f"http://{_asked_at(settings.host)}:{port}"
    environment = {
        "PREFECT_API_DATABASE_CONNECTION_URL": settings.prefect_database_uri,
        "PREFECT_SERVER_API_HOST": settings.host,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_UI_API_URL": "/api" if settings.listens_beyond else f"{url}/api",  # whatever name a browser has for us
        "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }
    if settings.prefect_auth:
        environment["PREFECT_SERVER_API_AUTH_STRING"] = settings.prefect_auth.reveal()
    # What `prefect server start` runs, without the process that it adds.
    command = [sys.executable, "-P", "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app",
               "--host", settings.host, "--port", str(port), "--log-level", "warning"]  # fmt: skip
    return Launch(name="prefect", command=command, environment=environment, url=url, health=f"{url}/api/health",
                  cwd=folder_of(settings.folder))  # fmt: skip


def _runner(settings: Settings, api: str, command: Callable[[Settings], list[str]]) -> Launch:
    environment = {"PREFECT_API_URL": api, "PREFECT_LOGGING_LEVEL": "INFO", "PREFECT_LOGGING_TO_API_ENABLED": "true"}
    # The caller's folder: experiments and slipway.toml are looked for there. The word is Prefect's, of its workers.
    return Launch(name="runner", command=command(replace(settings, prefect_api=api)), environment=environment,
                  word=" started!", cwd=Path.cwd())  # fmt: skip


def _start(settings: Settings, launches: list[Launch], say: Callable[[str], None]) -> dict[str, float]:
    """Start side by side and wait for all. Returns name -> seconds until it answered."""
    waiting: dict[str, tuple[Launch, subprocess.Popen[bytes]]] = {}
    seconds: dict[str, float] = {}
    begun = time.monotonic()
    try:
        for launch in launches:
            waiting[launch.name] = launch, _spawn(settings.folder, launch)
        while waiting:
            say("waiting for " + " and ".join(TITLES[name] for name in waiting))
            for name, (launch, child) in list(waiting.items()):
                late = time.monotonic() - begun > START_TIMEOUT_S
                if child.poll() is not None or late:
                    raise _failure(launch, log_of(settings.folder, name), late)
                if _answers(launch, log_of(settings.folder, name)):
                    if name == "mlflow":
                        _refuse_other_password(settings, launch.url)
                    _record(settings.folder, replace(read(settings.folder)[name], ready=True))
                    del waiting[name]
                    seconds[name] = time.monotonic() - begun
            time.sleep(0.1)
    finally:
        for name in waiting:  # one failed, or Ctrl-C: nothing half-started stays
            _stop(settings.folder, name)
    return seconds


def _answers(launch: Launch, log: Path) -> bool:
    return ask(launch.health).status == 200 if launch.health else launch.word.encode() in log.read_bytes()


def _spawn(workspace: Path, launch: Launch) -> "subprocess.Popen[bytes]":
    log = log_of(workspace, launch.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    own = {MARK: f"{workspace}:{launch.name}", "PYTHONUNBUFFERED": "1"}  # its log tells while it runs
    environment = child_environment(**launch.environment, **own)
    with log.open("wb") as sink:
        child = subprocess.Popen(launch.command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment,
                                 cwd=launch.cwd, start_new_session=True)  # fmt: skip
    _record(workspace, Service(name=launch.name, pid=child.pid, began=began(child.pid) or 0.0, url=launch.url,
                               log=str(log)))  # fmt: skip
    return child


def _record(workspace: Path, service: Service) -> None:
    write(workspace, read(workspace) | {service.name: service})


def log_of(workspace: Path, name: str) -> Path:
    return folder_of(workspace) / f"{name}.log"


def _refuse_other_password(settings: Settings, url: str) -> None:
    """MLflow makes its first user once and then keeps the password that it had."""
    if not settings.mlflow_password:
        return
    if ask(f"{url}/api/2.0/mlflow/users/current", MLFLOW_USER, settings.mlflow_password.reveal()).status == 401:
        place = folder_of(settings.folder) / "mlflow-auth.db"
        raise WrongInput(
            f"setting mlflow_password: MLflow's user '{MLFLOW_USER}' has another password since an earlier start; set "
            f"SLIPWAY_MLFLOW_PASSWORD to that one, or remove {place} and with it all users"
        )


def _failure(launch: Launch, log: Path, late: bool) -> SlipwayError:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if any("ddress already in use" in line for line in lines):  # taken since we looked
        return _in_use(launch.name, launch.url.rpartition("/")[2])
    why = f"no answer within {START_TIMEOUT_S} s" if late else lines[-1] if lines else "it ended without a word"
    return SlipwayError(f"{TITLES[launch.name]} did not start: {why}; its log is {log}")


def choose_port(settings: Settings, name: str) -> int:
    """The port that is set; else the usual one where it is free, or any that is.

    Raises WrongInput when the one that is set is in use, or the host is not this machine's.
    """
    wanted = {"mlflow": settings.mlflow_port, "prefect": settings.prefect_port}[name]
    if wanted:
        if not _free(settings.host, wanted):
            raise _in_use(name, f"{settings.host}:{wanted}")
        return wanted
    if _free(settings.host, USUAL_PORTS[name]):
        return USUAL_PORTS[name]
    with _listening(settings.host, 0) as probe:
        return int(probe.getsockname()[1])


def _in_use(name: str, place: str) -> WrongInput:
    setting = f"{name}_port"
    return WrongInput(
        f"setting {setting}: {place} is in use; choose another with --{name}-port or SLIPWAY_{setting.upper()}"
    )


def _free(host: str, port: int) -> bool:
    try:
        _listening(host, port).close()
        return True
    except OSError as error:
        if error.errno == errno.EACCES:
            raise WrongInput(f"port {port}: only root may listen there; choose one above 1023") from error
        if error.errno != errno.EADDRINUSE:
            raise WrongInput(
                f"setting host: '{host}' is no address of this machine ({error.strerror}); change SLIPWAY_HOST"
            ) from error
        return False


def _listening(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    probe = socket.socket(family, kind, protocol)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: a port just left is free
        probe.bind(address)
        probe.listen(1)
    except OSError:
        probe.close()
        raise
    return probe


def _asked_at(host: str) -> str:
    """The host part of an address at which this machine reaches a server that listens at `host`."""
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{near}]" if ":" in near else near


def members(workspace: Path, name: str) -> "list[psutil.Process]":
    """Every living process of a service, whatever became of the one that started it."""
    import psutil

    mark = f"{workspace}:{name}"
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                found.append(process)
        except psutil.Error:
            continue  # gone meanwhile, or another user's
    return found


def _stop(workspace: Path, name: str) -> None:
    """End a service and what it started: asked first, then made to. Its record goes. Raises SlipwayError for one that
    cannot be ended."""
    import psutil

    first = read(workspace).get(name)
    begun = time.monotonic()
    asked: set[int] = set()
    while left := members(workspace, name):
        passed = time.monotonic() - begun
        if passed > 2 * STOP_TIMEOUT_S:
            raise SlipwayError(f"{TITLES[name]}: process {left[0].pid} does not end, not even by SIGKILL; look at it")
        # The one that leads is asked first and ends its own; who is left after half the time is asked too.
        lead = [one for one in left if first and one.pid == first.pid]
        for process in lead if lead and passed < STOP_TIMEOUT_S / 2 else left:
            kill = passed > STOP_TIMEOUT_S
            if kill or process.pid not in asked:
                asked.add(process.pid)
                with suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        time.sleep(0.05)
    known = read(workspace)
    if known.pop(name, None):
        write(workspace, known)


@contextmanager
def _locked(workspace: Path) -> Iterator[None]:
    """One `up` or `down` at a time; a second one waits for the first."""
    folder_of(workspace).mkdir(parents=True, exist_ok=True)
    with (folder_of(workspace) / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
