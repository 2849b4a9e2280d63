import json
from pathlib import Path
from typing import Any

import pytest

from flows.steps import Step, accept, decide, execute
from infra.progress import Progress
from infra.store import FolderStore


class Bench:
    """Two steps, the second on the first's output, with ingredients to turn."""

    def __init__(self, folder: Path):
        self.store = FolderStore(folder)
        self.source: Any = "a"
        self.setting: Any = 1
        self.code = {"m": {"f": "1", "<module>": "0"}}
        self.ran: list[str] = []
        self.broken = ""
        self.first = Step(kind="prepare", subject="x", ingredients=self._of_first, run=self._make, damage=self._damage)
        self.second = Step(
            kind="train", subject="x", needs=("prepare x",), ingredients=self._of_second, run=self._train,
            damage=lambda output: None,
        )  # fmt: skip

    def _of_first(self, outputs: Any) -> dict[str, Any]:
        return {"source": self.source, "code": self.code}

    def _of_second(self, outputs: Any) -> dict[str, Any]:
        return {"prepared": outputs["prepare x"]["digest"], "settings": {"rate": self.setting}}

    def _make(self, outputs: Any, progress: Progress, key: str) -> dict[str, Any]:
        self.ran.append("prepare")
        return {"digest": str(self.source).lower()}  # "A" and "a" prepare to the same bytes

    def _train(self, outputs: Any, progress: Progress, key: str) -> dict[str, Any]:
        self.ran.append("train")
        return {"model": "m"}

    def _damage(self, output: Any) -> str | None:
        return self.broken or None

    def run(self) -> dict[str, list[str]]:
        """Run what is stale. Returns the reasons of each step that ran."""
        outputs: dict[str, Any] = {}
        reasons = {}
        for step in (self.first, self.second):
            decision = decide(self.store, step, outputs)
            if decision.output is None:
                reasons[step.name] = decision.reasons
                outputs[step.name] = execute(self.store, step, outputs, Progress("test"))
            else:
                outputs[step.name] = decision.output
        return reasons


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "store")


def test_nothing_changed_runs_nothing(bench: Bench) -> None:
    assert bench.run() == {"prepare x": ["never ran here"], "train x": ["never ran here"]}
    assert bench.run() == {}
    assert bench.ran == ["prepare", "train"]


def test_a_changed_setting_reruns_its_step_alone_and_is_named(bench: Bench) -> None:
    bench.run()
    bench.setting = 2
    assert bench.run() == {"train x": ["settings.rate: from 1 to 2"]}


def test_a_change_that_leaves_the_output_the_same_reruns_nothing_after_it(bench: Bench) -> None:
    bench.run()
    bench.source = "A"
    assert bench.run() == {"prepare x": ["source: from a to A"]}


def test_going_back_finds_the_old_result(bench: Bench) -> None:
    bench.run()
    bench.source = "b"
    assert set(bench.run()) == {"prepare x", "train x"}
    bench.source = "a"
    assert bench.run() == {}


def test_a_result_that_is_not_whole_is_made_again(bench: Bench) -> None:
    bench.run()
    bench.broken = "prepared/a/tokens is missing"
    assert bench.run() == {"prepare x": ["its output is not whole: prepared/a/tokens is missing"]}


def test_a_torn_record_is_no_record(bench: Bench) -> None:
    bench.run()
    for key in bench.store.list("steps/prepare/"):
        bench.store.put(key, b"{")
    assert "prepare x" in bench.run()


def test_changed_code_is_named_by_file_and_function(bench: Bench) -> None:
    bench.run()
    bench.code = {"m": {"f": "2", "<module>": "0"}}
    assert bench.run() == {"prepare x": ["m.py: f"]}


def test_accepted_code_keeps_the_result_and_who_said_so(bench: Bench) -> None:
    bench.run()
    bench.code = {"m": {"f": "2", "<module>": "0"}}
    assert accept(bench.store, bench.first, {}, "renamed a variable")
    assert bench.run() == {}
    decision = decide(bench.store, bench.first, {})
    (note,) = decision.accepted
    assert note["why"] == "renamed a variable" and note["who"] and note["what"] == ["m.py: f"]


def test_code_cannot_be_accepted_when_something_else_changed_too(bench: Bench) -> None:
    bench.run()
    bench.code, bench.source = {"m": {"f": "2"}}, "b"
    assert not accept(bench.store, bench.first, {}, "no")
    assert "prepare x" in bench.run()


def test_a_forced_step_says_why(bench: Bench) -> None:
    bench.run()
    decision = decide(bench.store, bench.first, {}, forced="asked to read the source again")
    assert (decision.status, decision.reasons) == ("stale", ["asked to read the source again"])


def test_a_step_after_a_stale_one_follows_it(bench: Bench) -> None:
    assert decide(bench.store, bench.second, {}).reasons == ["follows prepare x"]


def test_records_of_a_newer_slipway_are_refused(bench: Bench) -> None:
    from infra.errors import WrongInput

    bench.run()
    for key in bench.store.list("steps/prepare/"):
        bench.store.put(key, json.dumps({**json.loads(bench.store.get(key)), "format": 99}).encode())
    with pytest.raises(WrongInput, match="newer"):
        bench.run()
