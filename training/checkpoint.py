"""Checkpoints: everything a run needs to go on, whole or absent. safetensors and JSON, manifest last.

Nothing random is in them: dropout, masks and the order of samples are functions of (seed, step, sample).
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from infra import artifacts
from infra.store import NotFound, Store
from training.sharding import World
from training.state import TrainState


class Checkpoints:
    """Writes the checkpoints of one attempt, on every worker."""

    def __init__(
        self,
        store: Store,
        run: str,
        attempt: int,
        world: World,
        keep: int,
        record: Callable[[dict[str, Any]], dict[str, Any]],
    ):
        self.store, self.run, self.attempt, self.world, self.keep = store, run, attempt, world, keep
        self.record = record
        self.entries: list[dict[str, Any]] = []
        self.busy = False

    def save(self, step: int, state: TrainState) -> None:
        if self.world.rank == 0:
            facts = save_checkpoint(self.store, self.run, self.attempt, step, state)
            self.entries.append(self.record(facts))
            discard_old(self.store, self.entries, self.keep)

    def written(self) -> tuple[int, int]:
        return 0, 0

    def heard(self, whole: int, failed: int) -> None: ...

    def wait(self) -> None: ...


def save_checkpoint(store: Store, run: str, attempt: int, step: int, state: TrainState) -> dict[str, Any]:
    """Write the state after `step` steps. Returns what the run log's entry says of it."""
    task, optimizers = state.task, state.optimizers
    tensors, scalars = optimizer_state(task, optimizers)
    with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
        folder = Path(scratch)
        save_file(_separate(task.state_dict()), folder / "model.safetensors")
        save_file(_separate(tensors), folder / "optimizer.safetensors")
        body = {"format": 1, "step": step, "optimizer": scalars, "facts": state.facts}
        (folder / "state.json").write_text(json.dumps(body, sort_keys=True), encoding="utf-8")
        written = artifacts.commit_folder(store, f"runs/{run}/checkpoints/{attempt}/{step}", folder)
    return {"step": step, "place": written.kind, "digest": written.digest}


def load_checkpoint(store: Store, entry: dict[str, Any], state: TrainState) -> int:
    """Put what a log entry names into the state, in place. Returns the number of steps done."""
    task, optimizers = state.task, state.optimizers
    folder = artifacts.fetch(store, artifacts.load(store, entry["place"], entry["digest"]))
    task.load_state_dict(load_file(folder / "model.safetensors"))
    body = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    artifacts.check_format(body, 1, f"{entry['place']}/state.json")
    tensors = load_file(folder / "optimizer.safetensors")
    for phase, optimizer in optimizers.items():
        for name, parameter in _owned(task, optimizer):
            prefix = f"{phase}|{name}|"
            restored: dict[str, Any] = {
                key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
            }
            restored |= body["optimizer"].get(f"{phase}|{name}", {})
            if "step" in restored:
                restored["step"] = torch.tensor(float(restored["step"]))
            if restored:
                optimizer.state[parameter] = {
                    key: value.to(parameter.device) if key != "step" and hasattr(value, "to") else value
                    for key, value in restored.items()
                }
    state.facts = body["facts"]
    return body["step"]


def newest_whole(store: Store, entries: list[dict[str, Any]]) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """The newest checkpoint entry whose every file is there and unaltered, and the newer ones that are not: each with
    its `step`, `place` and `why`."""
    skipped: list[dict[str, Any]] = []
    for entry in reversed(entries):
        if artifacts.is_whole(store, entry["place"], entry["digest"]):
            return entry, skipped
        skipped.append({"step": entry["step"], "place": entry["place"], "why": "is not whole"})
    return None, skipped


def discard_old(store: Store, entries: list[dict[str, Any]], keep: int) -> None:
    """Remove the files of all but the newest checkpoints; their manifests first, so that none is ever half there."""
    for entry in entries[:-keep]:
        prefix = f"{entry['place']}/{entry['digest']}"
        try:
            names = artifacts.load(store, entry["place"], entry["digest"]).files
        except NotFound:
            continue
        store.delete(f"{prefix}/manifest.json")
        for name in names:
            store.delete(f"{prefix}/{name}")


def optimizer_state(
    task: torch.nn.Module, optimizers: dict[str, torch.optim.Optimizer]
) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, float]]]:
    """Tensors by `phase|parameter|key`, and the step counts by `phase|parameter`: names, not positions, so that a
    changed order of parameters cannot mix them up."""
    tensors, scalars = {}, {}
    for phase, optimizer in optimizers.items():
        for name, parameter in _owned(task, optimizer):
            for key, value in optimizer.state.get(parameter, {}).items():
                if key == "step":
                    scalars[f"{phase}|{name}"] = {"step": float(value)}
                elif isinstance(value, torch.Tensor):
                    tensors[f"{phase}|{name}|{key}"] = value
    return tensors, scalars


def _owned(task: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[tuple[str, torch.nn.Parameter]]:
    members = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return [(name, parameter) for name, parameter in task.named_parameters() if id(parameter) in members]


def _separate(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Own, contiguous CPU copies: safetensors refuses tensors that share memory (tied weights)."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
