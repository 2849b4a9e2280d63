"""A flow run whose process was killed does not stay "Running".

A worker that sees its child die says so at once. Where both are killed nobody is left to say anything: so flow runs
give a sign of life every 30 s, and an automation on the server marks one Crashed that has been silent for 65 s, which
forgives one sign that got lost. What was being trained is taken up by the next run, from its run log.
"""

from datetime import timedelta
from typing import TYPE_CHECKING

from flows.orchestration.schedule import TAG

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

HEARTBEAT_S = 30
"""Prefect's least."""
SILENT_S = 65
STARTING_S = 300
"""A run that was handed to a worker and has not begun by then never will."""
OUTCOMES = ("Up to date", "Promoted", "Waiting", "Rejected", "Left to another", "Skipped")
"""Names of the final states of `scheduled`'s flows, beside Prefect's own: its events are called by a state's name."""
_ENDED = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Crashed", "Cancelled", *OUTCOMES)}
_BEAT = "prefect.flow-run.heartbeat"


def watch(client: "SyncPrefectClient") -> None:
    """Put the automations on the server, where they are not there as they should be."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    def silent(after: str, expect: set[str], seconds: int, message: str) -> AutomationCore:
        return AutomationCore(
            name=f"slipway: {message}",
            description=__doc__ or "",
            tags=[TAG],
            trigger=EventTrigger(
                after={after},
                expect=expect,
                match={"prefect.resource.id": "prefect.flow-run.*"},
                # Ours alone: another flow's heart may beat more slowly.
                match_related={"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"},
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=timedelta(seconds=seconds),
            ),
            actions=[ChangeFlowRunState(state=StateType.CRASHED, message=message)],
        )

    begun = {"prefect.flow-run.Running", "prefect.flow-run.AwaitingConcurrencySlot"}
    for wanted in (
        silent(_BEAT, {_BEAT, *_ENDED}, SILENT_S, "no sign of life for 65 s; its process was killed"),
        silent("prefect.flow-run.Pending", {_BEAT, *begun, *_ENDED}, STARTING_S, "handed to a worker, never begun"),
    ):
        there = client.read_automations_by_name(wanted.name)
        same = [
            one for one in there if one.trigger.model_dump(exclude={"id"}) == wanted.trigger.model_dump(exclude={"id"})
        ]
        for one in there:
            if one not in same[:1]:
                client.delete_automation(one.id)
        if not same:
            client.create_automation(wanted)
