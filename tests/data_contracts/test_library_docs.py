"""Docstrings become rows without importing anything, from what pip recorded, the same in every process."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_contracts.contract import Contract, parse_contract
from data_contracts.docstrings import first_paragraph, paragraphs
from data_contracts.sources import library_docs
from infra.errors import SlipwayError, WrongInput

MODULE = '''
"""Module docstrings are not rows of the set."""
raise RuntimeError("importing me is a mistake")

class Ship:
    """A vessel that is built
    on a slipway.

    Not this paragraph.
    """

    def launch(self):
        """Let the ship slide into the water."""
        def inner():
            "A nested function counts as well here."

    async def sail(self):
        """Sail."""

if True:
    def anchor():
        """Drop the anchor where the {kind} is."""
'''


def install(folder: Path, name: str, version: str, files: dict[str, str]) -> None:
    """Lay a distribution down as pip does: files, and a RECORD that lists them."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content, encoding="utf-8")
    (info / "RECORD").write_text(
        "".join(f"{path},sha256=x,{len(content)}\n" for path, content in files.items()), encoding="utf-8"
    )


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site-packages"
    install(folder, "ship_yard", "1.0", {"ships/__init__.py": "", "ships/hull.py": MODULE, "ships/broken.py": "def '''",
                                         "ships/tests/test_hull.py": MODULE, "ships/readme.md": MODULE})  # fmt: skip
    dock = 'def crane():\n    """Lift a container off the deck."""\n'
    install(folder, "docks", "2.1", {"docks/__init__.py": dock, "docks/more.py": dock.replace("crane", "hoist")})
    install(folder, "slipway", "0.1", {"training/__init__.py": dock})
    return folder


@pytest.fixture
def made(document: Callable[..., dict[str, Any]]) -> Callable[..., Contract]:
    def make(**server: Any) -> Contract:
        body = document(dict.fromkeys(("text", "library", "object"), "string"))
        properties = {"source": "library_docs", **server}
        body["servers"] = [
            {
                "server": "installed",
                "type": "custom",
                "customProperties": [{"property": f"slipway.{key}", "value": properties[key]} for key in properties],
            }
        ]
        return parse_contract(yaml.safe_dump(body), "docs.odcs.yaml")

    return make


def read(contract: Contract, site: Path | None, cache: Path) -> list[dict[str, Any]]:
    uri = None if site is None else str(site)
    return [row for batch in library_docs.read(contract, uri, cache, None) for row in batch.to_pylist()]


def test_first_paragraphs_of_functions_and_classes_are_the_rows(
    made: Callable[..., Contract], site: Path, tmp_path: Path
) -> None:
    rows = read(made(), site, tmp_path)
    assert {(row["object"], row["text"]) for row in rows} == {
        ("ships.hull.Ship", "A vessel that is built on a slipway."),
        ("ships.hull.Ship.launch", "Let the ship slide into the water."),
        ("ships.hull.Ship.launch.inner", "A nested function counts as well here."),
        ("ships.hull.anchor", "Drop the anchor where the {kind} is."),
        ("docks.crane", "Lift a container off the deck."),  # of two objects with one text, the first
    }
    assert {row["library"] for row in rows} == {"ships", "docks"}


def test_libraries_are_chosen_by_distribution_and_cut_by_hash(
    made: Callable[..., Contract], site: Path, tmp_path: Path
) -> None:
    chosen = {"ship-yard": "ships"}
    rows = read(made(libraries=chosen), site, tmp_path)
    assert {row["library"] for row in rows} == {"ships"} and len(rows) == 4
    fewer = read(made(libraries=chosen, per_library=2), site, tmp_path)
    assert len(fewer) == 2 and all(row in rows for row in fewer)
    assert read(made(paragraphs=3), site, tmp_path) == read(made(), site, tmp_path)[:3], "the cut is the hash's order"


def test_the_cache_is_per_version_and_gives_the_same_rows(
    made: Callable[..., Contract], site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read(made(), site, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(library_docs, "_Worker", None)  # parsing again would fail
        assert read(made(), site, tmp_path) == first
    (site / "docks-2.1.dist-info").rename(site / "docks-2.2.dist-info")
    (site / "docks/__init__.py").write_text(
        'def crane():\n    """Lower a container onto the deck."""\n', encoding="utf-8"
    )
    assert "Lower a container onto the deck." in {row["text"] for row in read(made(), site, tmp_path)}
    for path in tmp_path.rglob("*.json"):
        path.write_text("{", encoding="utf-8")  # a torn cache is parsed again, not believed
    assert len(read(made(), site, tmp_path)) == len(first) + 1


def test_the_fingerprint_is_the_versions(made: Callable[..., Contract], site: Path, tmp_path: Path) -> None:
    before = library_docs.fingerprint(made(), str(site), tmp_path)
    assert before == {"versions": {"docks": "2.1", "ship-yard": "1.0"}} == json.loads(json.dumps(before))
    (site / "docks-2.1.dist-info").rename(site / "docks-2.2.dist-info")
    assert library_docs.fingerprint(made(libraries={"ship-yard": "ships"}), str(site), tmp_path) == {
        "versions": {"ship-yard": "1.0"}
    }
    assert library_docs.fingerprint(made(), str(site), tmp_path) != before


def test_what_is_not_installed_is_one_line(made: Callable[..., Contract], site: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongInput, match=r"slipway.libraries: 'dock' is not in .*did you mean 'docks'"):
        read(made(libraries={"dock": "docks"}), site, tmp_path)
    with pytest.raises(WrongInput, match="'no-such-thing' is not installed in this Python; pip install it"):
        read(made(libraries={"no-such-thing": "x"}), None, tmp_path)
    with pytest.raises(WrongInput, match="package 'dokcs' has no docstring"):
        read(made(libraries={"docks": "dokcs"}), site, tmp_path)
    with pytest.raises(WrongInput, match="is no folder"):
        read(made(), site / "absent", tmp_path)


def test_a_parser_that_dies_is_said(
    made: Callable[..., Contract], site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "dies.py"
    script.write_text("import sys; sys.stdin.readline(); sys.exit(7)\n", encoding="utf-8")
    monkeypatch.setattr(library_docs.docstrings, "__file__", str(script))
    with pytest.raises(SlipwayError, match=r"died \(exit 7\)"):
        read(made(), site, tmp_path)


def test_a_real_library_is_parsed_and_not_imported(
    made: Callable[..., Contract], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "sqlparse", raising=False)  # another test may have needed it
    rows = read(made(libraries={"sqlparse": "sqlparse"}), None, tmp_path)
    assert len(rows) > 50 and {row["library"] for row in rows} == {"sqlparse"}
    assert "sqlparse" not in sys.modules
    assert len({row["text"] for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("docstring", "text"),
    [
        ("\n    Two lines\n    are one here.\n\n    Rest.", "Two lines are one here."),
        ("Too short.", None),
        (">>> add(1, 2) is it not", None),
        (":meta private: not for readers here", None),
        ("x = [[1, 0], [0, 1], [2, 2], [3, 3]] @ y", None),
        ("word " * 81, None),
        ("word " * 80, "word " * 79 + "word"),
    ],
)
def test_only_prose_is_kept(docstring: str, text: str | None) -> None:
    assert first_paragraph(docstring) == text


def test_positions_of_definitions_do_not_matter() -> None:
    source = b'try:\n    pass\nexcept E:\n    def f():\n        """Return what was asked for."""\n'
    assert paragraphs(source, "m") == [("m.f", "Return what was asked for.")]
