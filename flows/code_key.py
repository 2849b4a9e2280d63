"""What of the code a step's result depends on, and what changed in it.

A step's code is its entry module, the files it finds by name (recipe, source, gates), and whatever those import
statically inside the four packages, also inside functions. It counts as `ast.unparse` without docstrings, so a comment,
a docstring or a blank line changes nothing. Left out: `infra`, which moves bytes and never decides what they are, and
the modules of `NOT_CODE`, which show or carry results and do not make them.
"""

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from infra.digests import digest_bytes

ROOT = Path(__file__).parent.parent
PACKAGES = ("flows", "training", "data_contracts")
NOT_CODE = frozenset(
    {
        "training.energy",
        "training.experiment",
        "training.feed",
        "training.launch",
        "training.outlook",
        "training.picture_grid",
        "training.projection",
        "training.recorder",
        "training.run_log",
    }
)
"""Progress, tracking, pictures for people, and validation of settings: what they pass on is in the step's other
ingredients."""


def code_of(entries: Iterable[str]) -> dict[str, dict[str, str]]:
    """Module -> {top-level definition: short hash} for the entry modules and everything they import.

    Statements outside any definition count together as `<module>`.
    """
    found: dict[str, dict[str, str]] = {}
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        if module in found or module in NOT_CODE:
            continue
        definitions, imports = _read(module)
        found[module] = definitions
        waiting.extend(imports)
    return dict(sorted(found.items()))


@cache
def _read(module: str) -> tuple[dict[str, str], tuple[str, ...]]:
    tree = ast.parse(_path(module).read_text(encoding="utf-8"))
    imports = tuple(sorted({name for node in ast.walk(tree) for name in _imported(node)}))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # Every bare string: a docstring, or the line that documents the field above it.
            node.body = [one for one in body if not _is_text(one)] or [ast.Pass()]  # type: ignore[attr-defined]
    parts: dict[str, list[str]] = {}
    for statement in tree.body:
        name = getattr(statement, "name", "<module>")
        parts.setdefault(name, []).append(ast.unparse(statement))
    return {name: digest_bytes("\n".join(lines).encode())[:16] for name, lines in parts.items()}, imports


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _imported(node: ast.AST) -> list[str]:
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.split(".")[0] in PACKAGES and _path(name).is_file()]


def _path(module: str) -> Path:
    return ROOT / (module.replace(".", "/") + ".py")


def changes(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> list[str]:
    """What differs between two results of `code_of`, as `training/loop.py: train, validate (new)`."""
    found = []
    for module in sorted({*before, *after}):
        old, new = before.get(module, {}), after.get(module, {})
        names = [
            name + (" (new)" if name not in old else " (gone)" if name not in new else "")
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        ]
        if names:
            what = "new" if not old else "gone" if not new else ", ".join(names)
            found.append(f"{module.replace('.', '/')}.py: {what}")
    return found
