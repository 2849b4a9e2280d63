"""A process of its own that opens what may crash a native parser: Parquet and Arrow files, images.

Run as a script by `native.py`, with nothing of Slipway imported. It takes one JSON request a line and answers in
frames: a letter, the length, the bytes. A file that kills it kills nothing else; what it may use is limited here.
"""

import io
import json
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from typing import Any

MEMORY = 1 << 30
"""Bytes of private memory, beyond which allocation fails."""
SECONDS = 20
"""Of computing for one batch or one image; then the kernel ends the process."""
MAX_PIXELS = 1 << 26
HEADER = struct.Struct("<cQ")


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = sys.stdout.buffer
    for line in iter(sys.stdin.buffer.readline, b""):
        request = json.loads(line)
        body = sys.stdin.buffer.read(request.get("bytes", 0))
        try:
            for letter, payload in _image(request, body) if request["do"] == "image" else _table(request):
                out.write(HEADER.pack(letter, len(payload)) + payload)
                out.flush()
        except MemoryError:
            _say(out, b"X", f"needs more than {MEMORY >> 30} GiB of memory")
        except Exception as error:
            _say(out, b"X", str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__)


def _say(out: Any, letter: bytes, text: str) -> None:
    data = text.encode(errors="replace")
    out.write(HEADER.pack(letter, len(data)) + data)
    out.flush()


def _arm() -> None:
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)


def _limit_memory() -> None:
    # Private writable memory, not addresses: what a library maps and never touches is no harm.
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def _table(request: dict[str, Any]) -> Iterator[tuple[bytes, bytes]]:
    """Frame J: {"names", "types", "rows"}; then for each batch a B, an Arrow stream of it; E at the end."""
    import pyarrow as pa

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    path, size, wanted = request["path"], request["rows"], request["columns"]
    if request["format"] == "parquet":
        import pyarrow.parquet as pq

        _limit_memory()
        _arm()
        file: Any = pq.ParquetFile(path)
        schema, total = file.schema_arrow, file.metadata.num_rows
        names = schema.names
        yield b"J", json.dumps({"names": names, "types": [str(kind) for kind in schema.types], "rows": total}).encode()
        batches = file.iter_batches(size, columns=[name for name in wanted if name in names], use_threads=False)
    else:
        _limit_memory()
        _arm()
        try:
            file = pa.ipc.open_file(pa.memory_map(path))
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
        except pa.ArrowInvalid:
            file, total = pa.ipc.open_stream(pa.OSFile(path)), 0
            batches = iter(file)
        else:
            last = file.num_record_batches - 1
            # Batches but the last are alike. NOTE a dataset's count_rows would know, and hangs with one I/O thread.
            total = file.get_batch(0).num_rows * last + file.get_batch(last).num_rows if last >= 0 else 0
        schema = file.schema
        names = schema.names
        yield b"J", json.dumps({"names": names, "types": [str(kind) for kind in schema.types], "rows": total}).encode()
    chosen = [name for name in wanted if name in names]
    for batch in batches:
        batch = batch.select(chosen)
        batch.validate(full=True)  # a file of another program's can hold offsets that point anywhere
        for start in range(0, batch.num_rows, size):
            part = batch.slice(start, size)
            sink = io.BytesIO()
            with pa.ipc.new_stream(sink, part.schema) as writer:
                writer.write_batch(part)
            yield b"B", sink.getvalue()
            _arm()
    yield b"E", b""


def _image(request: dict[str, Any], body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Frame J: {"width", "height", "mode"}, then P: the pixels, row by row, channels interleaved."""
    from PIL import Image, ImageOps

    Image.MAX_IMAGE_PIXELS = None  # ours is lower, and says so in one line
    for module in ("PngImagePlugin", "JpegImagePlugin"):
        __import__(f"PIL.{module}")
    _limit_memory()
    _arm()
    with Image.open(request["path"] if "path" in request else io.BytesIO(body)) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"is {width} x {height} pixels, more than the {MAX_PIXELS:,} that are decoded")
        if width == 0 or height == 0:
            raise ValueError("has no pixels")
        mode = _mode(image)
        image.load()
        decoded = ImageOps.exif_transpose(image)
    wanted = request.get("mode")
    if wanted and wanted != mode and decoded.mode in ("RGBA", "LA", "PA", "P") and wanted in ("RGB", "L"):
        decoded = decoded.convert("RGBA")  # what is transparent shows white
        decoded = Image.alpha_composite(Image.new("RGBA", decoded.size, "white"), decoded)
    mode = wanted or mode
    if decoded.mode != mode:
        decoded = decoded.convert(mode)
    facts = {"width": decoded.width, "height": decoded.height, "mode": mode}
    yield b"J", json.dumps(facts).encode()
    yield b"P", decoded.tobytes()


def _mode(image: Any) -> str:
    """The mode that keeps what the file holds, of L, RGB, RGBA, I;16 and F."""
    mode = image.mode
    if mode == "1":
        return "L"
    if mode.startswith("I"):
        return "I;16"
    if mode in ("L", "RGB", "RGBA", "F"):
        return mode
    transparent = mode in ("LA", "PA", "La", "RGBa") or "transparency" in image.info
    return "RGBA" if transparent else "RGB"


if __name__ == "__main__":
    main()
