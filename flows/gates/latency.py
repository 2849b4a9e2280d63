"""The packaged model answers fast enough: milliseconds a request of one row, in a clean process after warm-up."""

from typing import Self

from pydantic import Field, model_validator

from flows.judging.evidence import Evidence, MissingEvidence, Subject
from flows.judging.gate import Gate, Verdict

MINIMUM_REQUESTS = 20


class Latency(Gate):
    """Through `mlflow.pyfunc`, its check of the input included, without a network between. What is measured is this
    machine's, and other work on it counts: a budget leaves room for that."""

    p95_ms: float | None = Field(default=None, gt=0)
    """At most this for 95 of 100 requests."""
    p50_ms: float | None = Field(default=None, gt=0)
    """At most this for half of them."""

    @model_validator(mode="after")
    def has_a_budget(self) -> Self:
        if self.p95_ms is None and self.p50_ms is None:
            raise ValueError("set p95_ms or p50_ms, in milliseconds a request")
        return self

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        from statistics import quantiles

        trial = evidence.trial(candidate)
        times = trial.found["request_ms"]
        if trial.failure:
            raise MissingEvidence(f"the package {trial.failure}")
        if len(times) < MINIMUM_REQUESTS:
            raise MissingEvidence(
                f"the package answered {len(times)} requests in {sum(times) / 1000:.0f} s, of {MINIMUM_REQUESTS} needed"
            )
        cuts = quantiles(times, n=20, method="inclusive")
        measured = {"p50": cuts[9], "p95": cuts[18]}
        budgets = {name: budget for name, budget in (("p95", self.p95_ms), ("p50", self.p50_ms)) if budget is not None}
        over = [name for name, budget in budgets.items() if measured[name] > budget]
        named = over[0] if over else next(iter(budgets))
        machine = trial.found["machine"]
        seen = (
            f"One request takes {measured['p50']:.1f} ms (p50) and {measured['p95']:.1f} ms (p95) over {len(times)} "
            f"requests of one row after warm-up, on {machine['cores']} cores"
        )
        allowed = " and ".join(f"{name} {budget:g} ms" for name, budget in budgets.items())
        return self.verdict(
            not over,
            f"{seen}; the budget is {allowed}."
            if not over
            else f"{seen}, over the budget of {allowed}; a smaller model or more cores would change it.",
            trial.file,
            measure=f"{named} in ms a request",
            observed=measured[named],
            threshold=budgets[named],
        )
