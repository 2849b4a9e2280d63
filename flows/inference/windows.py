"""One window of an inference log beside what its model was trained and tested on: plain functions, no store, no flow.

Inputs are compared by the data contract's own drift tests and policy. So are predictions, in the place of the label:
those on the test split before, those in the window after. How often the model is right is estimated from its
confidence (`training.performance`), and counted where labels have come.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from data_contracts.drift import DriftResult, compare
from flows.inference.log import INPUT, logged_inputs
from flows.inference.policy import MonitorPolicy
from training.intervals import Estimate, wilson
from training.performance import Calibration, estimated_accuracy, fit_calibration

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract

MINIMUM_TESTED = 20
"""Answers to test rows below which the window's are not compared with them (after `within` has chosen)."""
FIGURES = 6
"""Drifted comparisons of a window that are drawn."""


@dataclass(frozen=True)
class Known:
    """What a model version was trained on, and what it answered to its test split."""

    contract: "Contract"
    profile: Mapping[str, Any]
    """Of its dataset version."""
    tested: "pa.Table"
    """row_id, label, prediction, confidence."""
    rows: Callable[[], "pa.Table"]
    """All rows of its dataset version, read when they are needed: row_id, the inputs, and what a policy asks for."""
    accuracy: Estimate
    """On the test split, with its 95 % interval."""
    calibration: Calibration | None
    """None where the model gives no confidence or the test split is too small; `uncalibrated` says so."""
    uncalibrated: str = ""
    usual: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """How much of a change is none (`flows.usual_changes`)."""

    @classmethod
    def of(
        cls, contract: "Contract", profile: Mapping[str, Any], tested: "pa.Table", rows: Callable[[], "pa.Table"]
    ) -> "Known":
        import numpy as np

        right = np.array(tested["label"].to_pylist()) == np.array(tested["prediction"].to_pylist())
        calibration, why = None, ""
        if tested["confidence"].null_count:
            why = "the model gives no confidence"
        else:
            try:
                calibration = fit_calibration(tested["confidence"].to_numpy(), right)
            except ValueError as error:
                why = str(error)
        return cls(contract, profile, tested, rows, wilson(int(right.sum()), len(right)), calibration, why)

    def within(self, column: str, values: Sequence[Any]) -> "Known":
        """What is known of the rows that have one of these values in an input column; accuracy and calibration stay
        those of the whole test split."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from data_contracts.profile import profile

        rows = self.rows()
        chosen = rows.filter(pc.is_in(rows[column], value_set=pa.array(list(values), rows[column].type)))
        tested = self.tested.filter(pc.is_in(self.tested["row_id"], value_set=chosen["row_id"].combine_chunks()))
        found = profile(chosen, _inputs_of(self.contract))
        return replace(self, profile=found, tested=tested)


def judge_window(
    start: datetime,
    end: datetime,
    rows: "pa.Table",
    labels: Mapping[str, str],
    known: Known,
    policy: MonitorPolicy,
) -> dict[str, Any]:
    """Everything that can be said of one window, as JSON values.

    rows: id, input.*, prediction, confidence. labels: id -> label, of those that have come.
    """
    found: dict[str, Any] = {
        "start": start.isoformat(),
        "end": end.isoformat(),
        "rows": rows.num_rows,
        "judged": rows.num_rows >= policy.minimum_rows,
        "compared_with": known.profile["rows"],
        "drift": [],
        "estimated": _estimated(rows, known),
        "real": _real(rows, labels),
        "alarms": [],
        "said": [],
    }
    if not found["judged"]:
        return found
    if policy.within:
        values = sorted(set(rows[INPUT + policy.within].drop_null().to_pylist()))
        known = known.within(policy.within, values)
        found["compared_with"] = known.profile["rows"]
    before, after = _profiles(rows, known)
    drift = replace(known.contract, drift={**known.contract.drift, "alpha": policy.alpha})
    results = [_as_prediction(_beyond(one, known), known.contract) for one in compare(before, after, drift)]
    found["drift"] = _drawn(results, [before, after])
    for one in results:
        if one.drifted:
            kind = "prediction" if one.column == known.contract.label else "input"
            _tell(found, policy, kind, one.sentence, one.blocks)
    for kind, name in (("estimated", "estimated accuracy"), ("real", "real accuracy")):
        fallen = known.accuracy.value - policy.drop
        seen = found[kind]
        if seen and seen["high"] < fallen and (kind != "real" or seen["rows"] >= policy.minimum_rows):
            sentence = (
                f"{name} {seen['value']:.3f} ({seen['low']:.3f} to {seen['high']:.3f}) is below {fallen:.3f}, "
                f"{policy.drop:g} under the {known.accuracy.value:.3f} of the test split"
            )
            _tell(found, policy, kind, sentence, True)
    return found


def _tell(found: dict[str, Any], policy: MonitorPolicy, kind: str, sentence: str, blocks: bool) -> None:
    found["alarms" if blocks and kind in policy.alarm else "said"].append({"kind": kind, "sentence": sentence})


def _inputs_of(contract: "Contract") -> "Contract":
    return replace(contract, columns=tuple(contract.column(name) for name in logged_inputs(contract)))


def _profiles(rows: "pa.Table", known: Known) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was known and what the window holds, the predictions in the label's place."""
    import pyarrow as pa

    from data_contracts.profile import profile

    inputs = _inputs_of(known.contract)
    columns = {column.name: rows[INPUT + column.name] for column in inputs.columns}
    # By lot, and the same rows each time: of a long window the tests see a sample.
    drawn = [
        hashlib.blake2b(f"{place}:{name}".encode(), digest_size=16).hexdigest()
        for place, name in enumerate(rows["id"].to_pylist())
    ]
    after = profile(pa.table({"row_id": pa.array(drawn), **columns}), inputs, hashed=True)
    if known.tested.num_rows < MINIMUM_TESTED:
        return dict(known.profile), after
    found = []
    for side, answers in ((known.profile, known.tested["prediction"]), (after, rows["prediction"])):
        told = {str(one["values"]): one["counts"] for one in answers.value_counts().to_pylist()}
        own = {"type": "string", "rows": len(answers), "nulls": 0, "distinct": len(told), "categories": told}
        found.append({**side, "columns": {**side["columns"], str(known.contract.label): own}})
    return found[0], found[1]


