"""What the roles of `from:` mean: another experiment's model, a registered model, or a folder with one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import model_hub, references
from flows.models import versions
from flows.steps import Outputs
from infra import artifacts
from infra.digests import digest, digest_file
from infra.errors import WrongInput
from infra.settings import Settings
from training.experiment import Experiment, experiment_path

WEIGHTS = ("*.safetensors", "*.json", "*.txt")
"""Of a model's folder, the files that decide what is loaded from it."""
PLACEHOLDERS = ("EXPERIMENT", "EXPERIMENT_OR_FOLDER")
"""What a drafted experiment has where a name is to be written."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class Source:
    """One role's source. Exactly one of `experiment`, `model` and `folder` is set."""

    role: str
    experiment: str = ""
    model: str = ""
    """Digest of a `models` artifact."""
    folder: str = ""

    def place(self, outputs: Outputs) -> dict[str, str]:
        """As a worker is told."""
        if self.folder:
            return {"folder": self.folder}
        return {"digest": self.model or outputs[f"train {self.experiment}"]["model"]}

    def files(self, settings: Settings, outputs: Outputs) -> dict[str, str]:
        """File name -> sha256."""
        if self.folder:
            root = Path(self.folder)
            paths = sorted(path for pattern in WEIGHTS for path in root.glob(pattern))
            return {path.name: digest_file(path) for path in paths}
        found = artifacts.load(settings.object_store, "models", self.place(outputs)["digest"])
        return {name: entry["sha256"] for name, entry in found.files.items()}

    def digest(self, settings: Settings, outputs: Outputs) -> str:
        return digest(self.files(settings, outputs)) if self.folder else self.place(outputs)["digest"]

    def local(self, settings: Settings, outputs: Outputs) -> Path:
        """A folder on this machine with the model's files."""
        if self.folder:
            return Path(self.folder)
        store = settings.object_store
        return artifacts.fetch(store, artifacts.load(store, "models", self.place(outputs)["digest"]))


def read_sources(settings: Settings, experiment: Experiment) -> dict[str, Source]:
    """Raises WrongInput for a source that is neither an experiment, a registered model, a folder nor on the hub."""
    found: dict[str, Any] = {}
    for role, value in experiment.sources.items():
        where = f"experiment {experiment.name}: from.{role}"
        path = Path(value).expanduser()
        if path.is_dir():
            refuse_pickles(path, where)
            found[role] = Source(role, folder=str(path.absolute()))
        elif value in PLACEHOLDERS:
            raise WrongInput(f"{where}: {value} stands for a name; write that of your experiment, or MODEL@champion")
        elif ("@" in value and "/" not in value) or _is_version(settings, value):
            found[role] = Source(role, model=references.resolve(settings.object_store, value).model)
        elif model_hub.NAME.fullmatch(value):
            found[role] = Source(
                role, folder=str(model_hub.fetch_model(value, settings.folder / "cache" / "hub", where))
            )
        elif "/" in value or value.startswith("."):
            raise WrongInput(f"{where}: '{value}' is no folder here; give one with config.json and .safetensors files")
        else:
            try:
                experiment_path(value)
            except WrongInput as error:
                raise WrongInput(f"{where}: neither a folder nor an experiment; {error}") from error
            found[role] = Source(role, experiment=value)
    return found


def _is_version(settings: Settings, value: str) -> bool:
    """Whether `value` is NAME/NUMBER of a model registered here; the hub's OWNER/NAME looks alike."""
    name, _, number = value.partition("/")
    return number.isdigit() and bool(versions(settings.object_store, name))


def refuse_pickles(folder: Path, where: str) -> None:
    """Raises WrongInput for a folder whose weights could run code when loaded, and are nowhere as safetensors."""
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles and not any(folder.glob("*.safetensors")):
        raise WrongInput(
            f"{where}: {folder} holds its weights as a pickle only ({pickles[0]}), which is refused because loading it "
            "can run code; save it again with save_pretrained, which writes .safetensors"
        )
