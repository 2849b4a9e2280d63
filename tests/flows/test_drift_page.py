"""`slipway data drift`: verdict, page and exit code; nothing on the page runs, calls out or tells on a person."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli import main
from flows.judging.drift_page import headline, render

HOSTILE = "<script>alert('owned')</script>\u202e{{ 7 * 7 }}\"' onload=x"
VOID = {"meta", "polyline", "polygon"}


class Page(HTMLParser):
    def __init__(self, html: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def write(folder: Path, name: str, shifted: bool, **drift: Any) -> Path:
    """A contract and 600 rows: kind and level, or both shifted; mail is personal and shifts always."""
    rows = [
        f'"{HOSTILE.replace(chr(34), chr(34) * 2)}{"b" if shifted and i % 2 else "a"}",{i % 50 + 40 * shifted},'
        f"{name}{i % 7}@example.org,text number {i},{'yes' if i % 3 else 'no'}\n"
        for i in range(600)
    ]
    (folder / f"{name}.csv").write_text("kind,level,mail,text,label\n" + "".join(rows), encoding="utf-8")
    kinds = {"kind": "string", "level": "integer", "mail": "string", "text": "string", "label": "string"}
    marks = {"mail": {"classification": "PII"}}
    document = {
        "apiVersion": "v3.1.0", "kind": "DataContract", "id": "made", "version": "1.0.0", "status": "active",
        "servers": [{"server": "here", "type": "local", "path": f"{name}.csv", "format": "csv"}],
        "schema": [{"name": "rows", "properties": [
            {"name": column, "logicalType": kind, **marks.get(column, {})} for column, kind in kinds.items()]}],
        "customProperties": [
            {"property": "slipway.label", "value": "label"}, {"property": "slipway.drift", "value": drift}],
    }  # fmt: skip
    path = folder / f"{name}.odcs.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


@pytest.fixture
def slipway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """slipway("data", "list") -> exit code, stdout, stderr, in an empty workspace."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLIPWAY_WORKSPACE", str(tmp_path / "workspace"))

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def register(slipway: Any, path: Path) -> str:
    code, out, err = slipway("data", "register", path, "--json")
    assert code == 0, err
    return json.loads(out)["ref"][:17]


def test_drift_is_told_in_a_table_on_a_page_and_by_the_exit_code(slipway: Any, tmp_path: Path) -> None:
    first = register(slipway, write(tmp_path, "old", False))
    same = register(slipway, write(tmp_path, "same", False))
    moved = register(slipway, write(tmp_path, "new", True))
    code, out, err = slipway("data", "drift", first, moved, "--json")
    report = json.loads(out)
    assert code == 3 and "Drifted: " in err and report["blocked"]
    drifted = {result["column"] for result in report["results"] if result["drifted"]}
    assert drifted == {"kind", "level", "mail"}
    html = Path(report["page"]).read_text(encoding="utf-8")
    page = Page(html)
    assert "script" not in page.tags and "default-src 'none'" in html
    assert not {"href", "src", "onload", "onerror"} & set(page.attributes)
    assert "{{ 7 * 7 }}" in page.text and "\u202e" not in html
    assert page.tags.count("figure") == len(report["results"])
    # The same report as JSON, and the same bytes again.
    assert json.loads(Path(report["page"]).with_suffix(".json").read_text()) == {
        key: value for key, value in report.items() if key != "page"
    }
    slipway("data", "drift", first, moved)
    assert Path(report["page"]).read_text(encoding="utf-8") == html
    # The personal column is compared, by hashes alone: not in the report, not in the profile.
    profiles = [path.read_text() for path in (tmp_path / "workspace").rglob("profile-*.json")]
    assert len(profiles) == 3
    assert not any("example.org" in told for told in [html, out, *profiles])
    code, out, _ = slipway("data", "drift", first, same, "--out", tmp_path / "out")
    assert code == 3  # mail again
    assert "mail" in out and (tmp_path / "out" / "drift.html").is_file()


def test_the_policy_of_the_newer_contract_decides(slipway: Any, tmp_path: Path) -> None:
    first = register(slipway, write(tmp_path, "old", False))
    said = register(slipway, write(tmp_path, "said", True, block=False))
    code, out, _ = slipway("data", "drift", first, said)
    assert code == 0 and "Drifted, which only warns here" in out
    own = {"columns": {"mail": {"ignore": True}, "kind": {"block": False}, "level": {"effect": 0.99}}}
    quiet = register(slipway, write(tmp_path, "quiet", True, **own))
    code, out, _ = slipway("data", "drift", first, quiet, "--json")
    drifted = [result["column"] for result in json.loads(out)["results"] if result["drifted"]]
    assert code == 0 and drifted == ["kind"]


def test_versions_without_a_common_column_are_refused(slipway: Any, tmp_path: Path) -> None:
    first = register(slipway, write(tmp_path, "old", False))
    (tmp_path / "other.csv").write_text("n\n" + "".join(f"{i}\n" for i in range(300)))
    text = (tmp_path / "old.odcs.yaml").read_text().replace("old.csv", "other.csv").replace("id: made", "id: other")
    document = yaml.safe_load(text)
    document["schema"][0]["properties"] = [{"name": "n", "logicalType": "integer"}]
    document["customProperties"] = []
    (tmp_path / "other.odcs.yaml").write_text(yaml.safe_dump(document))
    code, _, err = slipway("data", "drift", first, register(slipway, tmp_path / "other.odcs.yaml"))
    assert code == 2 and "no input or label of contract other is in both" in err
    assert not (tmp_path / "workspace" / "drift").exists()


def test_an_empty_report_does_not_say_all_is_well() -> None:
    side = {"ref": "a@1", "name": "a", "rows": 1, "kept": 1, "created": "2026-01-01"}
    report = {"before": side, "after": side, "policy": {"contract": "a", "alpha": 0.05, "effect": 0.1}, "drifted": 0,
              "blocked": False, "results": []}  # fmt: skip
    assert headline(report) == "Nothing could be compared, which proves nothing"
    assert 'class="verdict warn"' in render(report)
