"""A Prefect server for the length of one flow, on the workspace's own database.

Prefect starts an ephemeral server of its own where none is configured, and that one is in our process group: Ctrl-C
ends it first, and Prefect then tries for over a minute to tell it that the flow has crashed. This is the same server
in a session of its own; it ends with us, also when we are killed.
"""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.errors import SlipwayError
from infra.reach import knock_prefect
from infra.settings import Settings, child_environment

START_TIMEOUT_S = 180
"""A new database is migrated first: 16 s on a laptop, more on a busy one."""
SERVER = """\
import os, signal, sys, threading
import uvicorn

def end_with_parent():
    sys.stdin.read()  # the pipe closes when the parent ends, however it ends
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=end_with_parent, daemon=True).start()
uvicorn.run("prefect.server.api.server:create_app", factory=True, host="127.0.0.1", port=int(sys.argv[1]),
            log_level="critical")
"""


@contextmanager
def prefect_server(settings: Settings) -> Iterator[str]:
    """The API address of the configured server, or of one that lives as long as this context.

    Raises WrongInput when the configured one does not answer.
    """
    if settings.prefect_api:
        knock_prefect(settings)
        yield settings.prefect_api
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = settings.folder / "prefect-server.log"
    with log.open("wb") as sink:
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(port)],
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=sink,
            env=child_environment(PREFECT__SERVER_EPHEMERAL="1"),
            cwd=settings.folder,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}/api"
    try:
        _wait(server, address, log)
        yield address
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait(server: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    said = [line for line in log.read_text(errors="replace").splitlines() if "Error" in line]
    raise SlipwayError(f"Prefect's server did not start{f': {said[-1]}' if said else ''}; its log is {log}")
