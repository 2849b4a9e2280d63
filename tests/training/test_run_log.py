import multiprocessing
from pathlib import Path

from infra.store import FolderStore
from training.run_log import RunLog, read_state


def _log(tmp_path: Path) -> RunLog:
    return RunLog(FolderStore(tmp_path / "store"), "model-abc-1")


def _begin(log: RunLog, attempt: int, from_step: int = 0) -> None:
    log.append("attempt", attempt, host="here", pid=1, workers=1, from_step=from_step, checkpoint=None)


def test_an_overtaken_attempt_may_write_and_nothing_of_it_counts(tmp_path: Path) -> None:
    log = _log(tmp_path)
    _begin(log, 1)
    log.append("metrics", 1, points=[[step, {"loss": 1.0}, 0.0] for step in range(1, 8)])
    log.append("checkpoint", 1, step=5, place="p", digest="d")
    _begin(log, 2, from_step=5)
    log.append("metrics", 1, points=[[8, {"loss": 9.0}, 0.0]])  # the old one goes on
    log.append("checkpoint", 1, step=8, place="p", digest="late")
    log.append("finished", 1, model="wrong", steps=8)
    log.append("metrics", 2, points=[[6, {"loss": 2.0}, 0.0]])
    state = read_state(log)
    assert [(step, values["loss"]) for step, values, _ in state.points] == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0),
                                                                            (5, 1.0), (6, 2.0)]  # fmt: skip
    assert [one["digest"] for one in state.checkpoints] == ["d"]
    assert state.status == "running"


def test_a_run_says_how_it_ended(tmp_path: Path) -> None:
    log = _log(tmp_path)
    assert read_state(log).status == "new"
    _begin(log, 1)
    assert read_state(log).status == "running"
    log.append("stopped", 1)
    assert read_state(log).status == "stopped"
    _begin(log, 2)
    log.append("finished", 2, model="m", steps=3)
    state = read_state(log)
    assert (state.status, state.ending["model"]) == ("finished", "m")


def test_curves_are_in_order_of_steps(tmp_path: Path) -> None:
    log = _log(tmp_path)
    _begin(log, 1)
    log.append("metrics", 1, points=[[3, {"loss": 0.3}, 0.0]])
    log.append("metrics", 1, points=[[1, {"loss": 0.1, "accuracy": 0.5}, 0.0]])
    assert read_state(log).curves() == {"loss": [(1, 0.1), (3, 0.3)], "accuracy": [(1, 0.5)]}


def _write(folder: str, writer: int) -> None:
    log = RunLog(FolderStore(Path(folder)), "model-abc-1")
    for number in range(20):
        log.append("metrics", 0, points=[[writer * 100 + number, {}, 0.0]])


def test_writers_that_meet_lose_no_entry(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(str(tmp_path / "store"), writer)) for writer in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    entries = list(_log(tmp_path).entries())
    assert [entry["sequence"] for entry in entries] == list(range(1, 81))
    assert len({entry["points"][0][0] for entry in entries}) == 80
