"""Checkpoints: everything a run needs to go on, whole or absent. safetensors and JSON, manifest last.

Nothing random is in them: dropout, masks and the order of samples are functions of (seed, step, sample).
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from infra import artifacts
from infra.store import NotFound, Store

KEEP = 2


def save_checkpoint(
    store: Store,
    run: str,
    attempt: int,
    step: int,
    task: torch.nn.Module,
    optimizers: dict[str, torch.optim.Optimizer],
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Write the state after `step` steps. Returns what the run log's entry says of it."""
    tensors, scalars = optimizer_state(task, optimizers)
    with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
        folder = Path(scratch)
        save_file(_separate(task.state_dict()), folder / "model.safetensors")
        save_file(_separate(tensors), folder / "optimizer.safetensors")
        body = {"format": 1, "step": step, "optimizer": scalars, **facts}
        (folder / "state.json").write_text(json.dumps(body, sort_keys=True), encoding="utf-8")
        written = artifacts.commit_folder(store, f"runs/{run}/checkpoints/{attempt}/{step}", folder)
    return {"step": step, "place": written.kind, "digest": written.digest}


def load_checkpoint(
    store: Store, entry: dict[str, Any], task: torch.nn.Module, optimizers: dict[str, torch.optim.Optimizer]
) -> dict[str, Any]:
    """Restore task and optimisers in place from a log entry. Returns the facts saved with them."""
    folder = artifacts.fetch(store, artifacts.load(store, entry["place"], entry["digest"]))
    task.load_state_dict(load_file(folder / "model.safetensors"))
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    artifacts.check_format(state, 1, f"{entry['place']}/state.json")
    tensors = load_file(folder / "optimizer.safetensors")
    for phase, optimizer in optimizers.items():
        for name, parameter in _owned(task, optimizer):
            prefix = f"{phase}|{name}|"
            restored: dict[str, Any] = {
                key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
            }
            restored |= state["optimizer"].get(f"{phase}|{name}", {})
            if "step" in restored:
                restored["step"] = torch.tensor(float(restored["step"]))
            if restored:
                optimizer.state[parameter] = {
                    key: value.to(parameter.device) if key != "step" and hasattr(value, "to") else value
                    for key, value in restored.items()
                }
    return state


def newest_whole(store: Store, entries: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The newest checkpoint entry whose every file is there and unaltered."""
    for entry in reversed(entries):
        if artifacts.is_whole(store, entry["place"], entry["digest"]):
            return entry
    return None


def discard_old(store: Store, entries: list[dict[str, Any]]) -> None:
    """Remove the files of all but the newest checkpoints; their manifests first, so that none is ever half there."""
    for entry in entries[:-KEEP]:
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
