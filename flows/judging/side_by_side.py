"""Candidate and champion on the test rows that both have answered: figures, and the examples where they differ."""

from typing import Any

from flows.judging.common_rows import common_rows
from flows.judging.evidence import Evidence, MissingEvidence, Subject

SHOWN = 6
"""Examples of each kind."""
SHOWN_CHARS = 300


def side_by_side(evidence: Evidence, candidate: Subject, champion: Subject) -> dict[str, Any] | None:
    """{"champion", "said", "rows", "figures"}, and of classifiers {"both_right", "won", "lost", "both_wrong",
    "examples"}; None when they cannot be compared, of which the gates say why.

    figures: metric -> {"candidate", "champion": {value, low, high}} of the common rows. examples: {"won": [...],
    "lost": [...]}, rows that only the candidate, and only the champion, has right; the surest answers first.
    """
    from training.intervals import estimate

    setting = "gates.champion.minimum_rows"
    try:
        kind = evidence.evaluation(candidate).kind
        read = {column for metric in kind.compared for column in kind.metrics[metric].columns}
        answers = ["prediction", "confidence"] if kind.needs_label else []
        both = common_rows(evidence, candidate, champion, [*answers, *sorted(read)], 1, setting)
    except MissingEvidence:
        return None
    figures = {
        metric: {
            who: estimate(metric, columns).to_json()
            for who, columns in (("candidate", both.mine), ("champion", both.theirs))
        }
        for metric in kind.compared
    }
    found = {"champion": champion.ref, "said": both.said, "rows": len(both.row_ids), "figures": figures}
    if not kind.needs_label:
        return found
    labels, mine, theirs = both.mine["label"], both.mine["prediction"], both.theirs["prediction"]
    right = [(own == label, other == label) for own, other, label in zip(mine, theirs, labels, strict=True)]
    kinds = {
        kind: [row for row, pair in enumerate(right) if pair == wanted]
        for kind, wanted in {
            "both_right": (True, True),
            "won": (True, False),
            "lost": (False, True),
            "both_wrong": (False, False),
        }.items()
    }
    return {
        **found,
        **{kind: len(rows) for kind, rows in kinds.items()},
        "examples": {
            kind: _examples(evidence, candidate, both, kinds[kind], "mine" if kind == "lost" else "theirs")
            for kind in ("lost", "won")
        },
    }


def _examples(evidence: Evidence, candidate: Subject, both: Any, rows: list[int], wrong: str) -> list[dict[str, Any]]:
    """The rows that whoever was wrong was surest of."""
    sure = getattr(both, wrong)["confidence"]
    chosen = sorted(rows, key=lambda row: (-sure[row], both.row_ids[row]))[:SHOWN]
    try:
        said = evidence.shown_inputs(candidate, [both.row_ids[row] for row in chosen]) if chosen else []
    except MissingEvidence:
        said = ["its text is missing"] * len(chosen)

    def label(value: str) -> str:
        return evidence.shown_label(candidate, value)

    return [
        {
            "row_id": both.row_ids[row],
            "text": text[:SHOWN_CHARS],
            "label": label(both.mine["label"][row]),
            "candidate": label(both.mine["prediction"][row]),
            "candidate_confidence": both.mine["confidence"][row],
            "champion": label(both.theirs["prediction"][row]),
            "champion_confidence": both.theirs["confidence"][row],
        }
        for row, text in zip(chosen, said, strict=True)
    ]
