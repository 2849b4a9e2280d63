"""An experiment: recipe + dataset + settings, one YAML, validated into frozen, typed configuration.

Gates, promotion, schedule and monitor are part of the same file and stay as they are here: `flows.config` reads them.
"""

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError

from infra.errors import WrongInput, choices
from training.recipe import RecipeSettings, recipe_names, settings_class
from training.refusals import refuse_scaling_of_fit, refuse_settings, section_of_fit
from training.sections import Scaling, Strict, Training

FOLDER = Path(__file__).parent / "experiments"


class Experiment(Strict):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    """The model's name; by default the file's."""
    recipe: str
    dataset: str
    """`name`, `name@tag` or `name@digest`."""
    contract: str | None = None
    """The dataset's contract file, read by `retrain`; by default the one it was registered with."""
    sources: dict[str, str] = Field(default_factory=dict, alias="from")
    """Role -> an experiment's name, a registered model (`NAME/3`, `NAME@champion`), a folder, or one of the hub."""
    settings: dict[str, Any] = Field(default_factory=dict)
    training: Training
    scaling: Scaling = Scaling()
    gates: dict[str, Any] = Field(default_factory=dict)
    promotion: dict[str, Any] = Field(default_factory=dict)
    schedule: dict[str, Any] = Field(default_factory=dict, exclude=True)
    monitor: dict[str, Any] = Field(default_factory=dict)
    """Never written anywhere with the rest: whom it notifies is a secret."""

    @property
    def recipe_settings(self) -> RecipeSettings:
        return settings_class(self.recipe)(**self.settings)

    @property
    def learning(self) -> dict[str, Any]:
        """The section `training` as far as it has a meaning: of a recipe fitted in one go, the seed."""
        only = None if self.recipe_settings.trains else {"seed"}
        return self.training.model_dump(mode="json", include=only)

    @property
    def dataset_name(self) -> str:
        return self.dataset.partition("@")[0]


def experiment_path(name: str) -> Path:
    """A file as given; else `NAME.yaml` here, in `experiments/` here, or shipped. Raises WrongInput with choices."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name)
        if not path.is_file():
            raise WrongInput(f"experiment {name}: there is no such file")
        return path
    places = [folder / f"{name}.yaml" for folder in (Path(), Path("experiments"), FOLDER)]
    for path in filter(Path.is_file, places):
        if path != places[-1] and places[-1].is_file() and path.resolve() != places[-1].resolve():
            _say_shadowed(name, path.resolve())
        return path
    files = [path for folder in (Path(), Path("experiments"), FOLDER) for path in folder.glob("*.yaml")]
    shipped = [path.stem for path in files if not path.name.endswith(".odcs.yaml")]
    raise WrongInput(f"experiment '{name}': is unknown; {choices(name, shipped)} (or give a file ending in .yaml)")


@cache
def _say_shadowed(name: str, path: Path) -> None:
    """Once: a command looks an experiment up more than once."""
    print(f"experiment {name}: {path} is taken, not the shipped one of that name", file=sys.stderr)


def load_experiment(name: str, overrides: list[str] | tuple[str, ...] = ()) -> Experiment:
    """The experiment of that name or file, with `key=value` overrides. Raises WrongInput in one line."""
    path = experiment_path(name)
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise WrongInput(f"experiment {path}: is not YAML ({error})") from error
    if not isinstance(body, dict):
        raise WrongInput(f"experiment {path}: holds {type(body).__name__}, not keys and values; see slipway recipes")
    if isinstance(body.get("schedule"), dict):  # YAML 1.1 reads the key `on` as true
        body["schedule"] = {"on" if key is True else key: value for key, value in body["schedule"].items()}
    body.setdefault("name", path.stem.lower())
    _take_length_out(body, overrides)
    for override in overrides:
        _override(body, override)
    return validate_experiment(body, f"experiment {path}")


def validate_experiment(body: dict[str, Any], where: str) -> Experiment:
    """Check a resolved body. Raises WrongInput naming the field, what was found and the nearest key."""
    unknown = [key for key in body if key not in _fields(Experiment)]
    if unknown:
        raise WrongInput(f"{where}: unknown key '{unknown[0]}'; {choices(str(unknown[0]), _fields(Experiment))}")
    if body.get("recipe") not in recipe_names():
        found = body.get("recipe")
        raise WrongInput(f"{where}: recipe '{found}' is unknown; {choices(str(found), recipe_names())}")
    settings = settings_class(body["recipe"])
    try:
        checked = settings(**(body.get("settings") or {}))
    except ValidationError as error:
        raise WrongInput(_one_line(error, where, ("settings",), settings)) from error
    if not settings.trains:
        given = body.get("training") or {}
        if isinstance(given, dict):
            body = {**body, "training": section_of_fit(given, body["recipe"], where)}
    try:
        experiment = Experiment(**{key: value for key, value in body.items() if value is not None})
    except ValidationError as error:
        raise WrongInput(_one_line(error, where, (), Experiment)) from error
    roles = settings.roles
    for role in experiment.sources:
        if role not in roles:
            raise WrongInput(f"{where}: from.{role} is no role of recipe '{experiment.recipe}'; {choices(role, roles)}")
    for role, meaning in roles.items():
        if meaning.startswith("required") and role not in experiment.sources:
            raise WrongInput(f"{where}: from.{role} is missing; recipe '{experiment.recipe}' needs it ({meaning})")
    if settings.trains:
        refuse_settings(experiment.training, experiment.scaling, checked.additive, where)
    else:
        refuse_scaling_of_fit(experiment.scaling, experiment.recipe, where)
    return experiment.model_copy(update={"settings": checked.model_dump(mode="json")})


def _fields(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _one_line(error: ValidationError, where: str, prefix: tuple[str, ...], model: type[BaseModel]) -> str:
    first = error.errors(include_url=False)[0]
    location = [*prefix, *map(str, first["loc"])]
    field = ".".join(location) or "training"
    if first["type"] == "extra_forbidden":
        owner: Any = model
        for name in location[len(prefix) : -1]:
            owner = next(iter(_models(owner.model_fields[name].annotation)), owner)
        return f"{where}: unknown key '{field}'; {choices(location[-1], _fields(owner))}"
    if first["type"] == "missing":
        return f"{where}: '{field}' is missing; add it"
    found = "" if first["type"] == "value_error" else f", found {first['input']!r}"
    return f"{where}: {field}: {first['msg'].removeprefix('Value error, ')}{found}"


def _take_length_out(body: dict[str, Any], overrides: Sequence[str]) -> None:
    """`--set steps=60` takes the place of the file's epochs, `--set epochs=2` that of its steps."""
    given = dict(override.partition("=")[::2] for override in overrides)
    given = {key.removeprefix("training."): text for key, text in given.items()}
    for field, other in (("epochs", "steps"), ("steps", "epochs")):
        replaced = given.get(field, "null") not in ("", "null") and other not in given
        if replaced and isinstance(body.get("training"), dict):
            body["training"].pop(other, None)


