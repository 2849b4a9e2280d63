"""A Ray cluster of several nodes on one machine, each of which can be killed as a machine is lost: all at once."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

RAY = Path(sys.executable).parent / "ray"
TOKEN = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
"""What the cluster asks of whoever joins it: SLIPWAY_RAY_TOKEN of a driver."""
START_S = 120


class RayNodes:
    """Use as a context. The head has one CPU; each node added has one, so that two workers never share a node."""

    def __init__(self, port: int):
        self.port, self.address = port, f"127.0.0.1:{port}"
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: Unix sockets lie below it
        self.processes: list[subprocess.Popen[bytes]] = []
        self.access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}

    def __enter__(self) -> "RayNodes":
        self.start(
            "--head", f"--port={self.port}", "--node-ip-address=127.0.0.1", f"--temp-dir={self.folder}",
            "--include-dashboard=false",
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):
            lose(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, ip: str = "127.0.0.1", hide: Path | None = None) -> "subprocess.Popen[bytes]":
        """Add a node. hide: a folder of this machine that the node is not to see, as one elsewhere would not."""
        return self.start(f"--address={self.address}", f"--node-ip-address={ip}", hide=hide)

    def start(
        self, *options: str, hide: Path | None = None, program: list[str] | None = None, again: int = 3
    ) -> "subprocess.Popen[bytes]":
        command = [*(program or [str(RAY)]), "start", "--block", "--num-cpus=1", "--disable-usage-stats", *options]
        if hide:
            within = f"mount -t tmpfs none {shlex.quote(str(hide))} && exec {shlex.join(command)}"
            command = ["unshare", "--mount", "sh", "-c", within]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLIPWAY")}
        environment |= {**self.access, "RAY_worker_niceness": "0"}  # by default everything else goes before training
        log = self.folder / f"node-{len(self.processes)}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL, start_new_session=True, env=environment,
                cwd=self.folder,
            )  # fmt: skip
        self.processes.append(process)
        deadline = time.monotonic() + START_S
        while "Ray runtime started" not in (said := log.read_text()):
            if "timed out during startup" in said and again:  # Ray gives itself 30 s, which a busy machine may need
                lose(process)
                return self.start(*options, hide=hide, program=program, again=again - 1)
            assert time.monotonic() < deadline and process.poll() is None, said
            time.sleep(0.3)
        return process


def lose(process: "subprocess.Popen[bytes]") -> None:
    """Kill a node with all it runs."""
    if process.poll() is not None:
        return
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGKILL)
    process.wait()
