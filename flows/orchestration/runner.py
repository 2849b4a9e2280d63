"""The process that runs scheduled flow runs on this machine: a Prefect process worker.

    python -P -m flows.orchestration.runner            waits for runs, and starts each as a process of its own
    python -P -m flows.orchestration.runner execute    is such a process

Prefect's own `prefect worker start` and `prefect.engine` do the same, but put the user's folder on the import path
first; a `training/` there would be taken for ours. So all four packages are imported before Prefect is let in.
"""

import runpy
import sys

import data_contracts  # noqa: F401
import training  # noqa: F401
from flows.orchestration.schedule import POOL
from flows.orchestration.zombies import HEARTBEAT_S
from infra.settings import load_settings, quiet_environment

QUERY_S = 5.0
"""How often it asks for runs that are due."""


def work() -> None:
    """Ends by SIGTERM, and lets no run of its own outlive it."""
    import asyncio

    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_LOGGING_LEVEL,
        PREFECT_LOGGING_TO_API_ENABLED,
        PREFECT_WORKER_QUERY_SECONDS,
        temporary_settings,
    )
    from prefect.workers.process import ProcessWorker

    settings = load_settings()
    given = {
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: HEARTBEAT_S,
        PREFECT_LOGGING_LEVEL: "INFO",
        PREFECT_LOGGING_TO_API_ENABLED: True,
        PREFECT_WORKER_QUERY_SECONDS: QUERY_S,
        **({PREFECT_API_URL: settings.prefect_api} if settings.prefect_api else {}),
    }
    with temporary_settings(given):  # its children are given what it has
        asyncio.run(ProcessWorker(work_pool_name=POOL).start(printer=print))


def main(arguments: list[str]) -> None:
    quiet_environment(load_settings())
    if arguments == ["execute"]:
        sys.argv = ["prefect.engine"]  # the run's id is in the environment
        runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)
    else:
        work()


if __name__ == "__main__":
    main(sys.argv[1:])
