"""Whether what an address names answers, in seconds: the libraries behind it try for minutes before they say no."""

import base64
import socket
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from email.message import Message
from urllib.parse import urlsplit

from infra.errors import WrongInput
from infra.secret import Secret
from infra.settings import Settings

REACH_S = 3.0
LOGIN_S = 10.0
PREFECT_S = 15.0
"""A busy server takes its time, and a retrain is worth it."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
DATABASE_PORTS = {"postgresql": 5432, "postgres": 5432, "mysql": 3306, "mssql": 1433}


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    """HTTP status; 0 when nobody answered."""
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    """Names in small letters."""
    reason: str = ""
    """Why nobody answered."""


def ask(url: str, user: str = "", password: str = "", timeout_s: float = REACH_S) -> Answer:
    """What a web server answers to GET; never raises."""
    near = urlsplit(url).hostname in LOOPBACK
    opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if near else []))
    try:
        request = urllib.request.Request(url)
        if password:
            code = base64.b64encode(f"{user}:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {code}")
        with opener.open(request, timeout=timeout_s) as answer:
            return Answer(status=answer.status, body=answer.read(), headers=_lowered(answer.headers))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(status=error.code, headers=_lowered(error.headers), reason=str(error.reason))
    except (OSError, ValueError) as error:  # ValueError: not a URL
        return Answer(status=0, reason=str(getattr(error, "reason", error)))


def _lowered(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def knock(setting: str, value: str, url: str, port: int | None) -> None:
    """Raises WrongInput when nothing listens at the host of `url`, at its port or else at `port`."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or port
    except ValueError:
        host = None
    if not host or port is None:
        raise WrongInput(f"{setting} '{value}': names no host and port; write HOST:PORT")
    try:
        socket.create_connection((host, port), timeout=REACH_S).close()
    except OSError as error:
        raise WrongInput(
            f"{setting} '{value}': no answer ({error.strerror or error}); start it or unset SLIPWAY_{setting.upper()}"
        ) from error


def is_database_server(address: str) -> bool:
    return address.partition("://")[0].partition("+")[0] in DATABASE_PORTS


def knock_database(setting: str, address: str) -> None:
    """Log in to a database server and out again; nothing for a file or for no address.

    Raises WrongInput: nobody there, wrong password, no such database.
    """
    if not is_database_server(address):
        return
    knock(setting, address, address, DATABASE_PORTS[address.partition("://")[0].partition("+")[0]])
    if not address.startswith("postgres"):
        return  # somebody listens there; the driver is MLflow's affair
    import asyncio

    import asyncpg  # comes with Prefect
    from sqlalchemy import make_url

    parts = make_url(Secret.inside(address).reveal().replace("postgres://", "postgresql://", 1))

    async def log_in() -> None:
        session = await asyncpg.connect(
            host=parts.host, port=parts.port or 5432, user=parts.username, password=parts.password,
            database=parts.database, ssl=parts.query.get("sslmode"), timeout=LOGIN_S,
        )  # fmt: skip
        await session.close()

    try:
        asyncio.run(log_in())
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
        what = "create it or change" if "does not exist" in str(error) else "check the user and password in"
        raise WrongInput(
            f"{setting} '{address}': refuses us ({error or type(error).__name__}); {what} SLIPWAY_{setting.upper()}"
        ) from error


def knock_prefect(settings: Settings) -> str:
    """The version of the Prefect server in the settings.

    Raises WrongInput when it does not answer, or asks for another password.
    """
    user, _, password = settings.prefect_auth.reveal().partition(":")
    answer = ask(f"{settings.prefect_api}/admin/version", user, password, timeout_s=PREFECT_S)
    if answer.status == 200:
        return answer.body.decode().strip('"')
    if answer.status in (401, 403):
        raise WrongInput(
            f"prefect_api '{settings.prefect_api}': refuses us ({answer.status}); "
            "set SLIPWAY_PREFECT_AUTH to its USER:PASSWORD"
        )
    found = answer.reason or f"HTTP {answer.status}"
    raise WrongInput(
        f"prefect_api '{settings.prefect_api}': no Prefect server answers ({found}); "
        "start it or unset SLIPWAY_PREFECT_API"
    )
