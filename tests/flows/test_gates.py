"""Every gate passes its good example, rejects its bad one, says no without its evidence, and holds its threshold."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from flows import promotion
from flows.evidence import Cited, Subject, find_champion
from flows.gate import gate_names, list_gates, load_gate, parse_gates, passed, run_gates
from flows.references import resolve
from infra.digests import digest_bytes
from infra.errors import WrongInput
from infra.settings import child_environment

Example = tuple[dict[str, Any], Subject, Subject | None]
"""A gate's settings, a candidate, a champion."""


def threshold(world: Any, good: bool) -> Example:
    return {"metric": "accuracy", "minimum": 0.85}, world.candidate(right=0.9 if good else 0.8), None


def champion(world: Any, good: bool) -> Example:
    first = world.promote(world.candidate(right=0.9))
    return {"margin": 0.05}, world.candidate(right=0.89 if good else 0.8), first


def baseline(world: Any, good: bool) -> Example:
    return {"margin": 0.02}, world.candidate(right=0.8, baseline=0.8 if good else 0.9), None


def beats_baseline(world: Any, good: bool) -> Example:
    return {"severity": "block"}, world.candidate(right=0.9, baseline=0.8 if good else 0.9), None


def drift(world: Any, good: bool) -> Example:
    first = world.promote(world.candidate())
    return {}, world.candidate(dataset="grown" if good else "drifted"), first


def package(world: Any, good: bool) -> Example:
    address = save_package(world, "record" if good else "ant")
    return {}, world.candidate(right=0.9, package=address), None


EXAMPLES: dict[str, Callable[[Any, bool], Example]] = {
    function.__name__: function for function in (threshold, champion, baseline, beats_baseline, drift, package)
}


def save_package(world: Any, answer: str) -> str:
    """An MLflow package that answers as the evaluation of `world.candidate(right=0.9)` recorded, or always `answer`."""
    import mlflow.pyfunc
    import pandas
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    from data_contracts.registry import read_split

    folder = world.folder / f"package-{answer}"
    folder.mkdir()
    code = folder / "animal_package.py"
    code.write_text(
        textwrap.dedent(
            """
            import json

            def _load_pyfunc(path):
                return Package(json.load(open(path)))

            class Package:
                def __init__(self, answers):
                    self.answers = answers
                    if answers is None:
                        raise RuntimeError("weights are torn")

                def predict(self, model_input, params=None):
                    import pandas

                    found = [self.answers.get(text, "ant") for text in model_input["text"]]
                    return pandas.DataFrame({"label": found, "confidence": [0.9] * len(found)})
            """
        )
    )
    table = read_split(world.store, world.dataset("old"), "test")
    texts, truth = table["text"].to_pylist(), table["label"].to_pylist()
    right = round(0.9 * len(truth))
    order = ["ant", "bee", "cat"]
    answers = truth[:right] + [order[(order.index(label) + 1) % 3] for label in truth[right:]]
    recorded: dict[str, str] | None = dict(zip(texts, answers, strict=True)) if answer == "record" else {}
    (folder / "answers.json").write_text(json.dumps(None if answer == "torn" else recorded))
    mlflow.pyfunc.save_model(
        path=str(folder / "model"),
        loader_module="animal_package",
        data_path=str(folder / "answers.json"),
        code_paths=[str(code)],
        signature=ModelSignature(Schema([ColSpec("string", "text")]), Schema([ColSpec("string", "label")])),
        input_example=pandas.DataFrame([{"text": "an ant"}]) if answer != "torn" else None,
        pip_requirements=["mlflow"],
    )
    return str(folder / "model")


@pytest.fixture(params=gate_names())
def example(request: pytest.FixtureRequest) -> tuple[str, Callable[[Any, bool], Example]]:
    assert request.param in EXAMPLES, f"flows/gates/{request.param}.py needs an example here"
    return request.param, EXAMPLES[request.param]


@pytest.mark.parametrize("good", [True, False], ids=["good", "bad"])
def test_every_gate_passes_its_good_example_and_rejects_its_bad_one(world, example, good):
    name, build = example
    settings, candidate, reigning = build(world, good)
    verdict = world.judge(name, settings, candidate, reigning)
    assert verdict.passed == good, verdict.sentence
    assert "could not be judged" not in verdict.sentence.lower()
    assert verdict.gate == name
    assert verdict.observed is not None and verdict.threshold is not None and verdict.measure
    assert verdict.sentence.endswith(".") and "\n" not in verdict.sentence
    assert world.store.exists(verdict.evidence)

    for file in (
        *((cited.key, cited.digest) for cited in verdict.also_cited),
        (verdict.evidence, verdict.evidence_digest),
    ):
        assert digest_bytes(world.store.get(file[0])) == file[1]


