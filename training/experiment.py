"""An experiment: recipe + dataset + settings, one YAML, validated into frozen, typed configuration.

Gates, promotion, schedule and monitor are part of the same file and stay as they are here: `flows.config` reads them.
"""

from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from infra.errors import WrongInput, choices
from training.recipe import RecipeSettings, recipe_names, settings_class
from training.refusals import refuse_scaling_of_fit, refuse_settings, section_of_fit

FOLDER = Path(__file__).parent / "experiments"


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True)


class Budget(Strict):
    """What a run may take, all its attempts together. Used up, it stops after a checkpoint; raised, it goes on."""

    hours: float | None = Field(None, gt=0)
    kwh: float | None = Field(None, gt=0)
    """Energy as codecarbon estimates it, over all nodes."""
    kgco2e: float | None = Field(None, gt=0)
    """CO2 that goes with the energy, by the setting `country`."""


class EarlyStopping(Strict):
    """When the run ends before its last step: once a validation metric no longer improves."""

    metric: str
    """As the validation measures call it: `loss`, `accuracy`."""
    patience: int = Field(3, ge=1)
    """Looks at the validation split without improvement before the run ends."""
    minimum_change: float = Field(0.0, ge=0)
    """What counts as an improvement, in the metric's own unit."""
    mode: Literal["minimum", "maximum"] | None = None
    """Which end of the metric is the better one; null: losses, errors and perplexities fall, all else rises."""


class Training(Strict):
    """How long and how fast; the same fields for every recipe."""

    epochs: float | None = Field(None, gt=0, le=100_000)
    """Passes over the training split; give this or `steps`."""
    steps: int | None = Field(None, ge=1)
    """Optimiser steps; give this or `epochs`."""
    batch_size: int = Field(32, ge=1, le=1_000_000)
    """Samples per optimiser step over all workers together, whatever their number."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Samples a worker holds at once; a smaller one needs less memory and changes no result. None: its whole share."""
    learning_rate: float = Field(1e-3, gt=0, le=10)
    """Peak learning rate."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warm-up, to 0."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = Field(0.01, ge=0, le=10)
    """Decoupled weight decay, on matrices only (no biases, no norms)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates; the first is SGD's momentum."""
    clip_norm: float | None = Field(1.0, gt=0)
    """Largest norm of the whole gradient; None: not clipped."""
    seed: int = Field(0, ge=0, lt=2**31)
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """auto: bf16 on a GPU that has it, float32 elsewhere (bf16 is slower on a CPU without native support)."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay per step of an exponential moving average of the weights; the averaged ones are validated and saved."""
    keep: Literal["last", "best"] = "last"
    """Which weights become the model: those of the last step, or the best that a look at the validation split saw."""
    best_by: str | None = None
    """The validation metric that `keep: best` goes by; null: that of `early_stopping`, else the first loss."""
    early_stopping: EarlyStopping | None = None
    compile: bool = False
    """torch.compile the model's layers: minutes at the start, faster steps after."""
    activation_checkpointing: bool = False
    """Compute each layer's activations again in the backward pass instead of keeping them: about a third more time for
    a fraction of the memory, and the same results."""
    diagnose_every: int | None = Field(50, ge=1)
    """Steps between two looks into the layers (gradient, update, dead and saturated units); null: none."""
    validate_every: float = Field(1.0, gt=0)
    """Epochs between two looks at the validation split; there is always one at the end."""
    checkpoint_every_s: float = Field(60, gt=0)
    """Seconds between two checkpoints."""
    checkpoint_every_steps: int | None = Field(None, ge=1)
    """Steps between two checkpoints, beside the seconds: whichever comes first."""
    keep_checkpoints: int = Field(2, ge=1)
    """Newest checkpoints that are kept, beside the best one."""
    budget: Budget | None = None

    @model_validator(mode="after")
    def _one_length(self) -> "Training":
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of 'epochs' and 'steps'")
        if self.best_by and self.keep != "best":
            raise ValueError("best_by says what 'keep: best' goes by; add that, or take best_by out")
        return self

    def num_steps(self, num_samples: int) -> int:
        """Optimiser steps of the whole run."""
        if self.steps is not None:
            return self.steps
        return max(1, -(-int((self.epochs or 0) * num_samples) // self.batch_size))


class Scaling(Strict):
    """Where it runs. Not part of what a result depends on: another number of workers trains the same model."""

    workers: int = Field(1, ge=1, le=4096)
    gpus_per_worker: float = Field(0, ge=0, le=8)
    sharding: Literal["ddp", "fsdp"] = "ddp"
    """ddp: each worker holds the whole model. fsdp: each holds a part of weights and optimiser state (FSDP2), for
    models too large for one; results are equal to 1e-6, and to the bit for resuming under the same choice."""
    max_failures: int = Field(2, ge=0)
    """How often a dead worker is replaced before the run gives up."""


class Experiment(Strict):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    """The model's name; by default the file's."""
    recipe: str
    dataset: str
    """`name`, `name@tag` or `name@digest`."""
    contract: str | None = None
    """The dataset's contract file, read by `retrain`; by default the one it was registered with."""
    sources: dict[str, str] = Field(default_factory=dict, alias="from")
    """Role -> an experiment's name, `MODEL@champion`, or a folder with a model."""
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
    for folder in (Path(), Path("experiments"), FOLDER):
        path = folder / f"{name}.yaml"
        if path.is_file():
            return path
    files = [path for folder in (Path(), Path("experiments"), FOLDER) for path in folder.glob("*.yaml")]
    shipped = [path.stem for path in files if not path.name.endswith(".odcs.yaml")]
    raise WrongInput(f"experiment '{name}': is unknown; {choices(name, shipped)} (or give a file ending in .yaml)")


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
        refuse_settings(experiment, settings.additive, where)
    else:
        refuse_scaling_of_fit(experiment, where)
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
