"""What the README shows is so."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from data_contracts.contract import parse_contract
from flows import figures_table, goals
from flows.config import load_config
from infra.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(name: str) -> str:
    """The YAML block that starts with the comment `# name`."""
    found = re.search(rf"```yaml\n# {re.escape(name)}\n(.*?)```", README, re.DOTALL)
    assert found, name
    return found[1]


def test_the_example_is_valid_and_short(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    contract = parse_contract(block("reviews.odcs.yaml"), "README.md")
    assert (contract.name, contract.inputs, contract.label) == ("reviews", ("text",), "label")
    Path("reviews.yaml").write_text(block("reviews.yaml"), encoding="utf-8")
    assert load_config("reviews").dataset_name == contract.name
    for name in ("reviews.odcs.yaml", "reviews.yaml"):
        assert len(block(name).splitlines()) <= 14


def test_every_file_of_the_tree_is_there():
    tree = re.search(r"## Where things are\n\n```text\n(.*?)```", README, re.DOTALL)
    assert tree
    room, missing = ROOT, []
    for line in tree[1].splitlines():
        names = re.split(r"\s{2,}", line.strip())[0].split(", ")
        if not line.startswith(" "):
            room = ROOT / names[0]
        missing += [f"{room.name}/{name}" for name in names if line.startswith(" ") and not (room / name).exists()]
        assert room.is_dir(), line
    assert missing == []


def test_every_setting_is_in_the_table():
    assert [f.name for f in fields(Settings) if f"`SLIPWAY_{f.name.upper()}`" not in README] == []


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md"])
def test_every_link_leads_to_a_file(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    linked = [target for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    assert [target for target in linked if not (ROOT / target).exists()] == []


@pytest.mark.parametrize(("page", "group"), [("README.md", "text"), ("docs/pictures.md", "image-text")])
def test_the_figures_are_those_of_the_records(page, group):
    asked = re.escape(f"figures: begin (slipway recipes verify --{group} --markdown)")
    shown = re.search(rf"<!-- {asked} -->\n(.*?)<!--", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert shown, f"{page} has no table of figures"
    wanted = figures_table.markdown(goals.verify([group]))
    assert shown[1].strip() == wanted, f"paste what `slipway recipes verify --{group} --markdown` prints"