@pytest.mark.parametrize("how", ["lost", "altered"])
@pytest.mark.parametrize("whose", ["candidate", "champion"])
def test_every_gate_says_no_without_its_evidence(world, example, whose, how, monkeypatch):
    name, build = example
    monkeypatch.setattr("infra.tracking.ask_package", lambda *arguments: pytest.fail("asked without evidence"))
    monkeypatch.setattr(f"{__name__}.save_package", lambda *arguments: "models:/none")
    settings, candidate, reigning = build(world, True)
    subject = candidate if whose == "candidate" else reigning
    if subject is None:
        pytest.skip("looks at no champion here")
    if name == "drift":
        version = world.dataset("grown" if whose == "candidate" else "old")
        keys = [version.key(version.manifest["files"]["profile"]["name"])]
    else:
        keys = [f"evaluations/{subject.evaluation}/{file}" for file in ("metrics.json", "predictions.parquet")]
    for key in keys:
        if how == "lost":
            world.store.delete(key)
        else:
            world.store.put(key, world.store.get(key).replace(b"a", b"b", 1))
    verdict = world.judge(name, settings, candidate, reigning)
    assert not verdict.passed
    assert "Could not be judged, which is a no" in verdict.sentence
    assert verdict.evidence == verdict.evidence_digest == ""


@pytest.mark.parametrize("name", ["champion", "drift"])
def test_a_comparison_has_nothing_to_compare_only_while_the_log_has_no_champion(world, name):
    candidate = world.candidate()
    verdict = world.judge(name, {}, candidate)
    assert verdict.passed and "Nothing to compare" in verdict.sentence and "log is empty" in verdict.sentence
    assert verdict.evidence == "promotions/animals/"

    card = world.scorecard(candidate)
    promotion.reject(world.store, resolve(world.store, candidate.ref), card, author="mel", reason="not yet")
    verdict = world.judge(name, {}, candidate)
    assert verdict.passed and verdict.evidence == promotion.entry_key("animals", 1)

    world.promote(candidate)
    verdict = world.judge(name, {}, world.candidate(), None)
    assert not verdict.passed and "animals/1 is champion" in verdict.sentence


@pytest.mark.parametrize("lost", ["scorecard.json", "evaluation"])
def test_a_champion_whose_evidence_is_missing_is_a_no(world, lost):
    first = world.promote(world.candidate())
    entry = promotion.champion(world.store, "animals")
    assert entry is not None
    key = f"scorecards/{entry.scorecard}/scorecard.json" if lost == "scorecard.json" else (
        f"evaluations/{first.evaluation}/metrics.json"
    )  # fmt: skip
    world.store.delete(key)
    verdict = world.judge("champion", {}, world.candidate(), find_champion(world.store, "animals"))
    assert not verdict.passed and verdict.evidence == ""


def test_evidence_of_another_model_is_a_no(world):
    first, second = world.candidate(), world.candidate()
    borrowed = Subject(**{**second.__dict__, "evaluation": first.evaluation})
    verdict = world.judge("threshold", {"minimum": 0.1}, borrowed)
    assert not verdict.passed and "of another model" in verdict.sentence


def test_a_gate_that_breaks_is_a_no_and_the_others_still_judge(world, monkeypatch):
    def explode(*arguments: Any) -> Any:
        raise ZeroDivisionError("float division\nby zero")

    gates = parse_gates({"baseline": {}, "threshold": {"minimum": 0.5}}, "x")
    monkeypatch.setattr(type(gates[0]), "check", explode)
    calls: list[tuple[int, int, str]] = []
    candidate = world.candidate()
    verdicts = run_gates(gates, candidate, None, world.evidence, lambda *call: calls.append(call))
    assert [verdict.passed for verdict in verdicts] == [False, True]
    assert verdicts[0].sentence == ("Could not be judged, which is a no: ZeroDivisionError: float division by zero.")
    assert calls == [(0, 2, "baseline"), (1, 2, "threshold")]
    assert not passed(verdicts) and passed(verdicts[1:]) and not passed([])


def test_a_verdict_that_cites_nothing_is_a_no(world, monkeypatch):
    gates = parse_gates({"threshold": {"minimum": 0.5}}, "x")
    monkeypatch.setattr(type(gates[0]), "check", lambda gate, *_: gate.verdict(True, "Trust me.", Cited("", "")))
    (verdict,) = run_gates(gates, world.candidate(), None, world.evidence)
    assert not verdict.passed


# Each gate's own threshold, from both sides ---------------------------------------------------------------------------


