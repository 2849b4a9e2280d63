"""What holds for every gate: it passes its good example, rejects its bad one, and says no without its evidence.

An example is one file, `gate_examples/<gate>.py`, found by the gate's name:

    example(world, good)    the gate's settings, a candidate, and a champion or None
    proof(world, subject)   optional: store keys without which it cannot judge; else the files of the evaluation
    COMPARES = True         optional: without a champion there is nothing to compare
    SEALED = False          optional: its evidence is named by no digest, so one changed byte cannot be seen
    WRONG = [...]           optional: (settings, what the one line says) of settings that cannot be
"""

import importlib
import subprocess
import sys
from typing import Any

import pytest

from flows.judging.evidence import Cited, Subject, find_champion
from flows.judging.gate import gate_names, list_gates, load_gate, parse_gates, passed, run_gates
from flows.promotion import decisions as promotion
from flows.references import resolve
from infra.digests import digest_bytes
from infra.errors import WrongInput
from infra.settings import child_environment


def load_example(name: str) -> Any:
    try:
        return importlib.import_module(f"tests.flows.gate_examples.{name}")
    except ModuleNotFoundError:
        pytest.fail(f"flows/gates/{name}.py needs an example: tests/flows/gate_examples/{name}.py")


def evaluation_files(world: Any, subject: Subject) -> list[str]:
    return [f"evaluations/{subject.evaluation}/{file}" for file in ("metrics.json", "predictions.parquet")]


COMPARING = [name for name in gate_names() if getattr(load_example(name), "COMPARES", False)]
WRONG = [(name, *case) for name in gate_names() for case in getattr(load_example(name), "WRONG", ())]


@pytest.mark.parametrize("name", gate_names())
def test_every_setting_says_what_it_means(name: str):
    assert [field for field, said in load_gate(name).model_fields.items() if not said.description] == []


@pytest.fixture(params=gate_names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("good", [True, False], ids=["good", "bad"])
def test_every_gate_passes_its_good_example_and_rejects_its_bad_one(world, name, good):
    settings, candidate, reigning = load_example(name).example(world, good)
    verdict = world.judge(name, settings, candidate, reigning)
    assert verdict.passed == good, verdict.sentence
    assert "could not be judged" not in verdict.sentence.lower()
    assert verdict.gate == name
    assert verdict.observed is not None and verdict.threshold is not None and verdict.measure
    assert verdict.sentence.endswith(".") and "\n" not in verdict.sentence
    assert all(row.keys() == verdict.details[0].keys() for row in verdict.details)
    for key, digest in (
        (verdict.evidence, verdict.evidence_digest),
        *((cited.key, cited.digest) for cited in verdict.also_cited),
    ):
        assert digest_bytes(world.store.get(key)) == digest


@pytest.mark.parametrize("how", ["lost", "altered"])
@pytest.mark.parametrize("whose", ["candidate", "champion"])
def test_every_gate_says_no_without_its_evidence(world, name, whose, how):
    module = load_example(name)
    if whose == "champion" and not getattr(module, "COMPARES", False):
        pytest.skip("looks at no champion")
    if how == "altered" and not getattr(module, "SEALED", True):
        pytest.skip("its evidence carries no digest of its own")
    settings, candidate, reigning = module.example(world, True)
    subject = candidate if whose == "candidate" else reigning
    for key in getattr(module, "proof", evaluation_files)(world, subject):
        if how == "lost":
            world.store.delete(key)
        else:
            body = bytearray(world.store.get(key))
            body[len(body) // 2] ^= 1
            world.store.put(key, bytes(body))
    verdict = world.judge(name, settings, candidate, reigning)
    assert not verdict.passed
    assert "Could not be judged, which is a no" in verdict.sentence
    assert verdict.evidence == verdict.evidence_digest == ""


@pytest.mark.parametrize("name", COMPARING)
def test_a_comparison_has_nothing_to_compare_only_while_the_log_has_no_champion(world, name):
    candidate = world.candidate()
    verdict = world.judge(name, {}, candidate)
    assert verdict.passed and "Nothing to compare" in verdict.sentence and "log is empty" in verdict.sentence
    assert verdict.evidence == "promotions/animals/"

    card = world.scorecard(candidate)
    promotion.reject(world.store, resolve(world.store, candidate.ref), card, author="mel", reason="not yet")
    verdict = world.judge(name, {}, candidate)
    assert verdict.passed and verdict.evidence == promotion.entry_key("animals", 1)

    second = world.promote(world.candidate())
    verdict = world.judge(name, {}, world.candidate(), None)
    assert not verdict.passed and f"{second.ref} is champion" in verdict.sentence


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


# Settings and listing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gate", "settings", "message"), WRONG)
def test_settings_that_cannot_be_get_one_line(gate, settings, message):
    with pytest.raises(WrongInput) as error:
        parse_gates({gate: settings}, "experiment animals")
    assert str(error.value).startswith(f"experiment animals: gates.{gate}") and message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_gate_is_one_line_that_names_the_nearest():
    with pytest.raises(WrongInput, match=r"gates\.treshold: there is no such gate; did you mean 'threshold'"):
        parse_gates({"treshold": {"minimum": 0.5}}, "experiment animals")
    with pytest.raises(WrongInput, match="did you mean 'beats_baseline'"):
        load_gate("beat_baseline")


def test_listing_gates_imports_none_of_them():
    code = (
        "import sys; from flows.judging import gate; gate.list_gates(); "
        "print([m for m in sys.modules if 'flows.gates' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=child_environment())
    assert done.stdout.strip() == "[]", done.stderr
    assert [name for name, _ in list_gates()] == gate_names()
    assert all(len(line) > 20 and line.endswith(".") for _, line in list_gates())


def test_a_gate_is_one_file(world, tmp_path, monkeypatch):
    tmp_path = tmp_path / "gates"
    tmp_path.mkdir()
    (tmp_path / "always_no.py").write_text(
        '"""Says no."""\nfrom flows.judging.evidence import Cited\nfrom flows.judging.gate import Gate\n\n\n'
        "class AlwaysNo(Gate):\n"
        "    def check(self, candidate, champion, evidence):\n"
        '        return self.verdict(False, "No.", Cited("a", "b"))\n'
    )
    monkeypatch.setattr("flows.judging.gate.GATES", tmp_path)
    monkeypatch.setattr("flows.gates.__path__", [str(tmp_path)])
    assert list_gates() == [("always_no", "Says no.")]
    (gate,) = parse_gates({"always_no": {}}, "x")
    (verdict,) = run_gates([gate], world.candidate(), None, world.evidence)
    assert (verdict.gate, verdict.passed, verdict.sentence) == ("always_no", False, "No.")
