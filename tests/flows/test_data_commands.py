"""The commands on data sets: what they say to a person at work, and that checking is judged as registering is."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from flows.cli import cli, main

DOCUMENT: dict[str, Any] = {
    "apiVersion": "v3.1.0",
    "kind": "DataContract",
    "id": "made",
    "version": "1.0.0",
    "status": "active",
    "servers": [{"server": "here", "type": "local", "path": "rows.csv", "format": "csv"}],
    "schema": [{"name": "rows", "properties": [
        {"name": "text", "logicalType": "string"},
        {"name": "age", "logicalType": "integer", "logicalTypeOptions": {"maximum": 400}},
    ]}],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder: 200 rows, one too old, two that repeat another."""
    lines = ["text,age", *(f"row {number},{number}" for number in range(200)), "old,999", "row 7,7", "row 7,7"]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "made.odcs.yaml").write_text(yaml.safe_dump(DOCUMENT))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLIPWAY_AUTHOR", "ann")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def test_rows_that_repeat_another_are_mentioned_where_no_policy_is_set(folder: Path) -> None:
    sentence = "2 rows repeat an earlier one in every column; all are kept (slipway.duplicates filters them)"
    assert sentence in run("data", "validate", "made.odcs.yaml").stdout
    assert sentence in run("data", "register", "made.odcs.yaml").stdout
    assert json.loads(run("data", "register", "made.odcs.yaml", "--json").stdout)["repeated"] == 2
    policy = {"customProperties": [{"property": "slipway.duplicates", "value": {"keep": "all"}}]}
    (folder / "made.odcs.yaml").write_text(yaml.safe_dump(DOCUMENT | policy))
    assert "repeat an earlier" not in run("data", "register", "made.odcs.yaml").stdout


def test_a_corrected_row_counts_as_corrected_when_data_is_checked(folder: Path) -> None:
    assert run("data", "validate", "made.odcs.yaml").exit_code != 0
    assert not (folder / ".slipway").exists(), "checking writes nothing"
    run("data", "register", "made.odcs.yaml")
    (bad,) = json.loads(run("data", "validate", "made.odcs.yaml", "--json").stdout)["quarantined"]
    (folder / "fixed.csv").write_text(f"row_id,age\n{bad['row_id']},99\n")
    assert run("data", "release", "made", "--rows", "fixed.csv").exit_code == 0
    checked = run("data", "validate", "made.odcs.yaml")
    assert checked.exit_code == 0 and "1 row counts as it was corrected" in checked.stdout


def test_a_quarantined_row_is_shown_by_the_id_that_releases_it(folder: Path) -> None:
    document = json.loads(json.dumps(DOCUMENT))
    document["schema"][0]["properties"][0]["classification"] = "personal"
    (folder / "made.odcs.yaml").write_text(yaml.safe_dump(document))
    with open(folder / "rows.csv", "a") as file:
        file.write("ragged\n")
    run("data", "register", "made.odcs.yaml")
    old, ragged = sorted(
        json.loads(run("data", "show", "made", "--json").stdout)["quarantine"], key=lambda one: one["row"]
    )
    assert old["values"]["age"] == 999 and old["values"]["text"].startswith("#") and len(old["row_id"]) == 64
    assert ragged["raw"].startswith("#"), "a row that could not be parsed may hold anything"
    shown = run("data", "show", "made").stdout
    assert f"{old['row_id'][:12]}  rows.csv, row 201" in shown and "slipway data release made --rows" in shown
    (folder / "fixed.csv").write_text(f"row_id,age\n{old['row_id'][:12]},99\n")
    assert (
        json.loads(run("data", "release", "made", "--rows", "fixed.csv", "--json").stdout)["counts"]["quarantined"] == 1
    )


def test_a_released_row_is_found_by_the_id_that_it_had(folder: Path) -> None:
    first = json.loads(run("data", "register", "made.odcs.yaml", "--json").stdout)["ref"]
    (bad,) = json.loads(run("data", "show", "made", "--json").stdout)["quarantine"]
    old = bad["row_id"]
    (folder / "fixed.csv").write_text(f"row_id,age\n{old},99\n")
    done = run("data", "release", "made", "--rows", "fixed.csv")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"  {old[:12]} -> ")]
    new = line.split()[-1]
    assert "1 row released" in done.stdout and new != old[:12]
    for asked in (old[:12], new):
        found = run("data", "who-saw", f"made#{asked}").stdout
        assert found.startswith(f"row {new}") and f"corrected from {old}" in found
    assert "1 row counts as it was corrected" in run("data", "show", "made").stdout
    plain = json.loads(run("data", "who-saw", f"{first}#{old[:12]}", "--json").stdout)
    assert (plain["row_id"], plain["place"], plain["corrected_from"]) == (old, "quarantine", None)


@pytest.mark.parametrize("name", ["register", "validate", "audit", "draft"])
def test_a_command_without_its_group_is_named_with_it(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "made.odcs.yaml"])
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and f"did you mean 'slipway data {name}'?" in line


BOTH = {"slipway.inputs": ["text", "age"]}
SHARES = {"test": 0.1, "validation": 0.1}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"slipway.inputs": ["text"]}, "by text; was by text, age"),
        ({**BOTH, "slipway.split": {**SHARES, "test": 0.2}}, "test 0.2; was test 0.1"),
        ({**BOTH, "slipway.split": {**SHARES, "group": "age"}}, "by age; was by text, age"),
        ({**BOTH, "slipway.null": ["", "none"]}, None),
    ],
)
def test_splits_that_are_drawn_anew_are_told_of(folder: Path, setting: dict[str, Any], said: str | None) -> None:
    """Else what a champion trained on becomes, without a word, what the next model is tested on."""

    def register(settings: dict[str, Any]) -> Result:
        properties = [{"property": name, "value": value} for name, value in settings.items()]
        (folder / "made.odcs.yaml").write_text(yaml.safe_dump(DOCUMENT | {"customProperties": properties}))
        return run("data", "register", "made.odcs.yaml")

    assert "drawn anew" not in register(BOTH).stderr
    found = register(setting).stderr
    assert (f"splits are drawn anew ({said}" in found) if said else ("drawn anew" not in found)
