"""MLflow's and Prefect's servers as child processes, to be started, killed and started again."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import IO

START_S = 240
"""A new database is migrated first, and the machine may be busy."""


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """Use as a context. Killed and ended with every process it started."""

    def __init__(self, command: list[str], health: str, log: Path, **environment: str):
        self.command, self.health, self.log = command, health, log
        self.environment = {**os.environ, **environment}
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        sink: IO[bytes]
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                self.command, cwd=self.log.parent, env=self.environment, stdout=sink, stderr=sink,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_S
        while not self.answers():
            assert time.monotonic() < deadline and self.process.poll() is None, self.log.read_text()[-3000:]
            time.sleep(0.3)

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(self.health, timeout=5).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def mlflow_server(folder: Path, port: int, database: str, artifacts: str) -> Server:
    """MLflow on that database; what clients send it to keep goes to `artifacts`."""
    program = str(Path(sys.executable).parent / "mlflow")
    command = [program, "server", "--backend-store-uri", database, "--artifacts-destination", artifacts]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return Server(command, f"http://127.0.0.1:{port}/health", folder / "mlflow.log", MLFLOW_DISABLE_TELEMETRY="true")


def prefect_server(folder: Path, port: int, database: str) -> Server:
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    return Server(
        command, f"http://127.0.0.1:{port}/api/health", folder / "prefect.log",
        PREFECT_API_DATABASE_CONNECTION_URL=database.replace("postgresql://", "postgresql+asyncpg://"),
        PREFECT_HOME=str(folder / "prefect"), PREFECT_SERVER_ANALYTICS_ENABLED="false", DO_NOT_TRACK="1",
    )  # fmt: skip