def _override(body: dict[str, Any], override: str) -> None:
    """Set one field of the body: `training.seed=1`, or a short key that fits exactly one field (`seed=1`)."""
    key, equals, text = override.partition("=")
    if not equals:
        raise WrongInput(f"--set {override}: has no '='; write --set key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise WrongInput(f"--set {override}: the value is not YAML ({error})") from error
    if value is None:
        value = {} if key == "from" else None
    known = _all_keys(body)
    if key in known:
        full = key
    else:
        fitting = [one for one in known if one.rpartition(".")[2] == key]
        if not fitting:
            short = {one.rpartition(".")[2] for one in known}
            raise WrongInput(f"--set {override}: no field '{key}'; {choices(key, known if '.' in key else short)}")
        if len(fitting) > 1:
            raise WrongInput(f"--set {override}: '{key}' fits {' and '.join(fitting)}; write one of them in full")
        full = fitting[0]
    section, _, field = full.rpartition(".")
    target = body
    for part in section.split(".") if section else ():
        target[part] = target.get(part) or {}
        target = target[part]
    if value is None and section:  # `--set base=` takes the key out: the recipe's default, or no source
        target.pop(field, None)
    else:
        target[field] = value


def _keys(section: str, model: type[BaseModel]) -> list[str]:
    """`section.field` for every field, those of a section inside it included."""
    keys = []
    for name, field in model.model_fields.items():
        keys.append(f"{section}.{name}")
        for inner in _models(field.annotation):
            keys += _keys(f"{section}.{name}", inner)
    return keys


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a field may hold."""
    kinds = get_args(annotation) or (annotation,)
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]


def _all_keys(body: dict[str, Any]) -> list[str]:
    keys = ["name", "recipe", "dataset", "contract", "from", *_keys("training", Training), *_keys("scaling", Scaling)]
    if body.get("recipe") in recipe_names():
        settings = settings_class(body["recipe"])
        keys += [f"settings.{name}" for name in settings.model_fields] + [f"from.{role}" for role in settings.roles]
    for section in ("gates", "promotion", "schedule", "monitor"):
        keys += [f"{section}.{name}" for name in body.get(section) or {}]
    return keys
