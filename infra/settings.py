"""Where things are: environment `SLIPWAY_*` over `slipway.toml` over defaults. The only reader of the environment."""

import ipaddress
import os
import tomllib
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from infra import service_records
from infra.errors import WrongInput, choices
from infra.keys import public_key
from infra.secret import SHOWN, Secret, remember_environment
from infra.store import Store, open_store

NONE = Secret()
MLFLOW_USER = "admin"
"""Whose password `mlflow_password` is: MLflow's first user, who may do everything."""
_NO_PASSWORD_IN = {
    "store": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "artifacts": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "prefect_api": "set SLIPWAY_PREFECT_AUTH=USER:PASSWORD",
    "ray_address": "set SLIPWAY_RAY_TOKEN",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    workspace: str = ".slipway"
    """Folder for everything local: the store, the databases, logs. Relative to the current folder."""
    store: str = ""
    """Object store: a folder, file:// or s3://bucket/prefix. Default: `store` in the workspace."""
    tracking_uri: str = ""
    """MLflow: a database or server address. Default: SQLite in the workspace."""
    artifacts: str = ""
    """Where MLflow keeps model files when Slipway creates its experiments. Default: `mlartifacts` in the workspace."""
    prefect_api: str = ""
    """Prefect server's API address. Default: the one that `slipway up` started in the workspace, else an ephemeral
    one for the flow."""
    prefect_database: str = ""
    """Database of the Prefect servers that Slipway starts (postgresql://...). Default: SQLite in the workspace."""
    host: str = "127.0.0.1"
    """Where the servers of `slipway up` listen. Beyond this machine only with `prefect_auth`, `mlflow_password` and
    `ray_token`."""
    mlflow_port: int = 0
    """Port of the MLflow server that `slipway up` starts. 0: 5000, or a free one where that is taken."""
    prefect_port: int = 0
    """Port of the Prefect server that `slipway up` starts. 0: 4200, or a free one where that is taken."""
    prefect_auth: Secret = NONE
    """USER:PASSWORD that Prefect's server asks for, and that is sent to it."""
    mlflow_password: Secret = NONE
    """What MLflow's server asks its user `admin` for, and what is sent to a server at `tracking_uri`."""
    ray_token: Secret = NONE
    """Token that Ray's processes ask of each other."""
    ray_address: str = ""
    """Ray cluster to join ("auto" or host:port). Default: one started on this machine for the run."""
    shared_workspace: bool = False
    """Whether every node of the Ray cluster sees the workspace's folders under the same paths."""
    cpus_per_worker: float = 1
    """CPUs a training worker asks of Ray."""
    memory_limit_gb: float = 0
    """What registering a dataset may take, in GB of 1e9 bytes. 0: the machine's memory."""
    country: str = ""
    """Where the machines are, as three letters (DEU): CO2 is reckoned with that country's mix of electricity. Default:
    the world's."""
    ledger: str = ""
    """Test mode: a folder in which every training worker writes which samples it was given, step by step."""
    author: str = ""
    """Who is recorded as a run's author. Default: the login name."""
    keys: str = ""
    """Folder of key pairs, outside the workspace. Default: ~/.config/slipway/keys."""

    def __post_init__(self) -> None:
        # Made absolute at once: the folder is changed before Ray starts, and a path must not change with it.
        for name in ("workspace", "store", "artifacts", "keys", "ledger"):
            value = getattr(self, name)
            if value and "://" not in value:
                object.__setattr__(self, name, str(Path(value).expanduser().absolute()))
        scheme, slashes, path = self.tracking_uri.partition("sqlite:///")
        if slashes and not scheme and not path.startswith("/"):
            object.__setattr__(self, "tracking_uri", f"sqlite:///{Path(path).absolute()}")
        for name in ("tracking_uri", "prefect_database"):
            object.__setattr__(self, name, Secret.inside(getattr(self, name)))
        for name in ("prefect_auth", "mlflow_password", "ray_token"):
            object.__setattr__(self, name, Secret.alone(getattr(self, name)))
        for name, instead in _NO_PASSWORD_IN.items():
            if "@" in getattr(self, name).partition("://")[2].partition("/")[0]:
                raise WrongInput(f"setting {name}: its address holds a password or key, which it may not; {instead}")
        if self.prefect_auth and not all(self.prefect_auth.reveal().partition(":")):
            raise WrongInput("setting prefect_auth: is not of the form USER:PASSWORD; write it so")
        for name in ("mlflow_port", "prefect_port"):
            if not 0 <= getattr(self, name) < 65536:
                raise WrongInput(f"setting {name}: {getattr(self, name)} is out of range; write 1 to 65535, or 0")
        if not 0 < self.cpus_per_worker < float("inf"):
            raise WrongInput(f"setting cpus_per_worker: {self.cpus_per_worker:g} is out of range; write more than 0")
        if not 0 <= self.memory_limit_gb < float("inf"):
            raise WrongInput(f"setting memory_limit_gb: {self.memory_limit_gb:g} is out of range; write 0 or more")

    @property
    def folder(self) -> Path:
        return Path(self.workspace)

    @property
    def store_uri(self) -> str:
        return self.store or (self.folder / "store").as_uri()

    @cached_property
    def object_store(self) -> Store:
        """Raises WrongInput for a bucket that is missing, versioned, or refuses the credentials."""
        store = open_store(self.store_uri, self.folder / "cache")
        store.check()
        return store

    @property
    def mlflow_uri(self) -> str:
        """What MLflow's client connects to: a database's address with its password, a server's without (MLflow reads
        that from the environment). For people: `mlflow_shown`."""
        address = Secret.inside(self.tracking_uri).reveal()
        if self.tracks_to_server:
            parts = urlsplit(address)
            return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        return address or f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def mlflow_shown(self) -> str:
        return str(self.tracking_uri) or self.mlflow_uri

    @property
    def tracks_to_server(self) -> bool:
        return self.tracking_uri.startswith(("http://", "https://"))

    @property
    def prefect_database_uri(self) -> str:
        """As Prefect wants it: with the asynchronous driver, and the password."""
        address = Secret.inside(self.prefect_database).reveal()
        for scheme in ("postgres://", "postgresql://"):
            if address.startswith(scheme):
                return "postgresql+asyncpg://" + address.removeprefix(scheme)
        return address or f"sqlite+aiosqlite:///{self.folder / 'prefect.db'}"

    @property
    def listens_beyond(self) -> bool:
        """Whether the servers of `slipway up` can be reached from other machines."""
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host != "localhost"

    @property
    def artifact_uri(self) -> str:
        return self.artifacts or (self.folder / "mlartifacts").as_uri()

    @property
    def memory_limit(self) -> int | None:
        return int(self.memory_limit_gb * 1e9) or None

    @property
    def author_name(self) -> str:
        return self.author or os.environ.get("USER") or os.environ.get("LOGNAME") or f"uid{os.getuid()}"

    @property
    def keys_folder(self) -> Path:
        return Path(self.keys) if self.keys else Path.home() / ".config" / "slipway" / "keys"

    @property
    def author_key(self) -> str:
        """The public key of the author, from the key pair of that name; "" without one."""
        return public_key(self.keys_folder, self.author_name)

    def create_workspace(self) -> None:
        """Make the workspace folder. Raises WrongInput where it cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise WrongInput(
                f"workspace {self.folder}: cannot be written ({error.strerror}); "
                "run in a folder you own or set SLIPWAY_WORKSPACE to one"
            ) from error


def load_settings() -> Settings:
    """Raises WrongInput for an unknown or mistyped key, naming the file or variable.

    A variable that is set and empty counts as not set. Where no Prefect server is configured, the one that `slipway up`
    started in the workspace is taken.
    """
    remember_environment(os.environ)
    kinds = {field.name: field.type for field in fields(Settings)}
    given: dict[str, tuple[str, object]] = {}  # setting -> where it stands, value
    for key, value in _read_file(Path("slipway.toml")).items():
        if key not in kinds:
            raise WrongInput(f"slipway.toml: unknown key '{key}'; {choices(key, kinds)}")
        given[key] = f"slipway.toml: {key}", value
    variables = {f"SLIPWAY_{name.upper()}": name for name in kinds}
    for variable, value in os.environ.items():
        if variable.startswith("SLIPWAY_") and variable not in variables:
            raise WrongInput(f"environment: unknown variable '{variable}'; {choices(variable, variables)}")
        if variable in variables and value:
            given[variables[variable]] = f"environment: {variable}", value
    values: dict[str, Any] = {name: _cast(kinds[name], value, where) for name, (where, value) in given.items()}
    settings = Settings(**values)
    if settings.prefect_api or not (found := service_records.running(settings.folder).get("prefect")):
        return settings
    return replace(settings, prefect_api=f"{found.url}/api")


def _read_file(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WrongInput(f"{path}: is not TOML ({error}); mend or remove it") from error
    except OSError as error:
        raise WrongInput(f"{path}: cannot be read ({error.strerror}); mend or remove it") from error


def _cast(kind: object, value: object, where: str) -> object:
    if kind is float:
        if not isinstance(value, bool | dict | list):
            try:
                return float(str(value))
            except ValueError:
                pass
        raise WrongInput(f"{where}: '{value}' is not a number; write one")
    if kind is int:
        if not isinstance(value, bool | float) and str(value).strip().isdecimal():
            return int(str(value))
        raise WrongInput(f"{where}: '{value}' is not a whole number; write one")
    if kind is bool:
        if (word := str(value).lower()) in _WORDS:
            return _WORDS[word]
        raise WrongInput(f"{where}: '{value}' is neither true nor false; write one of them")
    if not isinstance(value, str):
        shown = SHOWN if kind is Secret else repr(value)
        raise WrongInput(f"{where}: {shown} is not text; put it in quotes")
    return Secret.alone(value) if kind is Secret else value


_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def quiet_environment(settings: Settings) -> None:
    """Set, before the libraries are imported, what they read from the environment: no telemetry, our databases.

    A value the user has already set is left alone.
    """
    defaults = {
        "DO_NOT_TRACK": "1",
        "GX_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # the default, 15, lets everything else on the machine go before the training
        "TOKENIZERS_PARALLELISM": "false",  # the tokenizer's threads and a fork do not go together
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PREFECT_HOME": str(settings.folder / "prefect"),
        "PREFECT_API_DATABASE_CONNECTION_URL": settings.prefect_database_uri,
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        # Progress is on the terminal; what is sent to a server of our own is lost with it.
        "PREFECT_LOGGING_TO_API_ENABLED": "true" if settings.prefect_api else "false",
        "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
        "RAY_DEDUP_LOGS": "1",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        # A server that is away is asked again by us: MLflow's own seven tries take minutes, in which nothing is said.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
        "GIT_PYTHON_REFRESH": "quiet",
        # MLflow moves artifacts by a boto3 client of its own, file by file: hundreds of requests for a package.
        "AWS_RETRY_MODE": "standard",
        "AWS_MAX_ATTEMPTS": "9",
    }
    if settings.prefect_api:
        defaults["PREFECT_API_URL"] = settings.prefect_api
    if settings.prefect_auth:
        defaults["PREFECT_API_AUTH_STRING"] = settings.prefect_auth.reveal()
    if settings.ray_token:
        defaults |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": settings.ray_token.reveal()}
    elif settings.ray_address and (Path.home() / ".ray" / "auth_token").exists():
        # A head asks for its account's token as soon as there is one; who joins sends it only when told to.
        defaults["RAY_AUTH_MODE"] = "token"
    if settings.tracks_to_server:
        parts = urlsplit(Secret.inside(settings.tracking_uri).reveal())
        if password := unquote(parts.password or "") or settings.mlflow_password.reveal():
            defaults["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username or "") or MLFLOW_USER
            defaults["MLFLOW_TRACKING_PASSWORD"] = password
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def child_environment(**extra: str) -> dict[str, str]:
    """The environment for a child process, with some variables changed."""
    return {**os.environ, **extra}
