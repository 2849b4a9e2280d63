"""The scorecard: the verdict first, everything a promotion is bound to, and nothing in it that runs or calls out."""

import base64
import json
import math
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from flows.judging.changes import code_changes, experiment_changes, gate_changes
from flows.judging.evidence import Evidence
from flows.judging.gate import parse_gates
from flows.judging.scorecard import MAX_CURVE_POINTS, MAX_MISTAKES_OF_A_KIND, build_scorecard, headline, render
from flows.promotion.decisions import champion
from infra import artifacts
from infra.digests import digest_bytes
from tests.flows.conftest import CONTRACT
from training.picture_grid import png_grid

HOSTILE = [
    "<script>alert('owned')</script>",
    "<img src=x onerror=alert(1)>",
    "</style></head><h1>Approved</h1>",
    "{{ 7 * 7 }} {% include '/etc/passwd' %}",
    '\'" onmouseover="alert(1)" x=\'',
    "\u202eevil\u2066 \x00\x1b[31m",
    "javascript:alert(1) &lt;b&gt;",
]
VOID = {"meta", "img", "br", "hr", "input", "link", "polyline"}


class Page(HTMLParser):
    """What a browser would make of the page: elements, attributes, visible text; and whether every tag is closed."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(world: Any, digest: str) -> Page:
    return Page(world.store.get(f"scorecards/{digest}/scorecard.html").decode())


def card_of(world: Any, digest: str) -> dict[str, Any]:
    return json.loads(world.store.get(f"scorecards/{digest}/scorecard.json"))


def test_page_says_the_verdict_first_and_then_what_it_rests_on(world):
    first = world.promote(world.candidate())
    candidate = world.candidate(right=0.85, baseline=0.85)
    verdicts = [
        world.judge(gate, settings, candidate, first)
        for gate, settings in [("threshold", {"minimum": 0.5}), ("champion", {"margin": 0.1}), ("beats_baseline", {})]
    ]
    curves = {
        "layer/head/update_ratio": [[1, 0.01], [2, 0.02]],
        "loss": [[step, 1 / (step + 1)] for step in range(2000)],
        "accuracy": [[1, 0.5], [2, 0.6]],
    }
    digest = world.scorecard(candidate, verdicts, first, curves=curves)
    text = page_of(world, digest).text
    order = [
        "animals, version 2",
        "May be promoted, with 1 warning: beats_baseline",
        f"Accuracy {verdicts[0].observed:.3f}",
        "Compared with the champion animals/1 (promotion log entry 1)",
        "A simple model does as well",
        verdicts[2].evidence_digest,
        "this model",
        "TF-IDF + logistic regression",
        "always “",
        "precision",
        "What it takes for what",
        "Learning curves",
        "Layer by layer",
        "layer/head/update_ratio",
        "Examples it gets wrong",
        "Lineage",
        candidate.model,
        "recipe: text_classifier",
    ]
    position = 0
    for words in order:
        found = text.find(words, position)
        assert found >= 0, f"{words!r} does not follow {text[max(0, position - 80) : position]!r}"
        position = found


def test_json_holds_what_a_promotion_is_bound_to(world):
    candidate = world.candidate()
    card = card_of(world, world.scorecard(candidate))
    assert card["format"] == 1 and card["passed"] and card["compared_with"] is None
    for field in ("model", "package_digest", "dataset", "evaluation", "run"):
        assert card["candidate"][field] == getattr(candidate, field)
    assert card["candidate"]["contract"] == world.dataset("old").contract_digest
    assert card["metrics"]["rows"] == len(world_truth(world))
    assert all(row["label"] != row["prediction"] for row in card["mistakes"])
    kinds = [(row["label"], row["prediction"]) for row in card["mistakes"]]
    assert kinds and max(map(kinds.count, kinds)) <= MAX_MISTAKES_OF_A_KIND


def world_truth(world: Any) -> list[str]:
    from data_contracts.registry import read_split

    return read_split(world.store, world.dataset("old"), "test")["label"].to_pylist()


def test_the_same_evidence_gives_the_same_scorecard(world):
    candidate = world.candidate()
    assert world.scorecard(candidate) == world.scorecard(candidate)


def test_page_runs_nothing_and_loads_nothing(world):
    candidate = world.candidate(texts=HOSTILE)
    page = page_of(world, world.scorecard(candidate, curves={"loss": [[1, 2.0], [2, 1.0]]}))
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in ("src", "action") or name.startswith("on")]
    links = [value for name, value in page.attributes if name == "href"]
    assert all(value.startswith("#") for value in links) and "#curves" in links
    assert {value[1:] for value in links} <= {value for name, value in page.attributes if name == "id"}
    assert not [value for _, value in page.attributes if "url(" in value or "@import" in value]
    html = world.store.get(next(key for key in world.store.list("scorecards/") if key.endswith(".html"))).decode()
    assert "default-src 'none'" in html and "url(" not in html and "@import" not in html
    assert ("name", "viewport") in page.attributes


def with_picture(world: Any, candidate: Any, title: str) -> tuple[Any, bytes]:
    """The candidate with an evaluation that drew something twice, and what it drew; one of them has a title."""
    png = png_grid([[np.zeros((8, 8), np.uint8)]])
    folder = world.folder / "drawn"
    shutil.copytree(
        artifacts.fetch(world.store, artifacts.load(world.store, "evaluations", candidate.evaluation)), folder
    )
    (folder / "manifest.json").unlink(missing_ok=True)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["pictures"] = [{"file": "drawn.png", "title": title}]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "drawn.png").write_bytes(png)
    (folder / "more_of_it.png").write_bytes(png)
    return replace(candidate, evaluation=artifacts.commit_folder(world.store, "evaluations", folder).digest), png


def test_pictures_of_an_evaluation_are_in_the_page_and_named_in_the_json(world):
    candidate, png = with_picture(world, world.candidate(), HOSTILE[1])
    digest = world.scorecard(candidate)
    page = page_of(world, digest)
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    assert [value for name, value in page.attributes if name == "src"] == [source, source]
    assert page.tags.count("img") == 2 and HOSTILE[1] in page.text, "the title is text"
    assert any("img-src data:" in value and "default-src 'none'" in value for _, value in page.attributes)
    named, other = card_of(world, digest)["pictures"]
    assert other["title"] == "more of it", "which nothing names"
    assert named["sha256"] == digest_bytes(world.store.get(named["file"])) == digest_bytes(png)


def test_an_altered_picture_is_no_evidence(world):
    candidate, _ = with_picture(world, world.candidate(), "drawn")
    world.store.put(f"evaluations/{candidate.evaluation}/drawn.png", b"another")
    assert card_of(world, world.scorecard(candidate))["metrics"] is None


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_strings_stay_text_wherever_they_stand(world, hostile):
    candidate = world.candidate(right=0.0, texts=[hostile] * len(world_truth(world)))
    plain = world.scorecard(candidate, curves={"loss": [[1, 2.0], [2, 1.0]]})
    expected = page_of(world, plain)

    card = card_of(world, plain)
    assert hostile in [row["text"] for row in card["mistakes"]]
    for place in ("label", "prediction", "baseline_prediction"):
        card["mistakes"][0][place] = hostile
    card["metrics"]["labels"][0] = card["metrics"]["model"]["per_class"][0]["label"] = hostile
    card["metrics"]["majority"]["label"] = hostile
    card["curves"] = {hostile: [[1, 2.0], [2, 1.0]]}
    card["verdicts"][0] |= {"sentence": hostile, "measure": hostile, "details": [{hostile: hostile}]}
    card["candidate"]["name"] = card["lineage"]["base"] = card["lineage"]["experiment"] = hostile
    card["lineage"] |= {"accepted": [hostile], "libraries": {hostile: hostile}}
    card["notes"] = [hostile]
    page = Page(render(card))
    visible = "".join(f"[U+{ord(c):04X}]" if c in "\u202e\u2066\x00\x1b" else c for c in hostile)
    # 6 mistakes, 4 classes and answers among them, 4 class names, a curve, 5 in the gate, a note, 7 in heading and
    # lineage.
    assert page.text.count(" ".join(visible.split())) >= 21
    assert set(page.tags) <= set(expected.tags) | {"details", "table"}
    assert {name for name, _ in page.attributes} == {name for name, _ in expected.attributes}
    assert not any(ord(character) < 32 and character != "\n" for character in page.text)


def test_a_candidate_without_evaluation_still_gets_its_page(world):
    candidate = world.candidate()
    world.store.delete(f"evaluations/{candidate.evaluation}/metrics.json")
    world.evidence = Evidence(world.store, world.settings)
    verdict = world.judge("threshold", {"minimum": 0.5}, candidate)
    digest = world.scorecard(candidate, [verdict])
    assert not card_of(world, digest)["passed"]
    text = page_of(world, digest).text
    assert "1 of 1 gates says no: threshold" in text and "Evidence: none" in text and "no figures" in text


def test_curves_are_thinned_keep_their_ends_and_hold_no_nan(world, tmp_path):
    points = [[step, math.nan if step == 5 else float(step)] for step in range(5000)]
    candidate = world.candidate()
    card = build_scorecard(
        tmp_path / "card",
        candidate=candidate,
        champion=None,
        verdicts=[],
        evidence=world.evidence,
        curves={"loss": points, "one": [[1, 1.0]], "flat": [[1, 1.0], [2, 1.0]], "lost": [[1, math.inf]]},
        lineage=world.lineage(),
    )
    assert len(card["curves"]["loss"]) == MAX_CURVE_POINTS
    assert (card["curves"]["loss"][0], card["curves"]["loss"][-1]) == ([0, 0.0], [4999, 4999.0])
    json.loads((tmp_path / "card" / "scorecard.json").read_text(), parse_constant=pytest.fail)
    Page((tmp_path / "card" / "scorecard.html").read_text())


def test_of_very_many_classes_the_page_shows_the_worst(world):
    card = card_of(world, world.scorecard(world.candidate()))
    names = [f"class {number}" for number in range(200)]
    confusion = [[9 if row == column else 0 for column in range(200)] for row in range(200)]
    confusion[150][3] = 50
    card["metrics"]["labels"], card["metrics"]["model"]["confusion"] = names, confusion
    page = Page(render(card))
    assert "176 are left out" in page.text and "class 150" in page.text and "class 199" not in page.text


def test_headline_counts_in_plain_words(world):
    candidate = world.candidate(right=0.8, baseline=0.8)
    yes = world.judge("threshold", {"minimum": 0.5}, candidate)
    no = world.judge("threshold", {"minimum": 0.9}, candidate)
    warning = world.judge("beats_baseline", {}, candidate)
    idle = world.judge("champion", {}, candidate)
    assert headline([yes, yes]) == "May be promoted: all 2 gates say yes"
    assert headline([yes]) == "May be promoted: its gate says yes"
    assert headline([yes, idle]) == "May be promoted: 1 gate says yes, 1 had nothing to compare"
    assert headline([yes, warning, idle]).endswith("1 warning: beats_baseline; 1 had nothing to compare")
    assert headline([yes, warning]) == "May be promoted, with 1 warning: beats_baseline"
    assert headline([yes, no, warning]) == "1 of 3 gates says no: threshold"
    assert headline([no, no]) == "2 of 2 gates say no: threshold, threshold"
    assert headline([]) == "No gate was run, which is a no"


def test_all_files_are_one_artifact(world):
    digest = world.scorecard(world.candidate())
    artifact = artifacts.load(world.store, "scorecards", digest)
    assert set(artifact.files) == {"scorecard.json", "scorecard.html", "README.md"}


# The champion beside it, and what changed -----------------------------------------------------------------------------


def gates_of(**sections: Any) -> list[Any]:
    return parse_gates(sections, "experiment animals")


def since(world: Any, candidate: Any, champion: Any, gates: list[Any]) -> dict[str, Any]:
    from flows.promote import changes_since
    from flows.references import resolve

    found = changes_since(world.settings, resolve(world.store, candidate.ref), champion, gates)
    assert found is not None
    return found


def test_a_gate_removed_or_loosened_since_the_champion_stands_on_the_first_screen(world):
    before = gates_of(threshold={"minimum": 0.6}, champion={"margin": 0.02}, label_issues={}, drift={})
    first = world.promote(world.candidate(), gates=before)
    candidate = world.candidate()
    now = gates_of(
        threshold={"minimum": 0.5}, champion={"margin": 0.05}, drift={"severity": "warn"}, baseline={"margin": 0.01}
    )
    digest = world.scorecard(candidate, champion=first, gates=now, changes=since(world, candidate, first, now))
    notes = card_of(world, digest)["notes"]
    assert notes == [
        "Since the champion: Gate label_issues was removed.",
        "Since the champion: Gate threshold was loosened: minimum from 0.6 to 0.5.",
        "Since the champion: Gate champion was loosened: margin from 0.02 to 0.05.",
        "Since the champion: Gate drift was loosened: severity from block to warn.",
    ]
    text = page_of(world, digest).text
    assert text.index(notes[0]) < text.index("A gate that blocks")
    assert "Gate baseline is new." in text.partition("What changed since the champion")[2]


@pytest.mark.parametrize(
    ("field", "old", "new", "what"),
    [
        ("minimum", 0.5, 0.6, "tightened"),
        ("maximum_mb", 10.0, 20.0, "loosened"),
        ("maximum_kwh", 1.0, None, "loosened"),
        ("p95_ms", None, 50.0, "tightened"),
        ("decide_by", "bound", "value", "loosened"),
        ("severity", "warn", "block", "tightened"),
        ("minimum_rows", 200, 100, "changed"),
        ("floor", 0.5, None, "loosened"),
    ],
)
def test_which_way_a_setting_moved_is_told(field, old, new, what):
    (found,) = gate_changes({"one": {field: old}}, {"one": {field: new}})
    assert found["what"] == what


def test_a_champion_without_a_record_of_its_gates_is_told_and_is_no_reason_for_silence(world):
    first = world.promote(world.candidate())
    entry = champion(world.store, "animals")
    assert entry is not None
    world.store.delete(f"scorecards/{entry.scorecard}/scorecard.json")
    candidate, now = world.candidate(), gates_of(threshold={"minimum": 0.5})
    changes = since(world, candidate, first, now)
    card = card_of(world, world.scorecard(candidate, champion=first, gates=now, changes=changes))
    assert card["changes"]["gates"] is None and "cannot be told" in card["notes"][0]


def test_candidate_and_champion_stand_side_by_side_with_the_rows_where_they_differ(world):
    first = world.promote(world.candidate(right=0.9))
    candidate = world.candidate(right=0.85)
    digest = world.scorecard(candidate, champion=first, changes=since(world, candidate, first, []))
    both = card_of(world, digest)["side_by_side"]
    rows = len(world_truth(world))
    assert (both["won"], both["both_right"]) == (0, round(0.85 * rows))
    assert both["lost"] == round(0.9 * rows) - round(0.85 * rows) and len(both["examples"]["lost"]) == 6
    assert both["both_right"] + both["won"] + both["lost"] + both["both_wrong"] == rows
    for row in both["examples"]["lost"]:
        assert row["champion"] == row["label"] != row["candidate"]
    text = page_of(world, digest).text
    assert both["examples"]["lost"][0]["text"] in text and "The same dataset version" in text


def test_what_changed_in_the_data_is_counted(world):
    first = world.promote(world.candidate())
    candidate = world.candidate(dataset="grown")
    changes = since(world, candidate, first, [])
    assert "100 rows came, 100 went, 0 changed, 2,900 are the same" in changes["data"]["sentences"][0]
    text = page_of(world, world.scorecard(candidate, champion=first, changes=changes)).text
    assert "100 rows came, 100 went" in text


def test_the_experiment_and_the_functions_that_changed_are_named():
    old = {"ingredients": {"code": {"training.loop": {"train": "a", "step": "b"}}}}
    new = {"ingredients": {"code": {"training.loop": {"train": "c", "step": "b"}}}}
    assert code_changes(old, new) == ["training/loop.py: train"] and code_changes(None, new) is None
    before = {"training": {"epochs": 4}, "gates": {"threshold": {"minimum": 0.5}}}
    after = {"training": {"epochs": 6}, "gates": {}}
    assert experiment_changes(before, after) == ["training.epochs: from 4 to 6"]


def test_personal_inputs_are_shown_as_hashes_everywhere(world):
    secret = CONTRACT.replace(
        "{name: text, logicalType: string,", "{name: text, logicalType: string, classification: PII,"
    )
    rows = [f"secret {label} lives in house {n},{label}" for n in range(200) for label in ("ant", "bee", "cat")]
    world.add_dataset("secret", "text,label\n" + "\n".join(rows) + "\n", secret)
    first = world.promote(world.candidate(dataset="secret"))
    candidate, _ = with_picture(world, world.candidate(dataset="secret", right=0.8), "drawn from a secret")
    digest = world.scorecard(candidate, champion=first, changes=since(world, candidate, first, []))
    for name in ("scorecard.json", "scorecard.html", "README.md"):
        found = world.store.get(f"scorecards/{digest}/{name}")
        assert b"lives in house" not in found and b"drawn from a secret" not in found
    assert all(row["text"].startswith("#") for row in card_of(world, digest)["mistakes"])


def test_the_model_card_is_one_the_hub_reads(world):
    from huggingface_hub import ModelCard

    candidate = world.candidate()
    digest = world.scorecard(candidate, [world.judge("threshold", {"minimum": 0.5}, candidate)])
    card = ModelCard(world.store.get(f"scorecards/{digest}/README.md").decode())
    data: Any = card.data
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert found["accuracy"] == card_of(world, digest)["metrics"]["model"]["accuracy"]["value"]
    assert data.slipway["model_digest"] == candidate.model and data.datasets == ["animals"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_the_model_card_shows_hostile_strings_and_obeys_none(world, hostile):
    from flows.judging.model_card import model_card

    card = card_of(world, world.scorecard(world.candidate()))
    card["verdicts"][0]["sentence"] = card["lineage"]["base"] = card["lineage"]["author"] = hostile
    card["lineage"]["experiment"] = f"recipe: x\n```\n{hostile}\n"
    body = model_card(card).partition("\n---\n")[2]
    outside = body.partition("```yaml")[0]
    assert "<script" not in outside and "<img" not in outside and "</style" not in outside
    assert body.count("```") == 2 and "\x1b" not in body and "\u202e" not in body
