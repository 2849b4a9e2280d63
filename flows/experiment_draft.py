"""A commented experiment for a registered dataset: trains as it is, and shows what may be set."""

import json
import textwrap
from typing import Any

import yaml

from data_contracts import registry
from data_contracts.contract import Contract
from data_contracts.profile import read_profile
from flows.config import default_gates
from infra.errors import WrongInput
from infra.store import Store
from training.evaluation import load_kind
from training.experiment import Scaling, Training, validate_experiment
from training.recipe import RecipeSettings, recipe_path, recipe_summary, settings_class

WIDTH = 118
CHOSEN = {"batch_size": 32, "learning_rate": 1e-3}
GREY = {"L", "I;16", "F"}
LARGEST_KEPT = 64
"""Pixels of a side, above which a draft keeps the recipe's own size."""
EPOCHS, SAMPLES = 3, 20_000
"""Epochs at least, and of few rows so many more that about so many samples are seen: some 600 steps."""


def draft_experiment(store: Store, recipe: str, reference: str) -> str:
    """YAML text. Raises WrongInput for an unknown recipe or dataset, or one that the recipe cannot learn from."""
    recipe_path(recipe)
    kind = settings_class(recipe)
    version = registry.resolve(store, reference)
    contract = registry.contract_of(store, version)
    needs_label = bool(kind.evaluates) and load_kind(kind.evaluates).needs_label
    if needs_label and contract.label is None:
        raise WrongInput(
            f"dataset {version.ref}: its contract names no label, which recipe '{recipe}' needs; add the custom "
            "property slipway.label and register again"
        )
    kind.check_columns(contract)
    needed = [role for role, meaning in kind.roles.items() if meaning.startswith("required")]
    lines = [
        f"# {recipe_summary(recipe)}",
        f"# Dataset {version.ref}: {version.counts['train']:,} rows to train on, {version.counts['validation']:,} to "
        f"validate, {version.counts['test']:,} to test.",
        "# Lines such as `#name: value` show the defaults. For one run: slipway train NAME --set KEY=VALUE",
        f"recipe: {recipe}",
        f"dataset: {reference}",
    ]
    lines += _roles(kind, needed)
    lines += ["", "settings:  # of the recipe", *_fields(kind, _pictures(kind, store, version, contract))]
    if kind.trains:
        epochs = max(EPOCHS, SAMPLES // max(1, version.counts["train"]))
        lines += ["", "training:", *_fields(Training, {"epochs": epochs, **CHOSEN})]
        lines += ["", "scaling:  # where it runs; changes no result", *_fields(Scaling, {"workers": 1})]
    else:
        lines += ["", "training:  # fitted in one go, in one process", "  seed: 0"]
    if kind.evaluates:
        lines += _gates(kind.evaluates, _majority(store, version, contract.label) if needs_label else None)
    text = "\n".join(lines) + "\n"
    if not needed:
        validate_experiment({"name": "draft", **yaml.safe_load(text)}, f"draft of {recipe}")
    return text


def _pictures(
    kind: type[RecipeSettings], store: Store, version: registry.Version, contract: Contract
) -> dict[str, Any]:
    """The settings that the dataset's pictures ask for: colour, where some have it, and their size, where all are small
    squares of one that the recipe can take."""
    if not {"channels", "image_size"} <= kind.model_fields.keys():
        return {}
    image = next(name for name in contract.inputs if name in contract.images)
    columns = read_profile(store, version)["columns"]
    modes, *sides = (
        list(columns.get(f"{image}_{fact}", {}).get("categories") or {}) for fact in ("mode", "width", "height")
    )
    found: dict[str, Any] = {} if set(modes) <= GREY else {"channels": 3}
    if len(sides[0]) == 1 and sides[0] == sides[1] and int(sides[0][0]) <= LARGEST_KEPT:
        found["image_size"] = int(sides[0][0])
        try:
            kind(**found)
        except ValueError:  # it cannot be halved or cut into patches: the default can
            del found["image_size"]
    return found


def _roles(kind: type[RecipeSettings], needed: list[str]) -> list[str]:
    if not kind.roles:
        return []
    lines = ["", "from:  # an experiment's name, MODEL@champion, or a folder"]
    for role, meaning in kind.roles.items():
        lines += [
            *_comment(meaning),
            f"  {role}: EXPERIMENT" if role in needed else f"  #{role}: EXPERIMENT_OR_FOLDER",
        ]
    return lines


def _fields(model: Any, chosen: dict[str, Any]) -> list[str]:
    """Every field with its meaning; those not chosen as comments that show their defaults."""
    lines = []
    for name, field in model.model_fields.items():
        lines += _comment(field.description or "")
        if name in chosen:
            lines.append(f"  {name}: {json.dumps(chosen[name])}")
        else:
            default = field.get_default(call_default_factory=True)
            value = default.model_dump(mode="json") if hasattr(default, "model_dump") else default
            lines.append(f"  #{name}: {json.dumps(value)}")
    return lines


def _comment(text: str) -> list[str]:
    return [f"  # {line}" for line in textwrap.wrap(" ".join(text.split()), WIDTH - 4)]


def _gates(kind: str, majority: float | None) -> list[str]:
    """majority: the share of the most frequent label, where a threshold is drafted from it."""
    lines = ["", "gates:  # what must hold before a model may be champion"]
    if majority is not None:
        lines += _comment(f"{majority:.2f} is what always answering the most frequent label reaches: raise the minimum")
    for name, settings in default_gates(kind).items():
        values = settings
        if name == "threshold" and majority is not None:
            values = {**settings, "minimum": min(0.99, round(majority + 0.05, 2))}
        body = ", ".join(f"{key}: {value}" for key, value in values.items())
        lines.append(f"  {name}: {{{body}}}")
    return [*lines, "", "promotion:", "  policy: automatic"]


def _majority(store: Store, version: registry.Version, label: str | None) -> float:
    """The share of the most frequent label."""
    column = read_profile(store, version)["columns"].get(label, {})
    counts = list((column.get("categories") or {}).values())
    return max(counts, default=0) / max(sum(counts), 1)
