"""Work as a Prefect flow run with a task a step where there is a server, as plain calls where there is none.

What a task does is a plain function of a `Progress`; nothing here knows what that is. Prefect is imported where a
server is configured, or where a whole-way command asks for one that lives as long as its work.
"""

import math
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from flows.orchestration.schedule import TAG
from flows.orchestration.zombies import HEARTBEAT_S
from infra.artifacts import Damaged
from infra.errors import Refused, SlipwayError, WrongInput
from infra.progress import Progress, stage
from infra.settings import Settings

T = TypeVar("T")
UNITS = {"train": "steps", "gate": "gates"}
RETRIES = 2
"""How often a step is begun again that an outside service has failed, after about 10 and 20 s. Steps wait for a service
that is away (`infra.patience`); this is for what outlasts that, and a training goes on from where it was."""
BACKOFF_S = 10
HOUR = 3600.0
TIMEOUT_S = {"register": 12 * HOUR, "prepare": 12 * HOUR, "evaluate": 6 * HOUR, "gate": 6 * HOUR, "promote": HOUR}
"""A step that takes longer hangs. Training has none: its budget (`training.budget`) ends it after a checkpoint."""
GPU_LIMIT = "slipway-gpus"
"""Prefect's global concurrency limit that trainings take their GPUs from. A server that has none does not limit."""


class Run:
    """Work without Prefect: a task is a call, and there is no page to show anything on."""

    def task(self, name: str, work: Callable[[Progress], T], gpus: float = 0) -> T:
        """`work`, with its progress shown. name: KIND SUBJECT, as `train reviews`."""
        with stage(name.replace(" ", ": ", 1), unit=UNITS.get(name.partition(" ")[0], "")) as progress:
            return work(progress)

    def say(self, line: str) -> None:
        """A line of the flow run's log."""

    def table(self, key: str, rows: Sequence[dict[str, Any]], description: str) -> None: ...

    def markdown(self, key: str, text: str, description: str) -> None: ...

    def link(self, key: str, address: str, text: str, description: str) -> None: ...


class PrefectRun(Run):
    """Inside a flow run: tasks are Prefect's, and what is shown are artifacts of its page."""

    def task(self, name: str, work: Callable[[Progress], T], gpus: float = 0) -> T:
        from prefect import task
        from prefect.cache_policies import NO_CACHE
        from prefect.concurrency.sync import concurrency
        from prefect.tasks import exponential_backoff

        from flows.orchestration.page import live_progress

        kind = name.partition(" ")[0]

        @task(
            name=kind,
            task_run_name="{name}",
            cache_policy=NO_CACHE,
            persist_result=False,
            retries=RETRIES,
            retry_delay_seconds=exponential_backoff(backoff_factor=BACKOFF_S),
            retry_jitter_factor=0.5,
            retry_condition_fn=_is_outage,
            timeout_seconds=TIMEOUT_S.get(kind),
        )
        def step(name: str) -> T:
            with ExitStack() as held, stage(name.replace(" ", ": ", 1), unit=UNITS.get(kind, "")) as progress:
                if gpus:
                    progress.say(f"waiting for {gpus:g} GPUs")
                    held.enter_context(concurrency(GPU_LIMIT, occupy=math.ceil(gpus)))
                held.enter_context(live_progress(name, progress))
                return work(progress)

        try:
            return step(name)
        except TimeoutError as error:
            hours = TIMEOUT_S.get(kind, 0) / HOUR
            raise SlipwayError(
                f"{name}: took longer than {hours:g} hours; look why it hangs, then run it again"
            ) from error

    def say(self, line: str) -> None:
        from flows.orchestration.page import log

        log(line)

    def table(self, key: str, rows: Sequence[dict[str, Any]], description: str) -> None:
        from flows.orchestration.page import show_table

        show_table(key, rows, description)

    def markdown(self, key: str, text: str, description: str) -> None:
        from flows.orchestration.page import show_markdown

        show_markdown(key, text, description)

    def link(self, key: str, address: str, text: str, description: str) -> None:
        from flows.orchestration.page import show_link

        show_link(key, address, text, description)


def run_flow(settings: Settings, name: str, subject: str, body: Callable[[Run], T], *, whole_way: bool = False) -> T:
    """`body`, as a flow run called `name` where a server is configured, else plainly.

    whole_way: where none is configured, under one that lives as long as this. The flow's only parameter is its subject:
    settings hold addresses with passwords, and Prefect keeps parameters. Raises what `body` raises, SlipwayError for a
    configured server that does not answer.
    """
    if not settings.prefect_api and not whole_way:
        return body(Run())
    if _in_flow_run():  # a scheduled one
        return body(PrefectRun())
    if settings.prefect_api:
        _refuse_silent(settings.prefect_api)
    from flows.orchestration.server import prefect_server

    with ExitStack() as open_for_the_flow:
        with stage("orchestrate") as progress:
            progress.say("starting Prefect")
            address = open_for_the_flow.enter_context(prefect_server(settings))
            from prefect import flow, tags
            from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        given = {PREFECT_API_URL: address, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: HEARTBEAT_S}
        open_for_the_flow.enter_context(temporary_settings(given))
        open_for_the_flow.enter_context(tags(TAG))  # whose silence is noticed (`flows.orchestration.zombies`)

        @flow(name=name, flow_run_name="{subject}", persist_result=False, validate_parameters=False)
        def run(subject: str) -> T:
            return body(PrefectRun())

        return run(subject)


def _in_flow_run() -> bool:
    if "prefect" not in sys.modules:
        return False
    from prefect.context import FlowRunContext

    return FlowRunContext.get() is not None


def _refuse_silent(address: str) -> None:
    try:
        urllib.request.urlopen(f"{address}/health", timeout=10).close()
    except urllib.error.HTTPError:
        pass  # an answer: what it does not allow, it says to the flow
    except (OSError, ValueError) as error:
        raise SlipwayError(
            f"prefect_api: no Prefect server answers at the address set ({getattr(error, 'reason', error)}); start it "
            "(slipway up), or unset SLIPWAY_PREFECT_API to work without"
        ) from error


def _is_outage(task: Any, task_run: Any, state: Any) -> bool:
    """Whether a step failed for a reason that may pass: not the user's mistake, not a no, not a bug."""
    try:
        state.result()
    except (WrongInput, Refused, Damaged):
        return False
    except (SlipwayError, ConnectionError):
        return True
    except BaseException:  # a bug fails the same way again; Ctrl-C is asked once
        return False
    return False
