"""The run spent no more energy, or emitted no more, than its budget: kWh and kg of CO2e from its own log."""

from typing import Any, Self

from pydantic import Field, model_validator

from flows.judging.evidence import Cited, Evidence, MissingEvidence, Subject
from flows.judging.gate import Gate, Verdict
from infra.digests import digest_bytes


class Energy(Gate):
    """As codecarbon estimated it while the run trained (its method: https://mlco2.github.io/codecarbon). Of this run
    alone, not of what it was built from."""

    maximum_kwh: float | None = Field(default=None, gt=0)
    """Of electricity, in kWh, over all attempts of the run."""
    maximum_co2_kg: float | None = Field(default=None, gt=0)
    """Of greenhouse gases, in kg of CO2e."""

    @model_validator(mode="after")
    def has_a_budget(self) -> Self:
        if self.maximum_kwh is None and self.maximum_co2_kg is None:
            raise ValueError("set maximum_kwh or maximum_co2_kg")
        return self

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        spent, proof = run_energy(evidence, candidate)
        budgets = {"energy_kwh": self.maximum_kwh, "co2_kg": self.maximum_co2_kg}
        units = {"energy_kwh": "kWh", "co2_kg": "kg of CO2e"}
        asked = {name: budget for name, budget in budgets.items() if budget is not None}
        for name in asked:
            if name not in spent:
                raise MissingEvidence(f"run {candidate.run}: its log does not say how many {units[name]} it took")
        over = [name for name, budget in asked.items() if spent[name] > budget]
        named = over[0] if over else next(iter(asked))
        seen = " and ".join(f"{spent[name]:.4g} {units[name]}" for name in units if name in spent)
        allowed = " and ".join(f"{budget:g} {units[name]}" for name, budget in asked.items())
        return self.verdict(
            not over,
            f"Training took {seen}, {'more than' if over else 'within'} the budget of {allowed}.",
            proof,
            measure=f"{units[named]} of the run",
            observed=spent[named],
            threshold=asked[named],
        )


def run_energy(evidence: Evidence, subject: Subject) -> tuple[dict[str, float], Cited]:
    """energy_kwh and co2_kg of the subject's run, as far as its log holds them, and the entry that says so.

    Raises MissingEvidence where it holds neither."""
    from training.run_log import RunLog

    found: dict[str, float] = {}
    proof = None
    for entry in RunLog(evidence.store, subject.run).entries():
        if entry["kind"] not in ("energy", "finished"):
            continue
        said: dict[str, Any] = {name: entry[name] for name in ("energy_kwh", "co2_kg") if entry.get(name) is not None}
        if said:
            found |= {name: float(value) for name, value in said.items()}
            proof = f"runs/{subject.run}/log/{entry['sequence']:012d}.json"
    if proof is None:
        raise MissingEvidence(f"run {subject.run}: its log holds no energy figure; was it trained without codecarbon?")
    return found, Cited(proof, digest_bytes(evidence.store.get(proof)))
