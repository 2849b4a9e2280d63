"""What is told of a Ray cluster that cannot be joined. Clusters of several nodes: tests/services/test_ray_nodes.py."""

import os
import socket
import subprocess
import sys

import pytest

from infra.cluster import knock
from infra.errors import WrongInput


@pytest.mark.parametrize("address", ["127.0.0.1", "nonsense", "host:port"])
def test_an_address_without_host_and_port_is_one_line(address):
    with pytest.raises(WrongInput, match="names no host and port") as told:
        knock(address)
    assert "\n" not in str(told.value)


def test_a_cluster_that_does_not_answer_is_told_at_once_and_nothing_is_left_behind(tmp_path):
    """In a process of its own: in this one another test may have started Ray."""
    script = "import sys; from infra.settings import Settings; from infra.cluster import connect\n"
    script += "connect(Settings(workspace=sys.argv[1], ray_address=sys.argv[2]), workers=1)"
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))  # nothing listens
        command = [
            sys.executable,
            "-P",
            "-c",
            script,
            str(tmp_path / "workspace"),
            f"127.0.0.1:{holder.getsockname()[1]}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=dict(os.environ), cwd=tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert "infra.errors.WrongInput: ray_address '127.0.0.1:" in last
    assert "no answer" in last and "SLIPWAY_RAY_ADDRESS" in last
    assert list(tmp_path.iterdir()) == []
