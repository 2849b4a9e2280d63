"""Promotion as a Prefect flow that pauses while approvals are missing.

It is resumed, from any process, with what `slipway approve --print` wrote as its input: on Prefect's page, or by

    POST <api>/flow_runs/<id>/resume    {"run_input": {"statement": "..."}}

The statement is worth what its signature is worth, wherever it came from. Approvals that went into the log meanwhile
count too: resume with an empty statement.
"""

import sys
from collections.abc import Sequence
from typing import Any

from flows.models import ModelVersion
from flows.orchestration.server import prefect_server
from flows.promote import promote_version
from flows.promotion import decisions as promotion
from flows.promotion.approvals import Unapproved, Void, read
from infra.errors import WrongInput
from infra.settings import Settings

POLL_S = 2
TIMEOUT_S = 14 * 24 * 3600


def promote_when_approved(
    settings: Settings,
    version: ModelVersion,
    scorecard: str,
    *,
    reason: str = "",
    policy: dict[str, Any] | None = None,
    statements: Sequence[dict[str, Any]] = (),
) -> promotion.Outcome:
    """Promote; while approvals are missing, wait for them. Raises what `promote_version` raises otherwise."""
    with prefect_server(settings) as address:
        from prefect import flow
        from prefect.flow_runs import pause_flow_run
        from prefect.input import RunInput
        from prefect.runtime import flow_run
        from prefect.settings import PREFECT_API_URL, temporary_settings

        class Approval(RunInput):
            """A reviewer's signed statement, as `slipway approve --print` writes it."""

            statement: str = ""

        @flow(name="promotion", flow_run_name=version.ref, persist_result=False, validate_parameters=False)
        def promote() -> promotion.Outcome:
            given = list(statements)
            for number in range(1, sys.maxsize):
                try:
                    return promote_version(settings, version, scorecard, reason=reason, policy=policy, statements=given)
                except (Unapproved, Void) as error:
                    print(f"slipway: {error}", file=sys.stderr)
                print(f"slipway: waits as flow run {flow_run.id} at {address}", file=sys.stderr, flush=True)
                given = []
                approval = pause_flow_run(Approval, timeout=TIMEOUT_S, poll_interval=POLL_S, key=f"approval-{number}")
                try:
                    given = [read(approval.statement, "the flow's input")] if approval.statement.strip() else []
                except WrongInput as error:
                    print(f"slipway: {error}", file=sys.stderr)
            raise AssertionError("unreachable")

        with temporary_settings({PREFECT_API_URL: address}):
            return promote()