def test_threshold_is_reached_by_equality(world):
    candidate = world.candidate(right=0.9)
    accuracy = world.judge("threshold", {"minimum": 0.1}, candidate).observed
    assert world.judge("threshold", {"minimum": accuracy}, candidate).passed
    assert not world.judge("threshold", {"minimum": accuracy + 1e-9}, candidate).passed


def test_threshold_decides_by_the_interval_when_told_to(world):
    candidate = world.candidate(right=0.9)
    low, _ = world.judge("threshold", {"minimum": 0.1}, candidate).interval
    assert world.judge("threshold", {"minimum": low, "decide_by": "bound"}, candidate).passed
    assert not world.judge("threshold", {"minimum": low + 1e-9, "decide_by": "bound"}, candidate).passed
    assert world.judge("threshold", {"minimum": low + 1e-9}, candidate).passed


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_champion_margin_is_held_against_the_lower_end_of_the_interval(world, metric):
    first = world.promote(world.candidate(right=0.9))
    candidate = world.candidate(right=0.88)
    low, _ = world.judge("champion", {"metric": metric, "margin": 0.5}, candidate, first).interval
    assert low < -0.02
    for margin, fine in ((-low + 1e-6, True), (-low - 1e-6, False)):
        assert world.judge("champion", {"metric": metric, "margin": margin}, candidate, first).passed == fine
    difference = world.evidence.evaluation(candidate).metrics["model"][metric]["value"]
    difference -= world.evidence.evaluation(first).metrics["model"][metric]["value"]
    assert world.judge("champion", {"metric": metric}, candidate, first).observed == pytest.approx(difference)
    wide, _ = world.judge("champion", {"metric": metric, "alpha": 0.2}, candidate, first).interval
    assert wide > low, "a larger alpha asks for less"


def test_champion_of_another_dataset_version_is_compared_on_common_rows(world):
    first = world.promote(world.candidate(right=0.9))
    grown = world.candidate(right=0.9, dataset="grown")
    verdict = world.judge("champion", {"margin": 0.1}, grown, first)
    old, new = (set(world_rows(world, name)) for name in ("old", "grown"))
    assert len(old & new) < len(new)
    assert verdict.passed and f"the {len(old & new):,} test rows both have answered" in verdict.sentence
    assert not world.judge("champion", {"margin": 0.1, "minimum_rows": len(old & new) + 1}, grown, first).passed
    assert world.judge("champion", {"margin": 0.1, "minimum_rows": len(old & new)}, grown, first).passed


def test_champion_without_common_rows_is_a_no_that_says_the_way_out(world):
    first = world.promote(world.candidate())
    verdict = world.judge("champion", {}, world.candidate(dataset="other"), first)
    assert not verdict.passed
    assert "0 test rows in common" in verdict.sentence and "gates.champion.minimum_rows" in verdict.sentence


def world_rows(world: Any, name: str) -> list[str]:
    from data_contracts.registry import read_split

    return read_split(world.store, world.dataset(name), "test")["row_id"].to_pylist()


def test_baseline_margin_is_held_against_the_difference(world):
    candidate = world.candidate(right=0.8, baseline=0.83)
    shortfall = -world.judge("baseline", {}, candidate).observed
    assert world.judge("baseline", {"margin": shortfall}, candidate).passed
    assert not world.judge("baseline", {"margin": shortfall - 1e-9}, candidate).passed
    assert not world.judge("baseline", {"margin": shortfall, "decide_by": "bound"}, candidate).passed


def test_beats_baseline_warns_unless_told_to_block_and_says_what_would_change_it(world):
    candidate = world.candidate(right=0.8, baseline=0.8)
    verdict = world.judge("beats_baseline", {}, candidate)
    assert (verdict.passed, verdict.severity) == (False, "warn")
    assert "A linear model does as well" in verdict.sentence and "--set base=PATH" in verdict.sentence
    worse = world.judge("beats_baseline", {}, world.candidate(right=0.5, baseline=0.8))
    assert "A linear model does better" in worse.sentence
    assert world.judge("beats_baseline", {"severity": "block"}, candidate).severity == "block"


def test_drift_follows_the_contracts_policy(world, monkeypatch):
    from data_contracts.contract import Contract

    first = world.promote(world.candidate())
    candidate = world.candidate(dataset="drifted")
    verdict = world.judge("drift", {}, candidate, first)
    assert (verdict.passed, verdict.severity) == (False, "block")
    assert "label" in verdict.sentence and "text" in verdict.sentence
    policy = world.evidence.contract(candidate).drift
    monkeypatch.setattr(Contract, "__getattribute__", lambda self, name: (
        {**policy, "block": False} if name == "drift" else object.__getattribute__(self, name)
    ))  # fmt: skip
    verdict = world.judge("drift", {}, candidate, first)
    assert (verdict.passed, verdict.severity) == (False, "warn")


