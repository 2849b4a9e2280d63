"""A Prefect server, and the process that runs what is scheduled, for a user's folder."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from flows.schedule import runner_command
from infra.settings import Settings


class Scheduler:
    """What a user starts with `slipway up`, by its parts, so that each can be killed."""

    def __init__(self, folder: Path, port: int, environment: dict[str, str]):
        self.folder, self.api = folder, f"http://127.0.0.1:{port}/api"
        workspace = folder / ".slipway"
        workspace.mkdir(exist_ok=True)
        self.environment = {
            **environment,
            "SLIPWAY_PREFECT_API": self.api,
            "PREFECT_HOME": str(workspace / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{workspace / 'prefect.db'}",
            "DO_NOT_TRACK": "1",
        }
        self.settings = Settings(workspace=str(workspace), prefect_api=self.api)
        self.processes: list[subprocess.Popen[bytes]] = []
        command = [sys.executable, "-P", "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        server = self._start(command, "server.log")
        self.until(self._answers, 180, lambda: f"{server.poll()} {(folder / 'server.log').read_text()[-2000:]}")

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.api}/health", timeout=5).close()
        except OSError:
            return False
        return True

    def start_runner(self) -> "subprocess.Popen[bytes]":
        return self._start(runner_command(self.settings), "runner.log")

    def _start(self, command: list[str], log: str) -> "subprocess.Popen[bytes]":
        with (self.folder / log).open("ab") as sink:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=sink, stderr=sink, start_new_session=True
            )
        self.processes.append(process)
        return process

    def stop(self) -> None:
        for process in reversed(self.processes):
            for end in (signal.SIGTERM, signal.SIGKILL):
                if process.poll() is None:
                    process.send_signal(end)
                    try:
                        process.wait(20)
                    except subprocess.TimeoutExpired:
                        continue

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """POST to the server's API, or GET where there is no body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.api}/{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read() or b"null")

    def runs(self, flow: str = "retrain-on-schedule", *, begun: bool = True) -> list[dict[str, Any]]:
        """Flow runs of a flow, the oldest first; `begun`: those alone that have begun."""
        found = self.ask("flow_runs/filter", {"flows": {"name": {"any_": [flow]}}, "limit": 200})
        if begun:
            found = [run for run in found if run["start_time"]]
        return sorted(found, key=lambda run: run["start_time"] or run["expected_start_time"])

    def until(self, is_so: Callable[[], Any], seconds: float, said: Callable[[], Any] = lambda: "") -> Any:
        """What `is_so` returns, once that is true."""
        deadline = time.monotonic() + seconds
        while not (found := is_so()):
            assert time.monotonic() < deadline, said()
            time.sleep(0.5)
        return found


@contextmanager
def scheduler(folder: Path, port: int, environment: dict[str, str] | None = None) -> Iterator[Scheduler]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "SLIPWAY"))}
    started = Scheduler(folder, port, environment or clean)
    try:
        yield started
    finally:
        started.stop()


class Webhook(ThreadingHTTPServer):
    """Keeps what it is posted; answers with `answers` one after the other, then 204."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.heard: list[dict[str, Any]] = []
        self.answers: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/services/a-secret-path"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        code = self.server.answers.pop(0) if self.server.answers else 204
        if code < 300:
            self.server.heard.append(body)
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...
