"""The command line starts light, shows each command, and runs the installed code wherever it is called from."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from infra.settings import child_environment

SLIPWAY = Path(sys.executable).with_name("slipway")
ROOMS = ["flows", "training", "data_contracts", "infra"]
HEAVY = {
    "boto3",
    "datasets",
    "great_expectations",
    "matplotlib",
    "mlflow",
    "numpy",
    "pandas",
    "prefect",
    "pyarrow",
    "ray",
    "scipy",
    "sklearn",
    "tokenizers",
    "torch",
    "transformers",
}

EVERY_HELP = """
import contextlib, io, json, sys
import click
from flows.cli import cli, main

def walk(command, path):
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in sorted(command.commands.items()):
            yield from walk(inner, [*path, name])

report = []
for path, command in walk(cli, []):
    shown = io.StringIO()
    code = None
    with contextlib.redirect_stdout(shown):
        try:
            main([*path, "--help"])
        except SystemExit as end:
            code = end.code
    options = sorted(option for parameter in command.params for option in parameter.opts)
    loaded = sorted({name.split(".")[0] for name in sys.modules})
    group = isinstance(command, click.Group)
    report.append({"path": path, "group": group, "help": shown.getvalue(), "code": code, "options": options,
                   "loaded": loaded})
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """What `--help` of every command showed, in one process that only ever showed help."""
    folder = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run(
        [sys.executable, "-c", EVERY_HELP], cwd=folder, env=child_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == [], "showing help writes nothing"
    return json.loads(done.stdout)


def test_help_imports_nothing_heavy(commands):
    heavy = {" ".join(["slipway", *command["path"]]): sorted(HEAVY & set(command["loaded"])) for command in commands}
    assert {name: modules for name, modules in heavy.items() if modules} == {}


def test_every_command_explains_itself_with_an_example(commands):
    assert len(commands) > 20
    lacking = [command["path"] for command in commands if command["code"] != 0 or "Example" not in command["help"]]
    assert lacking == []


def test_every_command_answers_in_json(commands):
    assert [c["path"] for c in commands if not c["group"] and "--json" not in c["options"]] == []


def test_what_shows_steps_can_say_every_reason(commands):
    """Their table says so: (+1 more: --explain)."""
    asked = {"plan", "train", "retrain"}
    assert {c["path"][0] for c in commands if asked & set(c["path"]) and "--explain" in c["options"]} == asked


def test_the_first_page_names_every_command(commands):
    first = commands[0]
    assert first["path"] == []
    assert [c["path"][0] for c in commands[1:] if f"  {c['path'][0]} " not in first["help"]] == []


@pytest.fixture
def users_folder(tmp_path):
    """A folder whose owner has packages of the same four names."""
    for room in ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text('raise SystemExit("the user\'s folder won")\n')
    return tmp_path


@pytest.mark.parametrize(
    "arguments", [["--help"], ["recipes"], ["gates"], ["sources"], ["status"], ["plan", "library-docs"]], ids=" ".join
)
def test_installed_packages_win_over_a_users_own_folder(users_folder, arguments):
    """The Ray worker and MLflow's server are started from such a folder where they are tested."""
    done = subprocess.run(
        [SLIPWAY, *arguments], cwd=users_folder, env=child_environment(), capture_output=True, text=True
    )
    assert (done.returncode, "the user's folder won" in done.stdout + done.stderr) == (0, False), done.stderr


LOUD = """
import atexit, sys
import click
from flows.commands.output import as_json, emit

@click.command()
@as_json
def loud(as_json):
    atexit.register(lambda: print("(raylet) an end"))
    print("(raylet) a warning")
    emit({"answer": 42}, as_json, lambda body: click.echo(body["answer"]))

loud(sys.argv[1:])
"""


def test_what_a_library_prints_does_not_spoil_the_document():
    done, plain = (
        subprocess.run([sys.executable, "-c", LOUD, *arguments], capture_output=True, text=True)
        for arguments in (["--json"], [])
    )
    assert json.loads(done.stdout) == {"answer": 42}
    assert "a warning" in done.stderr and "an end" in done.stderr
    assert plain.stdout == "(raylet) a warning\n42\n(raylet) an end\n"
