"""The parent's side of `native_reader.py`: tables and images read by a process that may die without harm."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts import native_reader
from infra.errors import WrongInput

if TYPE_CHECKING:
    import pyarrow as pa


class Unreadable(Exception):
    """What the process said, or how it died, in words that follow a file's name."""


class Native:
    """One process for many files; a new one where the last died. Use it in a `with`."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Native":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe:
                    pipe.close()
            self.process = None

    def _ask(self, request: dict[str, Any], body: bytes = b"") -> None:
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-I", native_reader.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n" + body)
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says how it died

    def _frame(self) -> tuple[bytes, bytes]:
        assert self.process is not None and self.process.stdout is not None
        header = self.process.stdout.read(native_reader.HEADER.size)
        if len(header) == native_reader.HEADER.size:
            letter, length = native_reader.HEADER.unpack(header)
            payload = self.process.stdout.read(length)
            if len(payload) == length:
                if letter == b"X":
                    raise Unreadable(payload.decode(errors="replace"))
                return letter, payload
        code = self.process.wait()
        self._end()
        if code == -signal.SIGVTALRM:
            raise Unreadable(f"takes more than {native_reader.SECONDS} s to decode")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise Unreadable(f"kills the library that decodes it ({how})")

    def table(
        self, path: Path, format: str, columns: list[str] | None = None, rows: int = 8192
    ) -> "Iterator[pa.RecordBatch]":
        """Batches of at most `rows` rows of those columns that are there; the first has no row and the file's names.

        The first batch's schema metadata say `rows` (0: unknown), its fields' metadata their `type`. Raises Unreadable.
        """
        import pyarrow as pa

        request = {
            "do": "table",
            "path": str(path.absolute()),
            "format": format,
            "rows": rows,
            "columns": columns or [],
        }
        self._ask(request)
        facts = json.loads(self._frame()[1])
        fields = [
            pa.field(name, pa.null(), metadata={"type": kind})
            for name, kind in zip(facts["names"], facts["types"], strict=True)
        ]
        schema = pa.schema(fields, {"rows": str(facts["rows"])})
        done = False
        try:
            yield pa.RecordBatch.from_arrays([pa.nulls(0) for _ in schema], schema=schema)
            while True:
                letter, payload = self._frame()
                if letter == b"E":
                    done = True
                    return
                yield from pa.ipc.open_stream(payload)
        except Unreadable:
            done = True
            raise
        finally:
            if not done:
                self._end()  # frames that nobody wants are under way

    def image(self, source: Path | bytes, mode: str | None = None) -> tuple[bytes, dict[str, Any]]:
        """(pixels, {"width", "height", "mode"}) of a file or of its bytes. Raises Unreadable."""
        if isinstance(source, bytes):
            self._ask({"do": "image", "bytes": len(source), "mode": mode}, source)
        else:
            self._ask({"do": "image", "path": str(source.absolute()), "mode": mode})
        try:
            facts = json.loads(self._frame()[1])
            return self._frame()[1], facts
        except Unreadable as error:
            raise Unreadable(_because(str(error))) from None


def _because(reason: str) -> str:
    if "cannot identify" in reason:  # the library goes on to name a path of this machine
        return "is no image that is known, or is cut off"
    return (
        reason if reason.startswith(("is ", "has ", "takes ", "kills ", "needs ")) else f"cannot be decoded: {reason}"
    )


def names_of(batch: "pa.RecordBatch", where: str) -> list[str]:
    """Column names of a table's first batch. Raises WrongInput for two of one name."""
    names = list(batch.schema.names)
    for name in names:
        if names.count(name) > 1:
            raise WrongInput(f"{where}: has the column '{name}' twice; rename one")
    return names
