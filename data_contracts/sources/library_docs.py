"""Installed Python libraries: the first paragraph of each function's and class's docstring, labelled by its library.

Nothing is imported: files are parsed with `ast` in two processes, test folders left out, and what a package version
says is kept in the cache. Which packages are installed is read from their `.dist-info` folders, so the rows depend on
the versions alone. The address is a `site-packages` folder; by default those of the running Python.
"""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts import docstrings
from infra.digests import digest_bytes, digest_file
from infra.errors import SlipwayError, WrongInput, choices

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract
    from infra.progress import Progress

SERVER = {"libraries": dict, "per_library": int, "paragraphs": int}
"""libraries: distribution -> the package of it that counts (default: all of all); per_library: at most so many
distinct paragraphs of each, chosen by hash; paragraphs: at most so many in all, chosen by hash."""

WORKERS = 2
CHUNK_BYTES = 2_000_000
"""Source text per task: about half a second of parsing."""
MAX_FILE_BYTES = 1_000_000
"""Larger files are generated."""
BATCH_ROWS = 8192
LEFT_OUT = {"test", "tests", "_vendor", "_vendored", "vendor", "vendored", "examples", "node_modules"}
OURS = "slipway"
"""Left out: its docstrings change with every edit of a contributor."""


def _folders(uri: str | None) -> list[Path]:
    if uri is None:
        return [Path(entry) for entry in dict.fromkeys(sys.path) if entry and os.path.isdir(entry)]
    folder = Path(uri.removeprefix("file://"))
    if not folder.is_dir():
        raise WrongInput(f"source {uri}: is no folder; give a site-packages folder")
    return [folder]


def installed(uri: str | None) -> dict[str, tuple[str, Path]]:
    """Distribution, lower case with '-' -> (version, its .dist-info folder). The first on the path wins."""
    found: dict[str, tuple[str, Path]] = {}
    for folder in _folders(uri):
        for entry in sorted(os.listdir(folder)):
            if entry.endswith(".dist-info"):
                name, _, version = entry.removesuffix(".dist-info").rpartition("-")
                name = name.lower().replace("_", "-").replace(".", "-")
                if name and name != OURS:
                    found.setdefault(name, (version, folder / entry))
    return found


def _chosen(contract: "Contract", uri: str | None) -> dict[str, tuple[str, Path]]:
    there = installed(uri)
    wanted = contract.server.get("libraries")
    if wanted is None:
        return there
    for name in wanted:
        if name not in there:
            where = uri or "this Python"
            raise WrongInput(
                f"contract {contract.path}: slipway.libraries: '{name}' is not installed in {where}; "
                f"pip install it, or take it off the list"
                if uri is None
                else f"contract {contract.path}: slipway.libraries: '{name}' is not in {where}; {choices(name, there)}"
            )
    return {name: there[name] for name in wanted}


def fingerprint(contract: "Contract", uri: str | None, cache: Path) -> dict[str, Any]:
    return {"versions": {name: version for name, (version, _) in sorted(_chosen(contract, uri).items())}}


def read(contract: "Contract", uri: str | None, cache: Path, progress: "Progress | None") -> "Iterator[pa.RecordBatch]":
    """Columns text, library (the top-level package) and object (qualified name), sorted by the hash of the text."""
    import pyarrow as pa

    paragraphs = _paragraphs(_chosen(contract, uri), cache, progress)
    packages = contract.server.get("libraries")
    if packages is None:
        rows = _cut(paragraphs, contract.server.get("paragraphs"))
    else:
        rows = []
        for package in packages.values():
            own = [row for row in paragraphs if row[0].partition(".")[0] == package]
            if not own:
                raise WrongInput(f"contract {contract.path}: slipway.libraries: package '{package}' has no docstring")
            rows += _cut(own, contract.server.get("per_library"))
        rows = _cut(rows, contract.server.get("paragraphs"), distinct=False)
    names = ("text", "library", "object")
    for start in range(0, len(rows), BATCH_ROWS):
        part = rows[start : start + BATCH_ROWS]
        columns = [[text for _, text in part], [name.partition(".")[0] for name, _ in part], [name for name, _ in part]]
        schema = pa.schema([(name, pa.string()) for name in names], {"file": "docstrings", "row": str(start + 1)})
        yield pa.record_batch([pa.array(column, pa.string()) for column in columns], schema=schema)


def _cut(rows: list[tuple[str, str]], limit: int | None, distinct: bool = True) -> list[tuple[str, str]]:
    """At most `limit` rows, by the hash of the text: a new package version moves few rows. One row for each text."""
    if distinct:
        first: dict[str, tuple[str, str]] = {}
        for row in sorted(rows):
            first.setdefault(row[1], row)
        rows = list(first.values())
    keyed = sorted((digest_bytes(b"choose " + row[1].encode()), row) for row in rows)
    return [row for _, row in keyed[:limit]]


