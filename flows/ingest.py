"""Register: read a dataset's source under its contract, unless the source can say that nothing moved."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_contracts import registry
from data_contracts.contract import Contract, load_contract, shipped
from data_contracts.source import at, load_source
from flows import events
from flows.code_key import code_of
from flows.steps import Outputs, Step, libraries, record
from infra.errors import WrongInput, choices
from infra.progress import Progress
from infra.settings import Settings
from training.experiment import Experiment


@dataclass(frozen=True)
class Origin:
    """Where a dataset comes from."""

    contract: Contract
    source: str | None
    """The source given by hand at the last registration; None: the contract's server."""


def origin(settings: Settings, experiment: Experiment) -> Origin:
    """The contract the experiment names; else the one the dataset was last registered with; else one shipped."""
    name = experiment.dataset_name
    last = registry.registered_from(settings.object_store, name)
    source = last["source"] if last else None
    if experiment.contract:
        return Origin(load_contract(experiment.contract), source)
    if last and last["contract_path"] and Path(last["contract_path"]).is_file():
        return Origin(load_contract(last["contract_path"]), source)
    if last:
        version = registry.resolve(settings.object_store, name)
        return Origin(registry.contract_of(settings.object_store, version), source)
    if name in shipped():
        return Origin(load_contract(name), None)
    known = {*shipped(), *(version.name for version in registry.list_versions(settings.object_store))}
    raise WrongInput(
        f"experiment {experiment.name}: dataset '{name}' is not registered; {choices(name, known)} "
        "(slipway data register CONTRACT)"
    )


def register_step(settings: Settings, experiment: Experiment) -> Step:
    return _step(settings, origin(settings, experiment))


def record_registration(settings: Settings, contract: Contract, version: registry.Version, started: float) -> None:
    """Let plans know of a registration made by hand, so that `retrain` does not read the same data again."""
    last = registry.registered_from(settings.object_store, contract.name)
    if last is None or last["digest"] != version.digest:
        return  # somebody else's registration came in between: a plan will look for itself
    step = _step(settings, Origin(contract, last["source"]))
    # What the source said of itself before it was read, not now: it may have moved meanwhile.
    ingredients = {**step.ingredients({}), "moved": last["fingerprint"]}
    record(settings.object_store, step, ingredients, {"ref": f"{version.name}@{version.digest}"}, started, [])


def tell_registered(settings: Settings, version: registry.Version) -> None:
    ref = f"{version.name}@{version.digest}"
    events.emit(settings, events.VERSION_REGISTERED, version.name, {"version": ref, "counts": version.counts})


def _step(settings: Settings, found: Origin) -> Step:
    store = settings.object_store

    def ingredients(outputs: Outputs) -> dict[str, Any]:
        contract = at(found.contract, found.source)
        source = load_source(contract.source)
        corrections = registry.num_corrections(store, found.contract.name)
        return {
            "contract": found.contract.digest,
            "source": {"type": contract.source, "uri": found.source or ""},
            "moved": source.fingerprint(contract, found.source, settings.folder / "cache"),
            **({"corrections": corrections} if corrections else {}),
            "code": code_of(["data_contracts.registry", f"data_contracts.sources.{contract.source}"]),
            "libraries": libraries("pyarrow", "great_expectations"),
        }

    def run(outputs: Outputs, progress: Progress, key: str) -> dict[str, Any]:
        version, created = registry.register(
            store,
            found.contract,
            found.source,
            progress,
            cache=settings.folder / "cache",
            memory_limit=settings.memory_limit,
        )
        if created:
            tell_registered(settings, version)
        return {"ref": f"{version.name}@{version.digest}"}

    def damage(output: dict[str, Any]) -> str | None:
        return registry.damage(store, registry.resolve(store, output["ref"]))

    return Step(kind="register", subject=found.contract.name, ingredients=ingredients, run=run, damage=damage)