def _beyond(result: DriftResult, known: Known) -> DriftResult:
    """The result, steady where the change is a usual one."""
    usual = known.usual.get((result.column, result.kind), 0.0)
    if usual <= result.threshold:
        return result
    sentence = result.sentence.replace(f"(from {result.threshold:g})", f"(usual up to {usual:.3f})", 1)
    if result.effect >= usual:
        return replace(result, threshold=usual, sentence=sentence)
    return replace(result, threshold=usual, drifted=False, sentence=sentence.replace(" drifted: ", " steady: ", 1))


def _as_prediction(result: DriftResult, contract: "Contract") -> DriftResult:
    if result.column != contract.label:
        return result
    sentence = result.sentence.replace(f"{result.kind} of {result.column}", f"predictions of {result.column}", 1)
    return replace(result, kind="predictions", sentence=sentence)


def _drawn(results: Sequence[DriftResult], profiles: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The comparisons, the worst first; those that drifted with what a page draws of them."""
    from flows.judging.drift_page import plot_of

    shown = [one for one in results if one.drifted][:FIGURES]
    return [{**asdict(one), "plot": plot_of(one, profiles) if one in shown else None} for one in results]


def _estimated(rows: "pa.Table", known: Known) -> dict[str, float] | None:
    confidence = rows["confidence"].drop_null()
    if known.calibration is None or not len(confidence):
        return None
    return estimated_accuracy(known.calibration, confidence.to_numpy()).to_json()


def _real(rows: "pa.Table", labels: Mapping[str, str]) -> dict[str, float] | None:
    """Of the rows whose labels have come: their number, and how many answers were right."""
    if not labels:
        return None
    pairs = zip(rows["id"].to_pylist(), rows["prediction"].to_pylist(), strict=True)
    right = [labels[name] == answer for name, answer in pairs if name in labels]
    return {**wilson(sum(right), len(right)).to_json(), "rows": len(right)} if right else None
