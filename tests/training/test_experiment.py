import re
from pathlib import Path

import pytest

from infra.errors import WrongInput
from training.experiment import FOLDER, Experiment, experiment_path, load_experiment
from training.refusals import refuse_here, refuse_settings

GOOD = """\
recipe: text_classifier
dataset: reviews
training: {epochs: 2, batch_size: 16}
settings: {max_length: 32}
"""


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "reviews.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_experiments_are_valid(path: Path) -> None:
    from flows.config import load_config

    assert load_config(str(path)).name == path.stem


def test_settings_are_resolved_with_every_default(tmp_path: Path) -> None:
    experiment = load_experiment(write(tmp_path, GOOD))
    assert experiment.name == "reviews"
    assert experiment.settings["max_length"] == 32
    assert experiment.settings["pooling"] == "mean"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("recpe: x", "unknown key 'recpe'; did you mean 'recipe'"),
        ("recipe: text_clasifier", "did you mean 'text_classifier'"),
        ("training: {epochs: 2, batchsize: 16}", "unknown key 'training.batchsize'; did you mean 'batch_size'"),
        ("training: {batch_size: 16}", "exactly one of 'epochs' and 'steps'"),
        ("training: {epochs: 2, steps: 3}", "exactly one of 'epochs' and 'steps'"),
        ("training: {epochs: 2, final_learning_rate: 0.1}", "0.1 is above the peak, 0.001"),
        ("training: {epochs: -1}", "training.epochs"),
        ("training: {epochs: 1, learning_rate: fast}", "training.learning_rate"),
        ("settings: {max_lenght: 32}", "unknown key 'settings.max_lenght'; did you mean 'max_length'"),
        ("settings: {max_length: 100000}", "settings.max_length"),
        ("settings: {pooling: max}", "settings.pooling"),
        ("from: {bse: x}", "from.bse is no role"),
        ("scaling: {workers: 0}", "scaling.workers"),
        ("dataset: [1]", "dataset"),
    ],
)
def test_a_wrong_field_is_one_line_that_names_it(tmp_path: Path, line: str, said: str) -> None:
    key = line.partition(":")[0]
    kept = "".join(one + "\n" for one in GOOD.splitlines() if not one.startswith(f"{key}:"))
    with pytest.raises(WrongInput) as caught:
        load_experiment(write(tmp_path, kept + line + "\n"))
    assert said in str(caught.value)
    assert "reviews.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "\x00", "", "just words"])
def test_a_file_that_is_no_experiment_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(WrongInput, match=r"reviews\.yaml"):
        load_experiment(write(tmp_path, text))


def test_a_file_here_that_shadows_a_shipped_experiment_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert experiment_path("emotion").parent == FOLDER and capsys.readouterr().err == ""
    (tmp_path / "emotion.yaml").write_text((FOLDER / "emotion.yaml").read_text())
    assert experiment_path("emotion") == Path("emotion.yaml") == experiment_path("emotion")
    told = capsys.readouterr()
    assert told.err == f"experiment emotion: {tmp_path / 'emotion.yaml'} is taken, not the shipped one of that name\n"
    assert told.out == ""
    (tmp_path / "own.yaml").write_text((FOLDER / "emotion.yaml").read_text())
    experiment_path("own")
    assert capsys.readouterr().err == ""


def test_an_unknown_experiment_lists_what_there_is() -> None:
    with pytest.raises(WrongInput, match="did you mean 'library-docs'"):
        load_experiment("library-dox")


@pytest.mark.parametrize(
    ("override", "section", "field", "value"),
    [
        ("training.seed=7", "training", "seed", 7),
        ("seed=7", "training", "seed", 7),
        ("pooling=first", "settings", "pooling", "first"),
        ("workers=2", "scaling", "workers", 2),
        ("base=/some/folder", "sources", "base", "/some/folder"),
    ],
)
def test_set_overrides_a_field_by_full_or_short_name(
    tmp_path: Path, override: str, section: str, field: str, value: object
) -> None:
    experiment = load_experiment(write(tmp_path, GOOD), [override])
    found = getattr(experiment, section)
    assert (found[field] if isinstance(found, dict) else getattr(found, field)) == value