def test_a_package_that_does_not_load_is_a_no_with_its_last_words(world):
    candidate = world.candidate(package=save_package(world, "torn"))
    verdict = world.judge("package", {}, candidate)
    assert not verdict.passed and "weights are torn" in verdict.sentence


def test_package_answers_are_compared_row_by_row(world, monkeypatch):
    from infra import tracking

    candidate = world.candidate(right=1.0)
    asked: list[Any] = []

    def answers(confidence: float, count: int | None = None) -> Callable[..., Any]:
        def ask(settings: Any, address: str, rows: list[dict[str, str]]) -> list[dict[str, Any]]:
            asked.append(rows)
            given = [{"label": row["text"].split()[0], "confidence": confidence} for row in rows]
            return given[:count]

        return ask

    monkeypatch.setattr(tracking, "ask_package", answers(0.9005))
    verdict = world.judge("package", {"rows": 5}, candidate)
    assert verdict.passed and verdict.observed == 5
    assert all(set(row) == {"text"} for row in asked[0]) and len(asked[0]) == 5
    monkeypatch.setattr(tracking, "ask_package", answers(0.9015))
    assert not world.judge("package", {"rows": 5}, candidate).passed
    assert world.judge("package", {"rows": 5, "tolerance": 0.002}, candidate).passed
    monkeypatch.setattr(tracking, "ask_package", answers(0.9, count=4))
    verdict = world.judge("package", {"rows": 5}, candidate)
    assert not verdict.passed and "gave 4 answers to 5 rows" in verdict.sentence


# Settings and listing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"treshold": {"minimum": 0.5}}, "gates.treshold: there is no such gate; did you mean 'threshold'"),
        ({"threshold": {"minimun": 0.5}}, "gates.threshold.minimun: unknown key; did you mean 'minimum'"),
        ({"threshold": {}}, "gates.threshold.minimum: is missing"),
        ({"threshold": None}, "gates.threshold.minimum: is missing"),
        ({"threshold": {"minimum": 1.5}}, "gates.threshold.minimum: found 1.5"),
        ({"threshold": {"minimum": float("nan")}}, "gates.threshold.minimum: found nan"),
        ({"threshold": {"minimum": "high"}}, "gates.threshold.minimum: found 'high'"),
        (
            {"threshold": {"minimum": 0.5, "metric": "acuracy"}},
            "metric: found 'acuracy'; no such metric; there is",
        ),
        ({"champion": {"margin": -0.01}}, "gates.champion.margin: found -0.01"),
        ({"champion": {"alpha": 0.7}}, "gates.champion.alpha: found 0.7"),
        ({"baseline": {"severity": "wran"}}, "gates.baseline.severity: found 'wran'"),
        ({"package": {"rows": True}}, "gates.package.rows: found True"),
        ({"drift": ["label"]}, "gates.drift: found"),
    ],
)
def test_wrong_settings_get_one_line(section, message):
    with pytest.raises(WrongInput) as error:
        parse_gates(section, "experiment animals")
    assert str(error.value).startswith("experiment animals: ") and message in str(error.value)


def test_an_unknown_gate_names_the_nearest():
    with pytest.raises(WrongInput, match="did you mean 'beats_baseline'"):
        load_gate("beat_baseline")


def test_listing_gates_imports_none_of_them():
    code = (
        "import sys; from flows import gate; gate.list_gates(); print([m for m in sys.modules if 'flows.gates' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=child_environment())
    assert done.stdout.strip() == "[]", done.stderr
    assert [name for name, _ in list_gates()] == gate_names()
    assert all(len(line) > 20 and line.endswith(".") for _, line in list_gates())


def test_a_gate_is_one_file(world, tmp_path, monkeypatch):
    tmp_path = tmp_path / "gates"
    tmp_path.mkdir()
    (tmp_path / "always_no.py").write_text(
        '"""Says no."""\nfrom flows.evidence import Cited\nfrom flows.gate import Gate\n\n\nclass AlwaysNo(Gate):\n'
        "    def check(self, candidate, champion, evidence):\n"
        '        return self.verdict(False, "No.", Cited("a", "b"))\n'
    )
    monkeypatch.setattr("flows.gate.GATES", tmp_path)
    monkeypatch.setattr("flows.gates.__path__", [str(tmp_path)])
    assert list_gates() == [("always_no", "Says no.")]
    (gate,) = parse_gates({"always_no": {}}, "x")
    (verdict,) = run_gates([gate], world.candidate(), None, world.evidence)
    assert (verdict.gate, verdict.passed, verdict.sentence) == ("always_no", False, "No.")
