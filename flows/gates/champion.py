"""Not worse than the champion by more than a margin, or better than it, on the same test rows."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from flows.judging.common_rows import common_rows
from flows.judging.evidence import Evidence, Subject
from flows.judging.gate import Gate, Verdict
from training.intervals import ALPHA, compare, is_better
from training.metrics import METRICS, known_metric


class Champion(Gate):
    """A test of non-inferiority, or of superiority: the lower end of the paired bootstrap interval decides.

    ICH E9, "Statistical principles for clinical trials", 1998, §3.3.2: the margin is fixed beforehand and the
    interval decides, so too few rows lead to a no. With 2,000 test rows, 14 % of which only one of the two has right,
    an equally good candidate passes a margin of 0.01 in one case of five, 0.02 in two of three, 0.03 in nineteen of
    twenty. Where better accuracy is asked for, McNemar's test has to agree.
    """

    metric: str = "accuracy"
    """accuracy, macro_f1, log_loss or brier, or one of another kind of evaluation."""
    require: Literal["not_worse", "better"] = "not_worse"
    """`not_worse`: by more than the margin. `better`: shown to be."""
    margin: float = Field(default=0.02, ge=0)
    """How much worse is still taken as not worse, in the metric's unit; none with `require: better`."""
    alpha: float = Field(default=ALPHA, ge=0.0001, lt=0.5)
    """One-sided: the share of candidates worse by exactly the margin (with `better`: equally good) that may pass.
    0.025 is a 95 % interval."""
    minimum_rows: int = Field(default=200, ge=1)
    """Where the champion was evaluated on another dataset version: test rows that both must have answered."""

    check_metric = field_validator("metric")(known_metric)

    @model_validator(mode="after")
    def check_margin(self) -> Self:
        if self.require == "better" and "margin" in self.model_fields_set:
            raise ValueError("a margin is for `require: not_worse`; leave it out with `require: better`")
        return self

    def check(self, candidate: Subject, champion: Subject | None, evidence: Evidence) -> Verdict:
        metric = METRICS[self.metric]
        name = metric.title
        measure = metric.minus("the champion's")
        if champion is None:
            return self.nothing_to_compare(candidate, evidence, measure)
        rows = common_rows(
            evidence, candidate, champion, metric.columns, self.minimum_rows, "gates.champion.minimum_rows"
        )
        found = compare(self.metric, rows.mine, rows.theirs, self.alpha)
        way = "" if metric.higher_is_better else " (positive is better)"
        sentence = (
            f"{name[0].upper()}{name[1:]} is {metric.difference(found.value)}{way} against the champion "
            f"{champion.ref} on {rows.said}, {100 - 200 * self.alpha:g} % interval "
            f"{metric.difference(found.low, found.high)}; "
        )
        if self.require == "better":
            limit = 0.0
            passed = is_better(found, self.alpha)
            if found.p_better is not None:
                sentence += f"McNemar's mid-p is {found.p_better:.2g}, alpha {self.alpha:g}; "
            sentence += "it is better." if passed else (
                "that it is better is not shown. A better candidate or more test rows would change it."
            )  # fmt: skip
        else:
            limit = -self.margin
            passed = found.low >= limit
            allowed = metric.amount(self.margin)
            sentence += f"it is not worse by more than {allowed}." if passed else (
                f"a loss of more than {allowed} is not ruled out. A better candidate, more test rows or a wider "
                "gates.champion.margin would change it."
            )  # fmt: skip
        return self.verdict(
            passed,
            sentence,
            rows.files[0],
            measure=measure,
            observed=found.value,
            threshold=limit,
            interval=(found.low, found.high),
            also_cited=[rows.files[1]],
        )
