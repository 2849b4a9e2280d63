import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import code_key
from flows.code_key import NOT_CODE, changes, code_of


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A source tree with a module that imports others, one of them inside a function."""
    files = {
        "training/loop.py": '"""Doc."""\nfrom training.order import at\n\nRATE = 1\n\n'
        'def train():\n    """Doc."""\n    return at()\n',
        "training/order.py": "def at():\n    from data_contracts.rows import cast\n    return cast\n",
        "data_contracts/rows.py": "from infra.store import get\n\ndef cast():\n    return 1\n",
        "infra/store.py": "def get():\n    return 2\n",
        "training/other.py": "def unrelated():\n    return 3\n",
        "training/launch.py": "def fit():\n    return 4\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(code_key, "ROOT", tmp_path)
    code_key._read.cache_clear()
    yield tmp_path
    code_key._read.cache_clear()


def edit(tree: Path, name: str, old: str, new: str) -> list[str]:
    """What `changes` says after replacing text in one file."""
    before = code_of(["training.loop"])
    path = tree / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    code_key._read.cache_clear()
    return changes(before, code_of(["training.loop"]))


def test_code_is_what_the_entry_imports_also_inside_functions(tree: Path) -> None:
    assert set(code_of(["training.loop"])) == {"training.loop", "training.order", "data_contracts.rows"}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("training/loop.py", "return at()", "return at()  # why"),
        ("training/loop.py", '"""Doc."""', '"""Another doc."""'),
        ("training/loop.py", "RATE = 1", "RATE = 1\n\n\n"),
        ("training/loop.py", "RATE = 1", 'RATE = 1\n"""Samples a second."""'),
        ("training/other.py", "3", "4"),
        ("infra/store.py", "2", "5"),
        ("training/launch.py", "4", "5"),
    ],
)
def test_comments_docstrings_and_unrelated_files_change_nothing(tree: Path, name: str, old: str, new: str) -> None:
    assert edit(tree, name, old, new) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("training/loop.py", "return at()", "return at(), 1", "training/loop.py: train"),
        ("training/loop.py", "RATE = 1", "RATE = 2", "training/loop.py: <module>"),
        ("data_contracts/rows.py", "return 1", "return 2", "data_contracts/rows.py: cast"),
    ],
)
def test_a_changed_body_is_named(tree: Path, name: str, old: str, new: str, said: str) -> None:
    assert edit(tree, name, old, new) == [said]


def test_a_new_import_brings_its_code(tree: Path) -> None:
    said = edit(tree, "training/loop.py", "RATE = 1", "from training.other import unrelated")
    assert "training/other.py: new" in said


def test_modules_left_out_make_no_result() -> None:
    """They exist, and none of them is imported by a module that decides what a model becomes."""
    for module in NOT_CODE:
        path = code_key.ROOT / (module.replace(".", "/") + ".py")
        assert path.is_file(), f"{module} is in NOT_CODE and is gone"
    for deciding in ("training/loop.py", "training/task.py", "training/checkpoint.py", "training/text.py"):
        tree = ast.parse((code_key.ROOT / deciding).read_text())
        names = {name for node in ast.walk(tree) for name in code_key._imported(node)}
        assert not names & (NOT_CODE - {"training.experiment"}), deciding


def test_how_pictures_are_drawn_for_people_trains_nothing_anew() -> None:
    found = code_of(["training.recipes.dvae"])
    assert "training.images" in found and "training.picture_grid" not in found
