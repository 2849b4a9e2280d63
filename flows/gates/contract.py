"""The data contract holds for the exact dataset version trained on, and nobody has withdrawn that version."""

import json
from collections import Counter
from typing import Any

from flows.judging.evidence import Evidence, MissingEvidence, Subject
from flows.judging.gate import Gate, Verdict


class Contract(Gate):
    """Rows that break a rule are in quarantine, and their share is within the contract's `slipway.quarantine`; a rule
    of severity error that broke otherwise is a no, and so is a version that was withdrawn or has expired. Every file
    of the version is what its manifest says."""

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        from pyarrow import parquet

        from data_contracts.registry import damage
        from data_contracts.withdrawal import barred

        version, manifest = evidence.version(candidate)
        found = damage(evidence.store, version)
        contract = evidence.contract(candidate)
        if found is None and contract.digest != version.contract_digest:
            found = f"{version.key(version.manifest['files']['contract']['name'])} is another contract than registered"
        if found:
            raise MissingEvidence(f"the data of {candidate.ref}: {found}")
        path, validation = evidence.data_file(candidate, "validation")
        report = json.loads(path.read_text(encoding="utf-8"))
        kept_out, quarantine = evidence.data_file(candidate, "quarantine")
        by_rule = Counter(
            rule for rules in parquet.read_table(kept_out, columns=["rules"])["rules"].to_pylist() for rule in rules
        )
        details = [_rule(result, by_rule) for result in report["results"] if not result["success"]]
        broken = [row["rule"] for row in details if row["severity"] == "error" and row["what became of them"] == "kept"]
        share = version.counts["quarantined"] / version.counts["rows_in"]
        limit = contract.quarantine_limit
        why = barred(evidence.store, version, evidence.clock())
        if why:
            sentence = f"Dataset {version.ref} {why}; train on another version."
        elif broken:
            named = ", ".join(broken[:3])
            sentence = f"Dataset {version.ref} breaks {named} of its contract, and rows that do so were kept."
        elif share > limit:
            sentence = f"{share:.1%} of the rows of {version.ref} break the contract, above the {limit:.1%} it allows."
        else:
            rules = len(report["results"])
            sentence = (
                f"Dataset {version.ref} keeps its contract {contract.digest[:12]}: {rules} rules were checked, "
                f"{version.counts['quarantined']:,} of {version.counts['rows_in']:,} rows are in quarantine "
                f"({share:.1%}, allowed {limit:.1%}), and every file is what the manifest says."
            )
        return self.verdict(
            not (why or broken or share > limit),
            sentence,
            validation,
            measure="share of rows that broke a rule",
            observed=share,
            threshold=limit,
            also_cited=[manifest, quarantine],
            details=details,
        )


def _rule(result: dict[str, Any], quarantined: Counter[str]) -> dict[str, Any]:
    """A rule that broke: whether the rows that broke it are kept out, every one."""
    rule, severity = result["meta"]["rule"], result["meta"]["severity"]
    rows = result["result"].get("unexpected_count") or 0
    away = rows > 0 and quarantined[rule] >= rows
    return {
        "rule": rule,
        "severity": severity,
        "rows": rows,
        "what became of them": "quarantined" if away else "kept",
    }
