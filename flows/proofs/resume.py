"""A run that is killed again and again ends in the bits of one that was not."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows.prove import Options, Say
from flows.scratch import STEPS, Scratch, break_and_mend, compare_runs, scratch
from infra.settings import load_settings
from training.run_log import read_state

ELASTIC_KILLS = 1
LOSS_WITHIN = 1e-6


def prove(options: Options, say: Say) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="slipway-prove-") as folder,
        scratch(Path(folder), max(options.workers, 4 if options.elastic else 0), load_settings().ray_address) as place,
    ):
        command = ["train", "scratch", "--workers", str(options.workers)]
        broken, kills = break_and_mend(place, command, options.kills, options.seed, options.workers, say)
        say("the unbroken run")
        unbroken = place.ask(*command, "--fresh")["run"]
        found: dict[str, Any] = {
            "workers": options.workers,
            "steps": STEPS,
            "kills": [asdict(one) for one in kills],
            "attempts": read_state(place.log(broken)).attempt,
            **compare_runs(place, unbroken, broken),
        }
        if options.elastic:
            found["elastic"] = [_elastic(place, options, then, say) for then in (1, 4)]
    equal = all(value for name, value in found.items() if name.endswith("_equal"))
    elastic = all(one["held"] for one in found.get("elastic", ()))
    return {"held": equal and elastic and len(kills) == options.kills, **found}


def _elastic(place: Scratch, options: Options, then: int, say: Say) -> dict[str, Any]:
    """Killed on 2 workers, gone on with `then`; without dropout, which is keyed by the worker too."""
    say(f"on 2 workers, then on {then}")
    command = ["train", "scratch", "--set", "dropout=0", "--set", f"seed={then}"]
    unbroken = place.ask(*command, "--workers", "2")["run"]
    fresh = [*command, "--fresh", "--workers"]  # the step has a result, the unbroken run's: without --fresh that counts
    broken, kills = break_and_mend(
        place, [*fresh, "2"], ELASTIC_KILLS, options.seed + then, 2, say, again=[*fresh, str(then)]
    )
    first, second = (read_state(place.log(run)).curves()["loss"] for run in (unbroken, broken))
    apart = max(abs(one[1] - other[1]) for one, other in zip(first, second, strict=True))
    ledgers = compare_runs(place, unbroken, broken)["ledgers_equal"]
    return {"workers": [2, then], "kills": [asdict(one) for one in kills], "ledgers_equal": ledgers,
            "largest_difference_of_loss": apart, "held": ledgers and apart <= LOSS_WITHIN and bool(kills)}  # fmt: skip
