from pathlib import Path

import pytest

from infra.errors import WrongInput
from training.experiment import FOLDER, load_experiment

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


@pytest.mark.parametrize(("override", "said"), [("sed=7", "did you mean"), ("seed", "no '='"), ("seed=[", "not YAML")])
def test_a_wrong_override_is_refused(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(WrongInput, match=said):
        load_experiment(write(tmp_path, GOOD), [override])
