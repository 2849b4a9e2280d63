"""Register: read a dataset's source under its contract, unless the source can say that nothing moved."""

import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data_contracts import registry
from data_contracts.contract import Contract, load_contract, shipped
from data_contracts.source import at, load_source
from data_contracts.splits import redrawn
from flows.code_key import code_of
from flows.orchestration import events
from flows.orchestration.orchestration import Run, run_flow
from flows.steps import Outputs, Step, libraries, record
from infra.errors import SlipwayError, WrongInput, choices
from infra.progress import Progress
from infra.settings import Settings
from infra.store import NotFound
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
    if last:
        return Origin(_contract(settings, name, last), source)
    if name in shipped():
        return Origin(load_contract(name), None)
    known = {*shipped(), *(version.name for version in registry.list_versions(settings.object_store))}
    raise WrongInput(
        f"experiment {experiment.name}: dataset '{name}' is not registered; {choices(name, known)} "
        "(slipway data register CONTRACT)"
    )


def _contract(settings: Settings, name: str, last: dict[str, Any]) -> Contract:
    """The contract's file as it is now; where that is gone, as it was when the dataset was last registered."""
    if last["contract_path"] and Path(last["contract_path"]).is_file():
        return load_contract(last["contract_path"])
    return registry.contract_of(settings.object_store, registry.resolve(settings.object_store, name))


def ingest(settings: Settings, contract: Contract, source: str | None) -> tuple[registry.Version, bool]:
    """Register a dataset by hand; the version, and whether it is new. Raises what `registry.register` raises."""

    def body(run: Run) -> tuple[registry.Version, bool]:
        started = time.time()
        version, created = run.task(f"register {contract.name}", partial(_register, settings, contract, source))
        record_registration(settings, contract, version, started)
        if created:
            tell_registered(settings, version)
        counts = [{"rows": name, "count": count} for name, count in version.counts.items()]
        run.table(f"dataset-{contract.name}", counts, f"{version.ref}{'' if created else ', which was there already'}")
        return version, created

    return run_flow(settings, "ingest", contract.name, body)


def _register(
    settings: Settings, contract: Contract, source: str | None, progress: Progress
) -> tuple[registry.Version, bool]:
    cache, store = settings.folder / "cache", settings.object_store
    with suppress(NotFound, SlipwayError):  # none before, or a damaged one, which registering mends
        before = registry.contract_of(store, registry.resolve(store, contract.name))
        if said := redrawn(before, contract):
            progress.tell(said)
    return registry.register(store, contract, source, progress, cache=cache, memory_limit=settings.memory_limit)


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


def record_release(settings: Settings, version: registry.Version, started: float) -> None:
    """The same of a version that corrected rows made."""
    last = registry.registered_from(settings.object_store, version.name)
    if last is not None:
        record_registration(settings, _contract(settings, version.name, last), version, started)


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
        version, created = _register(settings, found.contract, found.source, progress)
        if created:
            tell_registered(settings, version)
        return {"ref": f"{version.name}@{version.digest}"}

    def damage(output: dict[str, Any]) -> str | None:
        try:
            return registry.damage(store, registry.resolve(store, output["ref"]))
        except (NotFound, SlipwayError) as error:
            return f"dataset {output['ref']}: its manifest is missing or altered ({error})"

    return Step(kind="register", subject=found.contract.name, ingredients=ingredients, run=run, damage=damage)
