"""A PostgreSQL server of the test's own: in a folder under /tmp, on a free port, as a user that is not root."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

USER, PASSWORD = "slipway", "only-for-this-test"
START_S = 60


def missing() -> str:
    """Why no server can be started here; "" where one can."""
    if _programs() is None:
        return "PostgreSQL is not installed (Debian: apt install postgresql)"
    if importlib.util.find_spec("psycopg2") is None:
        return "psycopg2 is not installed (pip install -e '.[dev]')"
    if os.getuid() == 0 and not _unprivileged():
        return "PostgreSQL does not run as root, and there is no user `postgres`"
    return ""


def _programs() -> Path | None:
    """The folder of initdb and postgres; Debian keeps it off the path."""
    folders = [*(Path(path) for path in os.get_exec_path()), *sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    names = ("initdb", "postgres", "pg_isready", "createdb", "psql")
    return next((folder for folder in folders if all((folder / name).exists() for name in names)), None)


def _unprivileged() -> bool:
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        return False
    return True


class Postgres:
    """Use as a context."""

    def __init__(self, port: int):
        self.port, self.restarts = port, 0
        self.folder = Path(tempfile.mkdtemp(prefix="slipway-postgres-"))
        self.programs = _programs() or Path()
        self.as_user: dict[str, Any] = {}
        if os.getuid() == 0:
            self.as_user = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(self.folder, "postgres", "postgres")
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Postgres":
        secret = self.folder / "secret"
        secret.write_text(PASSWORD)
        command = [f"{self.programs}/initdb", "-D", f"{self.folder}/data", "-U", USER, f"--pwfile={secret}"]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, **self.as_user)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder)

    def start(self) -> None:
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "200"}
        command = [f"{self.programs}/postgres", "-D", f"{self.folder}/data", "-p", str(self.port)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self.as_user)
        self.process, deadline = process, time.monotonic() + START_S
        while subprocess.run([f"{self.programs}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]).returncode:
            assert time.monotonic() < deadline and process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.1)

    def stop(self, how: int = signal.SIGINT) -> None:
        """SIGINT breaks every connection off and stops; SIGQUIT crashes it, and the next start recovers."""
        if self.process:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None

    def restart(self, away_s: float = 1.0) -> None:
        """By turns stopped and crashed."""
        self.stop(signal.SIGQUIT if self.restarts % 2 else signal.SIGINT)
        time.sleep(away_s)
        self.start()
        self.restarts += 1

    def create(self, database: str) -> str:
        """Make a database. Returns its address, password and all."""
        command = [f"{self.programs}/createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, database]
        subprocess.run(command, check=True, env={**os.environ, "PGPASSWORD": PASSWORD})
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def ask(self, database: str, query: str) -> list[str]:
        """The lines of an answer of one column."""
        command = [f"{self.programs}/psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-At", "-c", query]
        told = subprocess.run(
            [*command, database], check=True, env={**os.environ, "PGPASSWORD": PASSWORD}, capture_output=True, text=True
        )
        return told.stdout.split()
