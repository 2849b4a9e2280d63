"""A packaged model on trial: a fresh process that can import nothing but what the package declares and carries.

The parent half is `try_package`. The child half is this file run by itself (`python -I`), so that nothing of the
folder or the environment it was started in can lend the package what it would lack elsewhere: installed libraries that
its requirements do not name, directly or through one another, and editable installations are hidden from it.
"""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infra.settings import Settings

FORMAT = 1
WARM_UP = 5
"""Requests answered before the clock counts: the first ones pay for lazy imports and buffers."""


def try_package(
    settings: "Settings",
    address: str,
    rows: list[dict[str, Any]],
    requests: int = 100,
    limit_s: float = 30.0,
    timeout_s: float = 900.0,
) -> dict[str, Any]:
    """What the package did: {"format", "failure", "load_s", "answers", "request_ms", "package_bytes", ...}.

    It is loaded, answers its own input example, then `rows` at once, then up to `requests` of them one by one, for no
    longer than `limit_s` seconds. `failure` is {"stage", "reason"} of what went wrong, or None; "stage" is load,
    example, rows or requests. The answers are records of the package's outputs.
    """
    import subprocess
    import tempfile

    from infra.settings import child_environment

    with tempfile.TemporaryDirectory(prefix="slipway-empty-") as folder:
        result = Path(folder) / "trial.json"
        job = {
            "tracking": settings.mlflow_uri,
            "address": address,
            "rows": rows,
            "requests": requests,
            "limit_s": limit_s,
            "result": str(result),
        }
        try:
            done = subprocess.run(
                [sys.executable, "-I", __file__],
                input=json.dumps(job, default=_plain),
                capture_output=True,
                text=True,
                cwd=folder,
                env=child_environment(),
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            return _failed(f"gave no answer within {timeout_s:.0f} s")
        if result.is_file():
            return json.loads(result.read_text(encoding="utf-8"))
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        ended = f"was ended by signal {-done.returncode}" if done.returncode < 0 else last[0]
        return _failed(ended)


def _plain(value: Any) -> Any:
    """Bytes, dates and times on their way to the child."""
    from base64 import b64encode
    from datetime import date

    if isinstance(value, date):  # a time is one, too
        return value.isoformat()
    if not isinstance(value, bytes):
        raise TypeError(f"a {type(value).__name__} cannot be given to a package; inputs are JSON values or bytes")
    return {"base64": b64encode(value).decode()}


def _failed(reason: str) -> dict[str, Any]:
    return {"format": FORMAT, "failure": {"stage": "load", "reason": reason}, "answers": [], "request_ms": []}


# The child ------------------------------------------------------------------------------------------------------------


def _main() -> None:
    job = json.load(sys.stdin, object_hook=_bytes)
    found: dict[str, Any] = {"format": FORMAT, "failure": None, "answers": [], "request_ms": []}
    stage = "load"
    try:
        import mlflow
        import pandas

        mlflow.set_tracking_uri(job["tracking"])
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=job["address"]))
        found["package_bytes"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        requirements = folder / "requirements.txt"
        lines = requirements.read_text(encoding="utf-8").splitlines() if requirements.is_file() else []
        found["requirements"] = lines
        _seal(lines)
        started = time.perf_counter()
        model = mlflow.pyfunc.load_model(str(folder))
        found["load_s"] = time.perf_counter() - started
        stage = "example"
        example = model.input_example
        if example is None:
            raise ValueError("it holds no input example")
        found["example"] = json.loads(model.predict(example).to_json(orient="records"))
        stage = "rows"
        frame = pandas.DataFrame(job["rows"])
        found["answers"] = json.loads(model.predict(frame).to_json(orient="records", double_precision=15))
        stage = "requests"
        found["request_ms"] = _timed(model, frame, job["requests"], job["limit_s"])
    except BaseException as error:  # whatever a package does is its verdict, also when it exits
        text = " ".join(str(error).split())[:500]
        found["failure"] = {
            "stage": stage,
            "reason": f"{type(error).__name__}: {text}" if text else type(error).__name__,
        }
    found["machine"] = _machine()
    Path(job["result"]).write_text(json.dumps(found), encoding="utf-8")


def _bytes(body: dict[str, Any]) -> Any:
    from base64 import b64decode

    return b64decode(body["base64"]) if set(body) == {"base64"} else body


def _timed(model: Any, frame: Any, requests: int, limit_s: float) -> list[float]:
    """Milliseconds of each request of one row, the warm-up not among them."""
    single = [frame.iloc[place : place + 1] for place in range(len(frame))]
    for turn in range(WARM_UP):
        model.predict(single[turn % len(single)])
    found: list[float] = []
    begun = time.perf_counter()
    for turn in range(requests):
        started = time.perf_counter()
        model.predict(single[turn % len(single)])
        found.append(1000 * (time.perf_counter() - started))
        if time.perf_counter() - begun > limit_s:
            break
    return found


def _machine() -> dict[str, Any]:
    import os
    import platform
    import resource

    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }


def _seal(requirements: list[str]) -> None:
    """Hide every installed library that the requirements do not lead to, and all editable installations."""
    from importlib.machinery import PathFinder
    from importlib.metadata import packages_distributions

    allowed = _closure(requirements)
    owners = packages_distributions()
    hidden = {name for name, dists in owners.items() if not {_canonical(dist) for dist in dists} & allowed}

    class Declared(PathFinder):
        @classmethod
        def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> Any:
            spec = PathFinder.find_spec(fullname, path, target)
            if path is None and fullname in hidden and spec is not None and _installed(spec):
                return None  # what the package carries under the same name is its own
            return spec

    sys.meta_path[:] = [
        Declared if finder is PathFinder else finder
        for finder in sys.meta_path
        if "__editable__" not in str(getattr(finder, "__module__", ""))
    ]
    roots = (sys.prefix, sys.base_prefix, sys.exec_prefix)
    sys.path[:] = [entry for entry in sys.path if entry.startswith(roots)]


def _installed(spec: Any) -> bool:
    import sysconfig

    places = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    where = spec.origin or next(iter(spec.submodule_search_locations or [""]))
    return str(where).startswith(places)


def _closure(requirements: list[str]) -> set[str]:
    """Canonical names of the distributions that requirement lines name, directly or through one another."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import InvalidRequirement, Requirement

    waiting = [(line, "") for line in requirements if line.strip() and not line.lstrip().startswith(("-", "#"))]
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    while waiting:
        line, extra = waiting.pop()
        try:
            wanted = Requirement(line)
        except InvalidRequirement:
            continue  # a path or an address: whatever it installs is not known by name
        if wanted.marker and not wanted.marker.evaluate({"extra": extra}):
            continue
        name = _canonical(wanted.name)
        for one in {"", *wanted.extras}:
            if (name, one) in seen:
                continue
            seen.add((name, one))
            try:
                waiting += [(line, one) for line in requires(name) or []]
                found.add(name)
            except PackageNotFoundError:
                continue
    return found


def _canonical(name: str) -> str:
    import re

    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    _main()
