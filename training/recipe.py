"""What a recipe is, read without torch: its settings, its roles, where it lies. How it learns: `training.task`, `fit`.

`training/recipes/<name>.py` adds a recipe. It holds a docstring (a lab sheet: paper, how ours differs, command,
hardware and time, expected figure), a frozen class `Settings(RecipeSettings)`, and a class `Recipe`: of
`training.task.Recipe` where gradients train it, of `training.fit.Recipe` where it is fitted in one go.
Plans, listings and checks of experiments read only the docstring and `Settings`, so torch is not imported for them.
"""

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from infra import artifacts
from infra.errors import WrongInput, choices
from infra.store import Store
from training import columns

if TYPE_CHECKING:
    import pyarrow

FOLDER = Path(__file__).parent / "recipes"


class RecipeSettings(BaseModel):
    """Base of every recipe's `Settings`: frozen, unknown keys refused, each field with its unit and meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    roles: ClassVar[dict[str, str]] = {}
    """What `from:` may name -> one line of what it gives. A role whose line starts with "required" must be given."""
    prepare_reads: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Role -> the files of its source that preparing reads: a change of the others prepares nothing again."""
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    """Name -> settings; `tiny` trains in seconds on a CPU and is what the shared tests build."""
    example_sources: ClassVar[dict[str, str]] = {}
    """Role -> the recipe whose model the shared tests give it: that recipe's `tiny`, trained on its examples."""
    trains: ClassVar[bool] = True
    """Whether gradients train it, in the loop; when not, it is fitted in one go (`training.fit`)."""
    reads: ClassVar[str] = "text"
    """The kind of data ("text", "table", "image"): the shared tests bring examples of it, the evaluation a baseline for
    it."""
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "numpy")
    """Those that what is learned depends on: another version of one trains again."""
    evaluates: ClassVar[str] = ""
    """The kind of evaluation its models get ("classification"); empty: only the loop's own validation metrics."""

    @staticmethod
    def check_columns(contract: Any) -> None:
        """Raises WrongInput for a contract whose columns the recipe cannot read, by the rules of training.columns."""
        columns.no_images(contract)

    @property
    def additive(self) -> bool:
        """Whether the losses sum over samples, as `Task.additive` says: else a batch is never split."""
        return True

    def learns_from(self, train: "pyarrow.Table", label: str | None) -> "pyarrow.Table":
        """Those rows of the training split that are learned from; a simple model beside it learns from the same."""
        return train

    @classmethod
    def prepare_fields(cls) -> set[str]:
        """The settings that what is prepared depends on: changing another prepares nothing again."""
        return {
            name
            for name, field in cls.model_fields.items()
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("stage") == "prepare"
        }


def prepared_by(default: Any = ..., **constraints: Any) -> Any:
    """A settings field that the prepare step depends on."""
    return Field(default, json_schema_extra={"stage": "prepare"}, **constraints)


class FewLabels(RecipeSettings):
    """The settings of recipes that may learn from a few labels of each class: what little labelled data would give."""

    labels_per_class: int | None = prepared_by(None, ge=1)
    """Training rows of each label that are learned from, all of a label that has fewer; null: every row."""
    draw: int = prepared_by(0, ge=0)
    """Which of the many possible such draws."""

    def learns_from(self, train: "pyarrow.Table", label: str | None) -> "pyarrow.Table":
        if self.labels_per_class is None or label is None:
            return train
        import numpy as np

        # By row id and a generator of each label's own, so that neither order nor another label changes a draw.
        train = train.filter(train[label].is_valid())
        ids, answers = (np.array(train[name].to_pylist(), dtype=object).astype(str) for name in ("row_id", label))
        chosen: list[int] = []
        for number, one in enumerate(np.unique(answers)):
            rows = np.flatnonzero(answers == one)
            rows = rows[np.argsort(ids[rows])]
            chosen.extend(np.random.default_rng([self.draw, number]).permutation(rows)[: self.labels_per_class])
        return train.take(np.sort(chosen))


def check_heads(hidden_size: int, num_heads: int) -> None:
    """Raises ValueError, for a validator of settings, where the heads of attention cannot share the width."""
    if over := hidden_size % num_heads:
        raise ValueError(
            f"hidden_size {hidden_size} is no multiple of num_heads {num_heads}; "
            f"write hidden_size {hidden_size - over + num_heads}, or another num_heads"
        )


