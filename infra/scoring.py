"""MLflow's scoring server in this process, with an ear at the packaged model: what it was asked and what it answered.

`mlflow models serve` would start the same server from the same package; only its answers would be known, not their
probabilities, and nobody would hear of them.
"""

import socket
import uuid
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

from infra.errors import WrongInput

Heard = Callable[[Sequence[str], list[dict[str, Any]], list[dict[str, Any]]], None]
"""(ids, rows, answers) of a request, told before it is answered: to be taken and not worked on."""
ID = "id"
"""A column of a request that is no input of the model: the caller's own ids."""

_ids: ContextVar[Sequence[str] | None] = ContextVar("ids", default=None)


class _Listening:
    """A predictor that tells what it answered."""

    def __init__(self, predictor: Any, heard: Heard):
        self.predictor, self.heard = predictor, heard

    def __call__(self, rows: list[dict[str, Any]], **params: Any) -> list[dict[str, Any]]:
        answers = self.predictor(rows, **params)
        self.heard(_ids.get() or [uuid.uuid4().hex for _ in rows], rows, answers)
        return answers


class _Named:
    """A pyfunc model whose requests may carry the caller's ids."""

    def __init__(self, model: Any):
        self.model, self.metadata = model, model.metadata
        self.inputs = set(model.metadata.get_input_schema().input_names())

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        given = None
        if ID not in self.inputs and ID in getattr(data, "columns", ()):
            given, data = [str(one) for one in data[ID]], data.drop(columns=[ID])
        token = _ids.set(given)
        try:
            return self.model.predict(data, params)
        finally:
            _ids.reset(token)


def scoring_app(package: Path, listen: Callable[[Any], Heard]) -> Any:
    """The server's application (FastAPI) for the package in that folder.

    listen: called with the predictor; what it returns hears every request. The code that answers is this process's, as
    `slipway predict`'s is: the four packages are imported already, and the package's own copies of them are not.
    """
    import mlflow
    from mlflow.pyfunc import scoring_server

    model = mlflow.pyfunc.load_model(str(package))
    packaged = model._model_impl  # an `infra.tracking.PackagedModel`
    packaged.predictor = _Listening(packaged.predictor, listen(packaged.predictor))
    return scoring_server.init(cast(Any, _Named(model)))


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0: any that is free. Raises WrongInput."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise WrongInput(
            f"--port {port}: cannot be listened on ({error.strerror}); choose another, 0 takes any"
        ) from None
    listening.listen(128)
    return listening


def run(app: Any, listening: socket.socket) -> None:
    """Answer until SIGINT or SIGTERM; requests under way are answered first. Raises KeyboardInterrupt then."""
    import signal

    import uvicorn

    def ended(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    # uvicorn ends on these in good order, and then lets them take the effect they had before.
    before = {number: signal.signal(number, ended) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=30)
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
