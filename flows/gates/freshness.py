"""The data it was trained on are no older than their contract promises (ODCS slaProperties: latency, freshness)."""

from pydantic import Field

from flows.judging.evidence import Cited, Evidence, MissingEvidence, Subject
from flows.judging.gate import Gate, Verdict
from infra.digests import digest_bytes
from infra.errors import SlipwayError


class Freshness(Gate):
    maximum_age_days: float | None = Field(default=None, gt=0)
    """Stricter than the contract, or for one that promises nothing. The stricter of the two counts."""

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        from data_contracts.freshness import data_time, promised

        version, manifest = evidence.version(candidate)
        contract = evidence.contract(candidate)
        promise = promised(contract)
        limits = [promise.days] if promise else []
        limits += [self.maximum_age_days] if self.maximum_age_days else []
        if not limits:
            raise MissingEvidence(
                f"contract {contract.name} promises no age; add slaProperties {{property: latency, value: 7, unit: d}} "
                "to it, or set gates.freshness.maximum_age_days"
            )
        if promise and promise.column:
            evidence.data_file(candidate, "profile")  # verified before it is believed
        try:
            dated = data_time(evidence.store, version, promise.column if promise else None)
        except SlipwayError as error:
            raise MissingEvidence(str(error)) from error
        limit = min(limits)
        age = (evidence.clock() - dated.moment).total_seconds() / 86400
        seen = f"{dated.meaning} on {dated.moment:%Y-%m-%d %H:%M} UTC"
        # A day is the most that two time zones can differ for a date without one.
        in_future = age < -1
        if in_future:
            sentence = f"The data of {version.ref} claim to be from the future: {seen}; mend the clock or the column."
        elif age > limit:
            sentence = (
                f"The data of {version.ref} are {age:.1f} days old ({seen}), more than the {limit:g} allowed; "
                "register newer data and train again."
            )
        else:
            sentence = f"The data of {version.ref} are {max(age, 0):.1f} days old ({seen}); {limit:g} are allowed."
        return self.verdict(
            not in_future and age <= limit,
            sentence,
            Cited(dated.key, digest_bytes(evidence.store.get(dated.key))),
            measure="age of the data in days",
            observed=age,
            threshold=limit,
            also_cited=[manifest],
        )
