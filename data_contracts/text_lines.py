"""Bytes as lines of text: encodings, marks, gzip, and what to say of a byte that means nothing."""

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

from data_contracts.places import Place
from infra.errors import WrongInput

if TYPE_CHECKING:
    from data_contracts.contract import Contract

MAX_LINE = 1 << 26
"""Characters."""
NUL = "holds a NUL character"
GZIP = b"\x1f\x8b"
ESCAPED = re.compile("[\udc80-\udcff]")
"""What a byte that could not be decoded becomes."""
SAVE = "save it as UTF-8 or set the server's encoding"
DETECTED = 1 << 22
"""Bytes by which an encoding is detected."""


class Lines:
    """Lines of a text file, remembering those handed out since the last `take`, and how many bytes were read."""

    def __init__(self, place: Place, encoding: str):
        self.place, self.encoding = place, encoding
        self.number = 0
        self.recent: list[str] = []
        self.raw = open(place.local(), "rb")  # noqa: SIM115 closed by `with` below
        zipped = self.raw.read(2) == GZIP
        self.raw.seek(0)
        body: Any = gzip.GzipFile(fileobj=self.raw) if zipped else self.raw
        # Bytes that mean nothing become lone surrogates, which no text holds: one bad row is one row. UTF-16 and 32 say
        # by the first such byte that the file is something else.
        errors = "strict" if codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")) else "surrogateescape"
        self.file: IO[str] = io.TextIOWrapper(body, encoding=encoding, newline="", errors=errors)

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.raw.close()

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        line = self._guarded(lambda: self.file.readline(MAX_LINE))
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) >= MAX_LINE:
            raise WrongInput(
                f"source {self.place.address}: line {self.number}: has more than {MAX_LINE:,} characters; "
                "it is no text file of rows"
            )
        self.recent.append(line)
        return line

    def _guarded(self, read: Callable[[], str]) -> str:
        where = f"source {self.place.address}"
        try:
            return read()
        except UnicodeDecodeError as error:
            raise WrongInput(f"{where}: {self._undecoded(error.object[error.start])}") from None
        except UnicodeError as error:  # UTF-16 without its mark
            raise WrongInput(f"{where}: is not {self.encoding} ({error}); set the server's encoding") from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise WrongInput(f"{where}: is not whole gzip ({error}); write it again") from None

    def whole(self, limit: int) -> str:
        text = self._guarded(lambda: self.file.read(limit + 1))
        if len(text) > limit:
            raise WrongInput(
                f"source {self.place.address}: has more than {limit:,} characters in one document; write it as JSONL"
            )
        if not text.isascii() and (found := ESCAPED.search(text)):
            self.number = text.count("\n", 0, found.start())
            raise WrongInput(f"source {self.place.address}: {self._undecoded(ord(found[0]) - 0xDC00)}")
        return text

    def _undecoded(self, byte: int) -> str:
        name = self.encoding.removesuffix("-sig")
        return f"is not {name} after line {self.number} (byte 0x{byte:02x}); {SAVE}"

    def undecoded(self, text: str) -> str:
        """Why a row's text is none; empty where it is."""
        found = None if text.isascii() else ESCAPED.search(text)
        if found is None:
            return ""
        return f"is not {self.encoding.removesuffix('-sig')} (byte 0x{ord(found[0]) - 0xDC00:02x}); {SAVE}"

    def take(self) -> str:
        text = "".join(self.recent)
        self.recent.clear()
        return text

    def encode(self, text: str) -> bytes:
        return text.rstrip("\r\n").encode(self.encoding.removesuffix("-sig"), "surrogateescape")

    def position(self) -> int:
        return self.raw.tell()


def encoding_of(contract: "Contract", place: Place) -> str:
    """What the contract says of this file, or what its bytes say where it says `detect`. Raises WrongInput."""
    server = contract.server
    said = server.get("encodings", {}).get(place.name) or server.get("encoding", "utf-8")
    if said == "detect":
        return detect_encoding(place)
    try:
        encoding = codecs.lookup(said).name
        "".encode(encoding)
    except (LookupError, TypeError, AttributeError):
        raise WrongInput(
            f"contract {contract.path}: servers[0].encoding '{said}' is unknown; write utf-8, latin-1 or detect"
        ) from None
    return encoding


def detect_encoding(place: Place) -> str:
    """UTF-16 by its mark, UTF-8 where the bytes are, else charset-normalizer's best guess. Raises WrongInput."""
    with open(place.local(), "rb") as file:
        head: bytes = file.read(DETECTED)
    if head[:2] == GZIP:
        head = zlib.decompressobj(31).decompress(head, DETECTED)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
        return "utf-8"
    except UnicodeDecodeError:
        pass
    from charset_normalizer import from_bytes

    best = from_bytes(head[: 1 << 18]).best()
    if best is None:
        raise WrongInput(f"source {place.address}: is text in no known encoding; name it in the server's encoding")
    return "latin-1" if best.encoding in ("cp1250", "iso8859_1") else best.encoding


def open_lines(contract: "Contract", place: Place) -> Lines:
    encoding = encoding_of(contract, place)
    with open(place.local(), "rb") as file:
        mark = file.read(4)
    if encoding == "utf-8" and mark[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise WrongInput(f"source {place.address}: is UTF-16 (byte order mark); set the server's encoding to utf-16")
    if encoding in ("utf-8", "ascii") and b"\0" in mark and mark[:2] != GZIP:
        raise WrongInput(f"source {place.address}: begins with NUL bytes; it is binary, or UTF-16 without its mark")
    return Lines(place, "utf-8-sig" if encoding == "utf-8" else encoding)
