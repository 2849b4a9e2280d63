"""Records of what experiments reached, and the goals they are held against."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flows import goals, records
from flows.cli import cli
from flows.goals import Goal
from infra.errors import Refused, SlipwayError, WrongInput
from infra.settings import load_settings
from training.evaluation import load_kind
from training.experiment import load_experiment
from training.run_log import RunLog

EXPERIMENT = """\
recipe: bert_mlm
dataset: words
settings: {hidden_size: 32}
training: {epochs: 1, learning_rate: 0.01}
"""


class Bench:
    """A folder with an experiment, and finished runs of it."""

    def __init__(self, folder: Path):
        self.folder, self.store = folder, load_settings().object_store
        (folder / "words.yaml").write_text(EXPERIMENT, encoding="utf-8")

    def finish(self, seed: int, losses: list[float], ending: str = "finished", **changed: Any) -> str:
        """A run whose validation losses, one each ten steps, are these."""
        ran = load_experiment("words", [f"seed={seed}"]).model_copy(update=changed)
        log = RunLog(self.store, f"words-{len(self.runs):04d}-1")
        log.append(
            "run",
            experiment=ran.model_dump(mode="json", by_alias=True),
            ingredients={"code": {"m": {"f": "1"}}, "libraries": {"torch": "2"}, "from": {}},
            dataset={"name": "words", "digest": "d" * 64},
        )
        log.append("attempt", 1, from_step=0)
        points = [[10 * (place + 1), {"validation_loss": loss, "loss": 9.0}, 0] for place, loss in enumerate(losses)]
        best = {"step": 10 * (losses.index(min(losses)) + 1), "metric": "loss", "value": min(losses)}
        log.append("checkpoint", 1, step=10 * len(losses), place="p", digest="d", points=points, best=best)
        log.append(ending, 1, steps=10 * len(losses), test={"loss": losses[-1] + 0.5}, model="m", parameters=1234,
                   figures={"speed_ratio": 1.5})  # fmt: skip
        self.runs.append(log.run)
        return log.run

    runs: list[str]

    def record(self, *runs: str, wanted: set[str] | None = None) -> dict[str, Any]:
        path = records.record(load_settings(), runs, lambda name: wanted or set())
        return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("SLIPWAY_WORKSPACE", str(tmp_path / "ws"))
    monkeypatch.chdir(tmp_path)
    made = Bench(tmp_path)
    made.runs = []
    return made


def line(**fields: Any) -> goals.Line:
    return goals.judge(Goal(**{"experiment": "words", "metric": "validation_loss", "seeds": 1, **fields}))


def test_a_record_is_of_the_runs_together_and_lies_beside_the_experiment(bench: Bench) -> None:
    runs = [bench.finish(seed, [5.0, loss]) for seed, loss in enumerate((2.0, 2.2, 2.4))]
    body = bench.record(*runs, wanted={"loss"})
    assert json.loads((bench.folder / "records" / "words.json").read_text()) == body
    figure = body["figures"]["validation_loss"]
    assert figure["value"] == pytest.approx(2.2) and figure["seeds"] == 3
    assert figure["high"] - figure["value"] == pytest.approx(1.96 * 0.2 / 3**0.5)
    assert body["figures"]["test_loss"]["value"] == pytest.approx(2.7)
    assert {"parameters", "seconds", "loss", "speed_ratio"} <= set(body["figures"]), (
        "what goals ask for, costs, and what the model told"
    )
    assert [one["seed"] for one in body["runs"]] == [0, 1, 2] and [one["run"] for one in body["runs"]] == runs
    assert body["dataset"] == "words@" + "d" * 64 and body["format"] == 1 and len(body["code"]) == 64
    assert body["command"] == "slipway train words --set seed=SEED" and "cores" in body["hardware"]


def test_figures_are_of_the_weights_that_became_the_model(bench: Bench) -> None:
    losses = [3.0, 2.0, 4.0]
    assert bench.record(bench.finish(0, losses))["figures"]["validation_loss"]["value"] == 4.0
    text = EXPERIMENT.replace("epochs: 1", "epochs: 1, keep: best")
    (bench.folder / "words.yaml").write_text(text, encoding="utf-8")
    assert bench.record(bench.finish(0, losses))["figures"]["validation_loss"]["value"] == 2.0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ending": "stopped"}, "is stopped; record finished runs"),
        ({"dataset": "other"}, "as it is shipped"),
        ({"settings": {"hidden_size": 64}}, "hidden_size"),
    ],
)
def test_only_finished_runs_of_the_experiment_as_shipped_are_recorded(
    bench: Bench, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(Refused, match=said):
        bench.record(bench.finish(0, [2.0], **changed))
    assert not (bench.folder / "records").exists()


def test_the_precision_is_the_hardwares_and_is_named(bench: Bench) -> None:
    """A CPU with AMX is several times as fast in bf16, and one without is several times as slow."""
    training = load_experiment("words").training
    body = bench.record(bench.finish(0, [2.0], training=training.model_copy(update={"precision": "bf16"})))
    assert body["precision"] == "bf16"
    assert body["command"] == "slipway train words --set precision=bf16 --set seed=SEED"
    with pytest.raises(Refused, match="differs from words-0000-1 in more than the seed"):
        bench.record(bench.runs[0], bench.finish(1, [2.0]))


def test_runs_of_one_record_differ_in_the_seed_alone(bench: Bench) -> None:
    first = bench.finish(0, [2.0])
    with pytest.raises(WrongInput, match="has the seed 0, as run"):
        bench.record(first, bench.finish(0, [2.1]))
    finished = bench.finish(1, [2.0])
    code = {"code": {"training.loop": {"train": "2"}}, "libraries": {"torch": "2"}, "from": {}}
    for run, changed, said in (
        ("words-9998-1", {"ingredients": code}, r"m\.py: gone; training/loop\.py: new"),
        ("words-9999-1", {"dataset": {"name": "words", "digest": "e" * 64}}, "dataset"),
    ):
        log = RunLog(bench.store, run)
        for entry in RunLog(bench.store, finished).entries():
            body = {key: it for key, it in entry.items() if key not in ("format", "kind", "attempt", "time", "nonce")}
            log.append(entry["kind"], entry["attempt"], **(body | changed if entry["kind"] == "run" else body))
        with pytest.raises(Refused, match=rf"differs from words-0000-1 in more than the seed \({said}"):
            bench.record(first, run)


def test_a_figure_that_goals_ask_for_has_to_be_there(bench: Bench) -> None:
    with pytest.raises(Refused, match=r"no figure 'validation_los', .*did you mean 'validation_loss'"):
        bench.record(bench.finish(0, [2.0]), wanted={"validation_los"})


def test_a_goal_is_met_when_the_interval_covers_or_exceeds_it(bench: Bench) -> None:
    bench.record(*[bench.finish(seed, [loss]) for seed, loss in enumerate((1.9, 2.0, 2.1))])
    low, high = 2 - 1.96 * 0.1 / 3**0.5, 2 + 1.96 * 0.1 / 3**0.5
    assert line(at_most=low + 1e-6).status == goals.MET and line(at_most=low - 1e-6).status == goals.SHORT
    assert line(at_least=high - 1e-6).status == goals.MET and line(at_least=high + 1e-6).status == goals.SHORT
    assert line().status == goals.REPORTED
    assert line(metric="validation_accuracy", at_least=0.5).status == goals.NOT_MEASURED
    assert line(experiment="nobody", at_least=0.5).status == goals.NOT_MEASURED
    few = line(at_most=3.0, seeds=5)
    assert few.status == goals.SHORT and few.why == "3 of 5 seeds"


def test_an_interval_is_over_seeds_and_examples(bench: Bench) -> None:
    """Examples are shared by the seeds: more seeds make their part of the error no smaller."""
    one = {"value": 0.9, "low": 0.88, "high": 0.91}
    assert records.mean([one]) == {**one, "seeds": 1} == {**records.mean([one] * 4), "seeds": 1}
    apart = records.mean([one, {"value": 0.8, "low": 0.78, "high": 0.81}])
    assert apart["value"] == pytest.approx(0.85)
    assert apart["low"] == pytest.approx(0.85 - (0.02**2 + (1.96 * 0.05) ** 2) ** 0.5)


def test_a_line_may_be_held_against_another_experiments_record(bench: Bench) -> None:
    bench.record(bench.finish(0, [2.0]))
    (bench.folder / "small.yaml").write_text(EXPERIMENT, encoding="utf-8")
    assert line(experiment="small", ratio_to="words", at_least=0.9).status == goals.NOT_MEASURED
    body = json.loads((bench.folder / "records" / "words.json").read_text())
    body["figures"]["validation_loss"] = {"value": 1.0, "low": 0.9, "high": 1.1, "seeds": 3}
    (bench.folder / "records" / "small.json").write_text(json.dumps(body))
    ratio = line(experiment="small", ratio_to="words", at_most=0.44)
    assert ratio.status == goals.SHORT and ratio.figure is not None
    assert ratio.figure == pytest.approx({"value": 0.5, "low": 0.45, "high": 0.55, "seeds": 1})
    apart = line(experiment="small", difference_to="words", at_least=-0.9)
    assert apart.status == goals.MET and apart.figure is not None and apart.figure["value"] == -1.0


def test_a_record_of_other_settings_meets_no_goal(bench: Bench) -> None:
    bench.record(bench.finish(0, [2.0]))
    assert line(at_most=2.0).status == goals.MET
    (bench.folder / "words.yaml").write_text(EXPERIMENT.replace("0.01", "0.02"), encoding="utf-8")
    changed = line(at_most=2.0)
    assert changed.status == goals.SHORT and "learning_rate" in changed.why
    path = bench.folder / "records" / "words.json"
    body = json.loads(path.read_text())
    body["ran"]["training"]["learning_rate"] = 0.02
    del body["ran"]["settings"]["masking_rate"]  # a setting that came after the record was at its default
    path.write_text(json.dumps(body))
    assert line(at_most=2.0).status == goals.MET


def test_the_shipped_goals_are_read_and_name_each_line_once() -> None:
    found = goals.read_goals()
    assert "text" in found
    lines = [(one.experiment, one.metric, one.ratio_to, one.difference_to) for group in found.values() for one in group]
    assert len(set(lines)) == len(lines)
    for path in records.FOLDER.glob("*.json"):
        body = records.read(path.stem)
        assert body is not None and body["experiment"] == path.stem
        assert goals.wanted_of(path.stem) <= set(body["figures"]), f"{path.stem}: goals ask for what was not recorded"


def test_goals_that_cannot_be_are_refused_in_one_line(tmp_path: Path) -> None:
    for text, said in (
        ("format: 2\n", "format 2 is newer"),
        ("format: 1\ntext: [{experiment: a, metrik: b}]\n", "text, line 1"),
        (
            "format: 1\ntext: [{experiment: a, metric: b, at_least: 1, at_most: 2}]\n",
            "give one of at_least and at_most",
        ),
    ):
        (tmp_path / "goals.yaml").write_text(text)
        with pytest.raises(WrongInput, match=said):
            goals.read_goals(tmp_path)


def test_verify_shows_every_line_and_exits_3_when_one_falls_short(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.record(bench.finish(0, [2.0]))
    text = (
        "format: 1\ntext:\n  - {experiment: words, metric: validation_loss, at_most: GOAL, seeds: 1, known: yes 1.9}\n"
        "  - {experiment: other, metric: test_loss}\nimage: [{experiment: words, metric: seconds, at_most: -1}]\n"
    )
    monkeypatch.setattr(records, "FOLDER", bench.folder)

    def verify(*arguments: str) -> Any:
        return CliRunner().invoke(cli, ["recipes", "verify", *arguments])

    (bench.folder / "goals.yaml").write_text(text.replace("GOAL", "2.0"))
    done = verify("--text")
    assert done.exit_code == 0 and "2, 1 seed" in done.stdout and "not measured" in done.stdout
    assert [one["status"] for one in json.loads(verify("--text", "--json").stdout)] == ["met", "not measured"]
    (bench.folder / "goals.yaml").write_text(text.replace("GOAL", "1.9"))
    done = verify("--text")
    assert isinstance(done.exception, Refused) and "1 of 2 lines fall short: words validation_loss" in str(
        done.exception
    )
    assert isinstance(verify().exception, Refused) and "2 of 3" in str(verify().exception)


def test_a_figure_of_today_is_within_the_recorded_interval_or_not() -> None:
    recorded = {"a": {"value": 0.9, "low": 0.88, "high": 0.91}, "b": {"value": 2.0, "low": 2.0, "high": 2.0}}
    today = {"a": {"value": 0.91}, "b": {"value": 2.001}, "c": {"value": 1.0}}
    assert records.reproduced(recorded, today, {"a", "b", "c"}) == {"a": (0.91, True), "b": (2.001, True)}
    today = {"a": {"value": 0.9101}, "b": {"value": 2.01}}
    assert [within for _, within in records.reproduced(recorded, today, {"a", "b"}).values()] == [False, False]


def test_what_cannot_be_recorded_or_run_again_is_one_line(bench: Bench) -> None:
    for arguments in (["record", "nobody-1"], ["verify", "--rerun", "words"], ["verify", "--set", "a=b"]):
        done = CliRunner().invoke(cli, ["recipes", *arguments])
        assert isinstance(done.exception, SlipwayError), done.output
        assert "\n" not in str(done.exception)


def test_every_shipped_goal_is_of_a_shipped_experiment_and_a_figure_it_can_have() -> None:
    for line in (one for group in goals.read_goals().values() for one in group):
        experiment = load_experiment(line.experiment)
        for other in filter(None, (line.ratio_to, line.difference_to)):
            load_experiment(other)
        kind = experiment.recipe_settings.evaluates
        if line.metric.startswith("test_") and kind:
            metric = line.metric.removeprefix("test_").removeprefix("baseline_")
            beside = metric.startswith(("index_", "judge_", "reranking_"))  # which not every evaluation tells
            assert beside or metric in load_kind(kind).metrics, line
