"""The rooms and their doors: what may import what, where things are read, what is installed."""

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ["infra", "data_contracts", "training", "flows"]
"""Each may import itself and those before it."""

DOORS = {
    "boto3": ["infra/store.py"],
    "botocore": ["infra/store.py"],
    "cryptography": ["infra/keys.py", "flows/promotion/signatures.py"],
    "great_expectations": ["data_contracts/validation.py"],
    "model_signing": ["flows/promotion/signatures.py"],
    "mlflow": ["infra/tracking.py", "infra/scoring.py", "infra/package_trial.py"],  # the last in a process of its own
    "prefect": ["flows/"],
    "ray": ["infra/cluster.py", "infra/doctor.py"],
    "ray.train": ["training/launch.py", "training/worker.py"],
    "ray.tune": ["training/sweep.py"],
}
"""Outside service -> where it may be imported. A longer name overrules a shorter one."""

ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
SUBPROCESS = {f"subprocess.{name}" for name in ("run", "Popen", "call", "check_call", "check_output")}
LINES = 500
TEXT = {".py", ".md", ".toml", ".yaml", ".html", ".css", ".js", ".sh", ".sql"}


def python_files(*rooms: str) -> Iterator[tuple[str, ast.Module]]:
    for room in rooms or ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"), path)


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, also inside functions and by `import_module("...")`.

    `from a import b` yields `a` and `a.b`, because b may be a module.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import; write the whole name"
            yield node.lineno, node.module or ""
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            function = node.func
            called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            name = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
            if called in ("import_module", "__import__") and isinstance(name, ast.Constant):
                yield node.lineno, str(name.value)


def test_imports_go_one_way():
    wrong = []
    for file, tree in python_files():
        room = file.split("/")[0]
        later = ROOMS[ROOMS.index(room) + 1 :]
        wrong += [f"{file}:{line} imports {name}" for line, name in imports(tree) if name.split(".")[0] in later]
        wrong += [f"{file}:{line} imports {name}" for line, name in imports(tree) if name.split(".")[0] == "tests"]
    assert wrong == []


def door_of(name: str) -> str | None:
    fitting = [door for door in DOORS if name == door or name.startswith(f"{door}.")]
    return max(fitting, key=len, default=None)


def test_each_outside_service_has_one_door():
    wrong = []
    for file, tree in python_files():
        for line, name in imports(tree):
            door = door_of(name)
            if door is None:
                continue
            places = DOORS[door]
            # `from ray import train` is seen as `ray` and as `ray.train`; the second decides.
            deeper = [place for other in DOORS if other.startswith(f"{name}.") for place in DOORS[other]]
            if not file.startswith(tuple(places + deeper)):
                wrong.append(f"{file}:{line} imports {name}; its door is {', '.join(places)}")
    assert wrong == []


def test_ray_is_started_and_stopped_in_one_place():
    wrong = [
        f"{file}:{node.lineno} uses ray.{node.attr}"
        for file, tree in python_files()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in ("init", "shutdown")
        and isinstance(node.value, ast.Name)
        and node.value.id == "ray"
        and file != "infra/cluster.py"
    ]
    assert wrong == []


def test_environment_is_read_by_the_settings_alone():
    wrong = []
    for file, tree in python_files():
        if file == "infra/settings.py":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT and ast.unparse(node.value) == "os":
                wrong.append(f"{file}:{node.lineno} uses os.{node.attr}")
            if isinstance(node, ast.ImportFrom) and node.module == "os":
                wrong += [f"{file}:{node.lineno} imports os.{a.name}" for a in node.names if a.name in ENVIRONMENT]
    assert wrong == []


def test_python_children_are_given_their_environment():
    """By `infra.settings.child_environment`, or none at all (`python -I`): where a child imports from is decided."""
    wrong = []
    for file, tree in python_files():
        if "sys.executable" not in ast.unparse(tree):
            continue
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        for call in calls:
            name = ast.unparse(call.func)
            decided = "env" in {keyword.arg for keyword in call.keywords} or "'-I'" in ast.unparse(call)
            if name in SUBPROCESS and not decided:
                wrong.append(f"{file}:{call.lineno} starts a process without env=")
    assert wrong == []


def test_no_file_is_long():
    files = [path for path in ROOT.iterdir() if path.suffix in TEXT]
    for folder in [*ROOMS, "tests", "bench", "docs"]:
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in TEXT]
    long = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {file: lines for file, lines in long.items() if lines > LINES} == {}


def test_no_module_hides_a_library_or_is_an_attic():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in project["dependencies"]}
    libraries = {
        package
        for package, distributions in importlib.metadata.packages_distributions().items()
        if declared & {name.lower().replace("_", "-") for name in distributions}
    }
    used = {name.split(".")[0] for _, tree in python_files() for _, name in imports(tree)}
    forbidden = (libraries | used | {"utils", "util", "common", "helpers", "misc"}) - set(ROOMS)
    names = {path: path.stem for room in ROOMS for path in (ROOT / room).rglob("*.py") if path.stem != "__init__"}
    names |= {path: path.name for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_dir()}
    assert "torch" in libraries
    assert sorted(str(path.relative_to(ROOT)) for path, name in names.items() if name in forbidden) == []


def test_package_init_files_are_empty():
    """What they held would run, and be keyed, with whatever is imported from the package."""
    inits = [path for room in ROOMS for path in (ROOT / room).rglob("__init__.py")]
    assert len(inits) >= len(ROOMS)
    assert [str(path.relative_to(ROOT)) for path in inits if path.read_bytes()] == []


def test_the_wheel_holds_the_four_packages_whole_and_nothing_else(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    for folder in [*ROOMS, "tests"]:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    out.mkdir()
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    made = subprocess.run([sys.executable, "-c", build, str(out)], cwd=source, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    with zipfile.ZipFile(next(out.glob("slipway-*.whl"))) as wheel:
        inside = set(wheel.namelist())
    assert {name.split("/")[0] for name in inside if ".dist-info/" not in name} == set(ROOMS)
    expected = {p.relative_to(source).as_posix() for room in ROOMS for p in (source / room).rglob("*") if p.is_file()}
    assert expected - inside == set(), "in the repository and not in the wheel: extend package-data"
    assert any(name.endswith("/licenses/LICENSE") for name in inside)
