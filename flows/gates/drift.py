"""The data it was trained on still looks like the champion's: labels, categories, numbers, words, images, holes."""

from dataclasses import replace

from flows.judging.evidence import Evidence, MissingEvidence, Subject
from flows.judging.gate import Gate, Verdict


class Drift(Gate):
    """What counts as drift is the data contract's policy (`slipway.drift`): a change has to be beyond chance (alpha,
    corrected for the number of comparisons) and large enough to matter (effect). Where only columns with `block: false`
    have drifted, this gate is a warning."""

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        from data_contracts.drift import compare

        if champion is None:
            return self.nothing_to_compare(candidate, evidence, "drift from the champion's data")
        contract = evidence.contract(candidate)
        before, theirs = evidence.profile(champion)
        after, ours = evidence.profile(candidate)
        results = compare(before, after, contract)
        if not results:
            raise MissingEvidence(
                f"{candidate.ref}'s data and that of the champion {champion.ref} have no column in common that could "
                "be compared; a change of schema needs a model of its own name"
            )
        worst = results[0]
        drifted = [result for result in results if result.drifted]
        if candidate.dataset == champion.dataset:
            sentence = f"Trained on the same dataset version as the champion {champion.ref}."
        elif drifted:
            shown = "; ".join(result.sentence for result in drifted[:3])
            sentence = (
                f"{len(drifted)} of {len(results)} comparisons with the data of the champion {champion.ref} show "
                f"drift: {shown}. If this is what the world looks like now, raise `effect` in slipway.drift of "
                f"contract {contract.name}."
            )
        else:
            sentence = (
                f"None of {len(results)} comparisons with the data of the champion {champion.ref} shows drift; the "
                f"largest change: {worst.sentence}."
            )
        verdict = self.verdict(
            not drifted,
            sentence,
            ours,
            measure=f"{worst.measure}, {worst.kind} of {worst.column}",
            observed=worst.effect,
            threshold=worst.threshold,
            also_cited=[theirs],
            details=[
                {
                    "column": result.column,
                    "compared": result.kind,
                    "effect": result.effect,
                    "matters from": result.threshold,
                    "p": f"{result.p_value:.2g}",
                    "drifted": "yes" if result.drifted else "no",
                }
                for result in results
            ],
        )
        blocks = any(result.blocks for result in drifted) if drifted else contract.drift["block"]
        return verdict if blocks else replace(verdict, severity="warn")
