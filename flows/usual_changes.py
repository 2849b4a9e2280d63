"""How much a column usually differs from one window to the next, learned from the training data's own windows.

The tests of `data_contracts.drift` take rows for independent draws. Hours of one day are not: any week's weather has
"drifted" beside a year's. So the training data are cut into windows like the log's, each is compared with all others,
and only a larger effect than the mean plus three standard deviations of those is drift (the thresholds of NannyML's
reference chunks; Shewhart's control chart, 1931, has the three).
"""

from typing import TYPE_CHECKING

from data_contracts.drift import compare
from flows.inference.policy import MonitorPolicy, Window

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract

DEVIATIONS = 3
FEWEST = 8
"""Windows of the training data below which nothing usual can be told."""
Usual = dict[tuple[str, str], float]
"""(column, kind of comparison) -> the effect that is still usual."""


def usual_effects(rows: "pa.Table", contract: "Contract", policy: MonitorPolicy) -> Usual:
    """rows: of the training data, with the inputs, the label, `policy.time` and row_id. What the labels do from window
    to window is taken for what predictions may do. Empty where there are fewer than FEWEST windows with enough rows."""
    import numpy as np
    import pyarrow as pa

    from data_contracts.profile import profile

    times = rows[policy.time].cast(pa.timestamp("s")).to_numpy()
    starts = Window.parse(policy.window).starts(times)
    place = np.array(rows[policy.within].to_pylist()) if policy.within else np.zeros(len(times))
    windows = [start for start in np.unique(starts) if (starts == start).sum() >= policy.minimum_rows]
    found: dict[tuple[str, str], list[float]] = {}
    for start in windows if len(windows) >= FEWEST else ():
        inside = starts == start
        others = ~inside & np.isin(place, place[inside])
        if others.sum() < policy.minimum_rows:
            continue
        before, after = (profile(rows.filter(pa.array(mask)), contract) for mask in (others, inside))
        for one in compare(before, after, contract):
            found.setdefault((one.column, one.kind), []).append(one.effect)
    return {
        name: float(np.mean(effects) + DEVIATIONS * np.std(effects))
        for name, effects in found.items()
        if len(effects) >= FEWEST
    }