class EncoderSettings(RecipeSettings):
    """The settings of recipes that begin with a text encoder: a BERT of these sizes, or the one of `from.base`."""

    prepare_reads: ClassVar[dict[str, tuple[str, ...]]] = {"base": ("tokenizer.json",)}
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {"vocab_size": 200, "max_length": 24, "hidden_size": 32, "intermediate_size": 64}
    }

    vocab_size: int = prepared_by(8000, ge=100, le=1_000_000)
    """Entries of the WordPiece vocabulary trained here; unused with `from.base`."""
    max_length: int = prepared_by(64, ge=8, le=512)
    """Tokens of a text or pair, the special ones included; longer ones are cut and counted."""
    hidden_size: int = Field(128, ge=8, le=8192)
    """Width of the encoder; unused with `from.base`, as are the next three."""
    num_layers: int = Field(2, ge=1, le=96)
    num_heads: int = Field(2, ge=1, le=128)
    intermediate_size: int = Field(512, ge=8, le=65536)
    """Width of the feed-forward layers."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """On embeddings, attention and feed-forward outputs of an encoder built here, and on what is read off it."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        check_heads(self.hidden_size, self.num_heads)
        return self


class ImageSettings(RecipeSettings):
    """The settings of recipes that read pictures, each made square and resized (rules: training.images)."""

    reads: ClassVar[str] = "image"
    libraries: ClassVar[tuple[str, ...]] = ("torch", "numpy", "pillow")
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"image_size": 8}}

    @staticmethod
    def check_columns(contract: Any) -> None:
        columns.one_image(contract)

    image_size: int = prepared_by(28, ge=4, le=1024)
    """Side in pixels that every picture is brought to."""
    channels: Literal[1, 3] = prepared_by(1)
    """1: grey; 3: red, green, blue."""


class CodecSettings(ImageSettings):
    """The settings of recipes that bring pictures down to a small grid of vectors and back (training.convolutions)."""

    evaluates: ClassVar[str] = "reconstruction"
    halvings: int = Field(2, ge=0, le=8)
    """How often the side is halved on the way to the grid: 28 pixels become 7 places by 2."""
    hidden_size: int = Field(64, ge=1, le=4096)
    """Channels of the convolutions; a multiple of 8 is normalised in groups of 8."""
    num_blocks: int = Field(1, ge=0, le=32)
    """Residual blocks of two convolutions at each size, of encoder and decoder each."""

    @model_validator(mode="after")
    def _size_can_be_halved(self) -> Self:
        if over := self.image_size % 2**self.halvings:
            raise ValueError(
                f"image_size {self.image_size} cannot be halved {self.halvings} times; write image_size "
                f"{self.image_size - over + 2**self.halvings}, or fewer halvings"
            )
        return self


class PatchSettings(ImageSettings):
    """The settings of recipes that begin with a vision transformer of these sizes, or the one of `from.base`."""

    libraries: ClassVar[tuple[str, ...]] = (*ImageSettings.libraries, "transformers")
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {"image_size": 8, "patch_size": 2, "hidden_size": 32, "num_layers": 2, "intermediate_size": 64}
    }

    @staticmethod
    def check_columns(contract: Any) -> None:
        columns.image_alone(contract)

    patch_size: int = Field(4, ge=1, le=256)
    """Side in pixels of the squares that a picture is cut into; unused with `from.base`, as are the next four."""
    hidden_size: int = Field(128, ge=8, le=8192)
    """Width of the transformer."""
    num_layers: int = Field(4, ge=1, le=96)
    num_heads: int = Field(4, ge=1, le=128)
    intermediate_size: int = Field(512, ge=8, le=65536)
    """Width of the feed-forward layers."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """On embeddings, attention, feed-forward outputs, and on what is read off them."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_heads(self.hidden_size, self.num_heads)
        if over := self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}; "
                f"write image_size {self.image_size - over + self.patch_size}, or another patch_size"
            )
        return self


class Augmentation(BaseModel):
    """What chance does to a training picture, anew each epoch (`training.images.augment`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    shift: float = Field(0.0, ge=0, le=0.5)
    """Share of the side that it moves at most, each way."""
    rotate: float = Field(0.0, ge=0, le=180)
    """Degrees that it turns at most, each way."""
    zoom: float = Field(0.0, ge=0, lt=1)
    """It grows or shrinks by at most this share."""
    flip: bool = False
    """Left and right change places half of the time."""


class ImageClassifierSettings(ImageSettings, FewLabels):
    """The settings of recipes that tell what a picture shows."""

    evaluates: ClassVar[str] = "classification"

    @staticmethod
    def check_columns(contract: Any) -> None:
        columns.image_alone(contract)

    augmentation: Augmentation = Augmentation()
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each target spread evenly over all labels (Szegedy et al., CVPR 2016, §7)."""
    calibrate: Literal["none", "temperature"] = "none"
    """`temperature`: after training one number is fitted to the validation split and packaged with the model, so that
    it is as sure as it is right (training.temperature)."""


