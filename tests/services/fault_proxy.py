"""An HTTP proxy that fails some of the requests it passes on, in the ways that networks and servers do."""

import http.client
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

WAYS = ("refused", "slow down", "error", "answer lost", "cut")
"""refused: the connection closes before the request is passed on; slow down: 503; error: 500, both before it is passed
on; answer lost: it was passed on and done, and the connection closes; cut: half of the answer's body arrives."""
FRAMING = {"transfer-encoding", "connection", "expect", "content-length", "keep-alive"}

Plan = Callable[[str, str], str]
"""(method, path) -> how to fail that request, or "" to pass it on as it is."""


def share(of_requests: float, seed: int = 0) -> Plan:
    """Fails that share of the requests, each way as often as the others."""
    source, lock = random.Random(seed), threading.Lock()

    def plan(method: str, path: str) -> str:
        with lock:
            return source.choice(WAYS) if source.random() < of_requests else ""

    return plan


class FaultProxy:
    """Use as a context. `counts` has how many requests were seen, and how many failed in which way."""

    def __init__(self, target: str, plan: Plan):
        self.target, self.plan = urlparse(target), plan
        self.counts: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "FaultProxy":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def failed(self) -> int:
        return sum(self.counts[way] for way in WAYS)

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:  # `self` is the handler's below
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else head and body of each answer are 40 ms apart

            def log_message(self, *_: object) -> None:
                pass

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:  # the client has gone
                    self.close_connection = True

            def pass_on(self) -> None:
                body = self.read_body()
                way = proxy.plan(self.command, self.path)
                with proxy.lock:
                    proxy.counts["requests"] += 1
                    proxy.counts[way] += bool(way)
                if way == "refused":
                    return self.hang_up()
                if way in ("slow down", "error"):
                    return self.answer(503 if way == "slow down" else 500, [], b"")
                try:
                    status, headers, answer = self.ask(body)
                except OSError:
                    return self.hang_up()
                if way == "answer lost" or (way == "cut" and not answer):
                    return self.hang_up()
                self.answer(status, headers, answer, cut=way == "cut")

            def read_body(self) -> bytes:
                if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                chunks = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    chunks.append(self.rfile.read(size))
                    self.rfile.readline()
                while self.rfile.readline().strip():
                    pass
                return b"".join(chunks)

            def ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
                there = http.client.HTTPConnection(proxy.target.hostname or "", proxy.target.port, timeout=60)
                try:
                    there.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                    for name, value in self.headers.items():  # Host too: S3 signs it
                        if name.lower() not in FRAMING:
                            there.putheader(name, value)
                    there.putheader("Content-Length", str(len(body)))
                    there.endheaders(body)
                    answer = there.getresponse()
                    return answer.status, answer.getheaders(), answer.read()
                except http.client.HTTPException as error:
                    raise ConnectionError(str(error)) from error
                finally:
                    there.close()

            def answer(self, status: int, headers: list[tuple[str, str]], body: bytes, cut: bool = False) -> None:
                self.send_response_only(status)
                length = str(len(body))
                for name, value in headers:
                    if name.lower() == "content-length" and self.command == "HEAD":
                        length = value
                    elif name.lower() not in FRAMING:
                        self.send_header(name, value)
                if status not in (204, 304):
                    self.send_header("Content-Length", length)
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if cut else body)
                if cut:
                    self.hang_up()

            def hang_up(self) -> None:
                self.close_connection = True
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)

        for method in ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH"):
            setattr(Handler, f"do_{method}", Handler.pass_on)
        return Handler
