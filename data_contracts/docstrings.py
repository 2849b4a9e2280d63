"""First paragraphs of docstrings: a worker process of the `library_docs` source.

Started as a script, it imports only the standard library, so that it is up in 30 ms and whatever the parent has
loaded (torch, Ray, threads) stays there. It reads one JSON list of files a line and answers one JSON list of
[object, paragraph] a line, until its input ends: a parent that dies takes its workers along.
"""

import ast
import json
import re
import sys
import warnings

MIN_WORDS, MAX_WORDS = 4, 80
"""Shorter is a name, longer a page: neither says in a sentence what the object does."""
MIN_LETTERS = 0.6
"""Share of letters and spaces below which a paragraph is a table, a signature or a doctest."""

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def first_paragraph(docstring: str) -> str | None:
    """The first paragraph on one line, or None when it is not a sentence or two of prose."""
    lines: list[str] = []
    for line in docstring.strip().splitlines():
        if not line.strip():
            break
        lines.append(line)
    text = " ".join(" ".join(lines).split())
    words = text.count(" ") + 1
    if not MIN_WORDS <= words <= MAX_WORDS or text.startswith((">>>", "..", ":", "@", "{", "<")):
        return None
    letters = sum(map(len, re.findall(r"[^\W\d_]+| ", text)))
    return text if letters >= MIN_LETTERS * len(text) else None


def paragraphs(source: bytes, module: str) -> list[tuple[str, str]]:
    """(qualified name, first paragraph) of each function and class, in file order. Raises SyntaxError, ValueError."""
    found = []

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, DEFINITIONS):
                name = f"{prefix}.{node.name}"
                docstring = ast.get_docstring(node, clean=False)
                if docstring and (text := first_paragraph(docstring)):
                    found.append((name, text))
                visit(node.body, name)
            elif isinstance(node, (ast.If, ast.Try, ast.With)):
                for part in ("body", "orelse", "finalbody"):
                    visit(getattr(node, part, []), prefix)
                for handler in getattr(node, "handlers", []):
                    visit(handler.body, prefix)

    visit(ast.parse(source).body, module)
    return found


def read(path: str, module: str) -> list[tuple[str, str]]:
    """`paragraphs` of a file; a file without a triple quote has none, one that is not Python is left out."""
    try:
        with open(path, "rb") as file:
            source = file.read()
        if b'"""' not in source and b"'''" not in source:
            return []
        return paragraphs(source, module)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def main() -> None:
    import gc
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and with it our input
    gc.disable()  # syntax trees are freed by reference count; the collector only walks them (a sixth of the time)
    warnings.simplefilter("ignore")  # other people's invalid escapes
    for line in sys.stdin:
        answer = [pair for path, module in json.loads(line) for pair in read(path, module)]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