class DistillationSettings(RecipeSettings):
    """The settings of recipes whose student learns from a trained model: see `training.distilled`."""

    prepare_reads: ClassVar[dict[str, tuple[str, ...]]] = {"teacher": ("tokenizer.json",), "base": ("tokenizer.json",)}
    keep_every: int = Field(2, ge=1, le=96)
    """One in so many of the layers that the student begins with is kept, the first among them: 2 keeps every second."""
    temperature: float = Field(2.0, gt=0)
    """By which both's logits are divided in the soft loss: the higher, the more the unlikely answers tell."""
    alpha_hard: float = Field(2.0, ge=0)
    """Weight of the cross-entropy with the data's own answers."""
    alpha_soft: float = Field(5.0, ge=0)
    """Weight of T^2 x the KL divergence from the teacher's answers; with alpha_hidden 0 too, nothing is distilled."""
    alpha_hidden: float = Field(1.0, ge=0)
    """Weight of 1 - cosine between the last hidden states of both, for each token."""


class LowRankSettings(RecipeSettings):
    """The settings of recipes that adapt a transformer by low-rank matrices: see `training.low_rank`."""

    rank: int = Field(8, ge=1, le=1024)
    """Columns of B and rows of A."""
    alpha: int = Field(16, ge=1)
    """The products count alpha / rank times."""
    target_layers: tuple[str, ...] = ("query", "value")
    """The body's linear layers that are adapted, by the last part of their name (§4.2 of the paper: these two)."""
    adapter_dropout: float = Field(0.0, ge=0, lt=1)
    """On what the small matrices read."""

    @model_validator(mode="after")
    def _adapts_something(self) -> Self:
        if not self.target_layers:
            raise ValueError("target_layers is empty; name layers, or take the recipe that trains every weight")
        if getattr(self, "freeze_encoder", False):
            raise ValueError("freeze_encoder: the encoder's own weights are frozen here anyway; leave it out")
        return self


def recipe_path(name: str) -> Path:
    """Raises WrongInput, listing the recipes, when there is none of that name."""
    path = FOLDER / f"{name}.py"
    if not name.isidentifier() or not path.is_file():
        raise WrongInput(f"recipe '{name}': is unknown; {choices(name, recipe_names())}")
    return path


def recipe_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def recipe_summary(name: str) -> str:
    """The first line of the recipe's docstring."""
    return (ast.get_docstring(ast.parse(recipe_path(name).read_text(encoding="utf-8"))) or "").partition("\n")[0]


@cache
def settings_class(name: str) -> type[RecipeSettings]:
    """The recipe's `Settings`, without running the rest of its file: that imports torch, which takes seconds.

    What is run of the file: its class `Settings`, its imports from the standard library, pydantic, this module and
    training.columns, and another recipe's `Settings` where it imports them to add to them.
    """
    path = recipe_path(name)
    kept: list[ast.stmt] = []
    namespace: dict[str, Any] = {"__name__": f"training.recipes.{name}"}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        module = (isinstance(node, ast.ImportFrom) and node.module) or ""
        light = module in ("typing", "pydantic", "training.recipe", "training.columns")
        if light or (isinstance(node, ast.ClassDef) and node.name == "Settings"):
            kept.append(node)
        elif isinstance(node, ast.ImportFrom) and module.startswith("training.recipes."):
            for alias in node.names:
                if alias.name == "Settings":
                    namespace[alias.asname or alias.name] = settings_class(module.rpartition(".")[2])
    exec(compile(ast.Module(kept, type_ignores=[]), str(path), "exec"), namespace)
    return namespace["Settings"]


def load_recipe(name: str) -> Any:
    """The module of a recipe; imports torch where gradients train it."""
    import importlib

    recipe_path(name)
    return importlib.import_module(f"training.recipes.{name}")


def source_folders(store: Store, sources: Mapping[str, dict[str, str]]) -> dict[str, Path]:
    """The local folder of each role's source, its files verified. sources: as `training.launch.Request` has them."""
    return {
        role: Path(source["folder"])
        if "folder" in source
        else artifacts.fetch(store, artifacts.load(store, "models", source["digest"]))
        for role, source in sources.items()
    }
