"""What a model reference means: `name`, `name@candidate`, `name@champion` or `name/3`."""

from flows.models import ModelVersion, names, versions
from flows.promotion.log import champion
from infra.errors import WrongInput, choices
from infra.store import Store


def resolve(store: Store, reference: str) -> ModelVersion:
    """`name` or `name@candidate` (the newest), `name/3`, `name@champion`. Raises WrongInput listing what there is."""
    name, _, alias = reference.partition("@")
    name, _, number = name.partition("/")
    known = versions(store, name)
    if not known:
        raise WrongInput(f"model '{name}': is not registered; {choices(name, names(store))} (slipway train makes one)")
    if number:
        for version in known:
            if str(version.version) == number:
                return version
        raise WrongInput(f"model '{name}': has no version {number}; there is: 1 to {len(known)}")
    if alias in ("", "candidate"):
        return known[-1]
    if alias == "champion":
        entry = champion(store, name)
        if entry is None:
            raise WrongInput(
                f"model '{name}': has no champion yet; gate and promote a candidate (slipway gate {name}), or name "
                f"one: {known[-1].ref} or {name}@candidate"
            )
        return next(version for version in known if version.version == entry.version)
    raise WrongInput(f"model '{reference}': '@{alias}' is unknown; use @candidate, @champion or /NUMBER")
