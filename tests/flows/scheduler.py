"""A Prefect server, and the process that runs what is scheduled, for a user's folder."""

import json
import os
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

from infra.settings import Settings


class Scheduler:
    """What a Prefect server knows of the schedules of a user's folder."""

    def __init__(self, folder: Path, api: str):
        self.folder, self.api = folder, api
        self.settings = Settings(workspace=str(folder / ".slipway"), prefect_api=api)

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.api}/health", timeout=5).close()
        except OSError:
            return False
        return True

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """POST to the server's API, or GET where there is no body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.api}/{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as response:
            return json.loads(response.read() or b"null")

    def runs(self, flow: str = "retrain", *, begun: bool = True) -> list[dict[str, Any]]:
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
def scheduler(folder: Path, port: int) -> Iterator[Scheduler]:
    """A server alone: nothing runs what it schedules."""
    place = folder / ".slipway"
    place.mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "SLIPWAY"))},
        "PREFECT_HOME": str(place / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{place / 'prefect.db'}",
    }
    command = [sys.executable, "-P", "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app",
               "--port", str(port), "--log-level", "warning"]  # fmt: skip
    log = folder / "server.log"
    with log.open("wb") as sink:
        server = subprocess.Popen(command, cwd=place, env=environment, stdout=sink, stderr=sink)
    started = Scheduler(folder, f"http://127.0.0.1:{port}/api")
    try:
        started.until(started.answers, 180, log.read_text)
        yield started
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


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