@pytest.mark.parametrize(
    ("overrides", "epochs", "steps"),
    [(["steps=60"], None, 60), (["training.steps=60"], None, 60), (["epochs=3"], 3, None), (["steps="], 2, None)],
)
def test_steps_of_one_run_take_the_place_of_the_files_epochs(
    tmp_path: Path, overrides: list[str], epochs: float | None, steps: int | None
) -> None:
    training = load_experiment(write(tmp_path, GOOD), overrides).training
    assert (training.epochs, training.steps) == (epochs, steps)


@pytest.mark.parametrize(("override", "said"), [("sed=7", "did you mean"), ("seed", "no '='"), ("seed=[", "not YAML")])
def test_a_wrong_override_is_refused(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(WrongInput, match=said):
        load_experiment(write(tmp_path, GOOD), [override])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (["scaling.sharding=fsdp", "workers=2", "compile=true"], "training.compile"),
        (["compile=true", "activation_checkpointing=true"], "leave one of them out"),
        (["batch_size=3", "micro_batch_size=1", "workers=2"], "make it a multiple of scaling.workers"),
        (["best_by=accuracy"], "keep: best"),
        (["epochs=2", "steps=60"], "exactly one of 'epochs' and 'steps'"),
        (["early_stopping={patience: 2}"], "'training.early_stopping.metric' is missing"),
        (["early_stopping={metric: loss, patence: 2}"], "did you mean 'patience'"),
        (["ema=1.0"], "training.ema"),
        (
            ["hidden_size=100", "num_heads=8"],
            "settings: hidden_size 100 is no multiple of num_heads 8; write hidden_size 104",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path: Path, override: list[str], said: str) -> None:
    with pytest.raises(WrongInput, match=re.escape(said)) as caught:
        load_experiment(write(tmp_path, GOOD), override)
    assert "\n" not in str(caught.value)


def test_a_loss_that_does_not_sum_over_samples_is_not_split(tmp_path: Path) -> None:
    experiment = load_experiment(write(tmp_path, GOOD), ["micro_batch_size=4"])
    refuse_settings(experiment.training, experiment.scaling, True, "here")
    with pytest.raises(WrongInput, match=r"^here: training\.micro_batch_size: 4 splits"):
        refuse_settings(experiment.training, experiment.scaling, False, "here")


def refuse_run(experiment: Experiment, counts: dict[str, int]) -> None:
    refuse_here(experiment.training, experiment.scaling, experiment.dataset, counts)


@pytest.mark.parametrize("override", ["early_stopping={metric: loss}", "keep=best"])
def test_judging_without_a_validation_split_is_refused(tmp_path: Path, override: str) -> None:
    experiment = load_experiment(write(tmp_path, GOOD), [override])
    refuse_run(experiment, {"train": 10, "validation": 5})
    with pytest.raises(WrongInput, match="no validation split"):
        refuse_run(experiment, {"train": 10, "validation": 0})


@pytest.mark.parametrize(
    ("flags", "native"), [("fpu avx512f", False), ("fpu amx_bf16", True), ("asimd bf16 sve", True)]
)
def test_bf16_is_refused_on_a_cpu_that_emulates_it(
    tmp_path: Path, flags: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    monkeypatch.setattr("training.refusals.CPU_FACTS", tmp_path / "cpuinfo")
    refuse_run(load_experiment(write(tmp_path, GOOD)), {"train": 10})
    refuse_run(load_experiment(write(tmp_path, GOOD), ["precision=bf16", "gpus_per_worker=1"]), {"train": 10})
    experiment = load_experiment(write(tmp_path, GOOD), ["precision=bf16"])
    if native:
        refuse_run(experiment, {"train": 10})
    else:
        with pytest.raises(WrongInput, match=r"training\.precision: bf16 is emulated on this CPU"):
            refuse_run(experiment, {"train": 10})


def test_set_reaches_into_a_section_of_a_section(tmp_path: Path) -> None:
    overrides = ["early_stopping.metric=accuracy", "training.early_stopping.patience=7"]
    with pytest.raises(WrongInput, match=r"no field 'early_stopping\.metric'"):
        load_experiment(write(tmp_path, GOOD), overrides)
    experiment = load_experiment(write(tmp_path, GOOD), ["training.early_stopping.metric=accuracy", "patience=7"])
    assert experiment.training.early_stopping is not None
    assert (experiment.training.early_stopping.metric, experiment.training.early_stopping.patience) == ("accuracy", 7)