def _paragraphs(chosen: dict[str, tuple[str, Path]], cache: Path, progress: "Progress | None") -> list[tuple[str, str]]:
    """(qualified name, paragraph) of all chosen distributions, parsed where the cache does not have them."""
    rules = digest_file(Path(docstrings.__file__))[:12]
    folder = cache / "library_docs" / f"{rules}-py{sys.version_info[0]}{sys.version_info[1]}"
    folder.mkdir(parents=True, exist_ok=True)
    parsed: dict[str, list[list[str]]] = {}
    missing: dict[str, list[tuple[int, str, str]]] = {}
    for name, (version, info) in chosen.items():
        path = folder / f"{name}-{version}.json"
        try:
            parsed[name] = json.loads(path.read_bytes())
        except (OSError, ValueError):
            missing[name] = _files(info)
    files = sum(len(files) for files in missing.values())
    if files:
        total = sum(size for files in missing.values() for size, _, _ in files)

        def say(done: int) -> None:
            if progress is not None:
                progress.update(done / 1e6, total / 1e6, f"MB of {files:,} files parsed for docstrings")

        say(0)
        for name, rows in _parse(missing, say):
            parsed[name] = rows
            path = folder / f"{name}-{chosen[name][0]}.json"
            aside = path.with_name(f".{path.name}.{os.getpid()}")
            aside.write_text(json.dumps(rows), encoding="utf-8")
            os.replace(aside, path)
    # A file can belong to two distributions (mlflow and mlflow-skinny): its rows count once.
    seen = {(row[0], row[1]) for name in sorted(parsed) for row in parsed[name]}
    return list(seen)


def _files(info: Path) -> list[tuple[int, str, str]]:
    """(bytes, path, module) of the Python files that a distribution's RECORD lists."""
    try:
        with open(info / "RECORD", encoding="utf-8", newline="") as file:
            entries = [row for row in csv.reader(file) if len(row) == 3]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []  # not installed by pip: nothing says which files are its own
    found = []
    for path, _, size in entries:
        parts = path.split("/")
        if not path.endswith(".py") or parts[0] == ".." or path.startswith("/") or LEFT_OUT & set(parts[:-1]):
            continue
        if parts[-1].startswith("test_") or parts[-1] == "conftest.py" or not (size or "1").isdigit():
            continue
        if int(size or 1) <= MAX_FILE_BYTES:
            module = path[:-3].replace("/", ".").removesuffix(".__init__")
            found.append((int(size or 1), str(info.parent / path), module))
    return found


def _parse(missing: dict[str, list[tuple[int, str, str]]], say: Any) -> Iterator[tuple[str, list[list[str]]]]:
    """Parse every distribution's files; yields each as it is complete. `say(done)` is told how many bytes are."""
    tasks: list[tuple[int, str, list[tuple[str, str]]]] = []
    waiting = dict.fromkeys(missing, 0)
    # The largest first, each to its end: what is complete is cached, should the rest be interrupted.
    for name, files in sorted(missing.items(), key=lambda entry: -sum(size for size, _, _ in entry[1])):
        chunk: list[tuple[str, str]] = []
        weight = 0
        for size, path, module in files:
            chunk.append((path, module))
            weight += size
            if weight >= CHUNK_BYTES:
                tasks.append((weight, name, chunk))
                chunk, weight = [], 0
        if chunk:
            tasks.append((weight, name, chunk))
    for _, name, _ in tasks:
        waiting[name] += 1
    results: dict[str, list[list[str]]] = {name: [] for name in missing}
    yield from ((name, []) for name, count in waiting.items() if count == 0)
    workers = [_Worker() for _ in range(min(WORKERS, len(tasks)))]
    free = list(workers)
    done = 0

    def work(task: tuple[int, str, list[tuple[str, str]]]) -> tuple[str, int, list[list[str]]]:
        worker = free.pop()
        try:
            return task[1], task[0], worker.ask(task[2])
        finally:
            free.append(worker)

    try:
        with ThreadPoolExecutor(len(workers) or 1) as pool:
            try:
                for name, size, rows in pool.map(work, tasks):
                    done += size
                    say(done)
                    results[name] += rows
                    waiting[name] -= 1
                    if not waiting[name]:
                        yield name, sorted(results.pop(name))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process that parses. Not a multiprocessing pool: that would run the caller's main module again."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", docstrings.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )

    def ask(self, files: list[tuple[str, str]]) -> list[list[str]]:
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(files) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.process.wait()
            raise SlipwayError(
                f"library_docs: the process that parses docstrings died (exit {self.process.returncode}) "
                f"in or after {files[0][0]}; run again"
            )
        return json.loads(answer)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with suppress(BrokenPipeError):  # what it never read is still to be written
                    pipe.close()
