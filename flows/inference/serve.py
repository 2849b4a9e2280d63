"""Serve: MLflow's scoring server over a verified package, every answer handed to the inference log."""

import ipaddress
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flows.inference.log import Answered, LogFormat, LogWriter, now
from flows.inference.predict import Served, served
from flows.promotion.binding import package_files
from infra import scoring, tracking
from infra.errors import WrongInput
from infra.settings import Settings


def answer(
    settings: Settings, reference: str, host: str, port: int, ready: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Answer until told to end; `ready` hears the model and its address. Returns how many answers were logged.

    Raises WrongInput for an address that is not this machine's own: the server asks nobody who they are. Raises Refused
    when the model or its package is not what was registered.
    """
    if not _is_loopback(host):
        raise WrongInput(
            f"--host {host}: anyone who reaches it could ask, because MLflow's scoring server knows no passwords; "
            "listen on 127.0.0.1 behind a proxy that does"
        )
    store = settings.object_store
    model = served(store, reference)
    package_files(settings, model.version)
    listening = scoring.bind(host, port)
    writers: list[LogWriter] = []

    def listen(predictor: Any) -> scoring.Heard:
        writer = LogWriter(store, LogFormat(model.version, model.contract, getattr(predictor, "labels", ())), _say)
        writers.append(writer)

        def heard(ids: Sequence[str], rows: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
            writer.add(Answered(ids, now(len(rows)), rows, answers))

        return heard

    try:
        app = scoring.scoring_app(Path(tracking.package_files(settings, model.version.package)), listen)
        ready(_facts(model, listening.getsockname()))
        scoring.run(app, listening)
    except KeyboardInterrupt:
        pass  # told to end
    finally:
        listening.close()
        for writer in writers:
            writer.close()
    return {"logged": sum(one.written for one in writers), "not_logged": sum(one.dropped for one in writers)}


def _facts(model: Served, address: Any) -> dict[str, Any]:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return {
        "model": model.version.ref,
        "address": f"http://{host}:{address[1]}/invocations",
        "inputs": model.columns,
        "log": f"inference/{model.version.name}/",
    }


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _say(line: str) -> None:
    print(f"slipway: {line}", file=sys.stderr, flush=True)
