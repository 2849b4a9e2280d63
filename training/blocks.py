"""The tensors of a checkpoint, put together from the blocks that its workers wrote."""

import json
from typing import Any

import torch
from safetensors import safe_open

from infra.artifacts import Damaged
from infra.digests import digest_file
from infra.errors import WrongInput
from infra.store import Store
from training.pieces import block, overlap


class Blocks:
    """The blocks of one checkpoint, by the tensor's name; each file is verified when it is opened."""

    def __init__(self, store: Store, place: str, manifest: dict[str, Any]):
        self.store, self.place, self.manifest = store, place, manifest
        self.of: dict[str, list[dict[str, Any]]] = {}
        for rank in range(manifest["workers"]):
            about = json.loads(self._path(f"{rank:05d}.json").read_bytes())
            for name, facts in about["blocks"].items():
                self.of.setdefault(name, []).append(facts)
        self.open: dict[str, Any] = {}

    def _path(self, name: str) -> Any:
        path = self.store.local_path(f"{self.place}/{name}")
        if digest_file(path) != self.manifest["files"][name]["sha256"]:
            raise Damaged(f"{self.store.uri}: {self.place}/{name} was altered; the same command takes the one before")
        return path

    def _file(self, name: str) -> Any:
        if name not in self.open:
            self.open[name] = safe_open(self._path(name), framework="pt")
        return self.open[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the whole tensor."""
        return tuple(self.of[name][0]["shape"])

    def compare(self, wanted: dict[str, tuple[int, ...]]) -> None:
        """Raises WrongInput when the model's tensors are not these."""
        stored = {name: self.shape(name) for name in self.of if name.startswith("model|")}
        for name in sorted(wanted.keys() | stored.keys()):
            if wanted.get(name) != stored.get(name):
                raise WrongInput(
                    f"checkpoint {self.place}: '{name.removeprefix('model|')}' is {_size(stored.get(name))} there and "
                    f"{_size(wanted.get(name))} in this model: another experiment's or another code's; use --fresh"
                )

    def fill(self, name: str, target: torch.Tensor) -> None:
        """This worker's block of `target`, in place."""
        piece = block(name, target)
        filled = 0
        for facts in self.of[name]:
            file = self._file(facts["file"])
            source = file.get_slice(name)
            if not piece.shape:
                piece.tensor.copy_(file.get_tensor(name))
                return
            met = overlap(tuple(piece.tensor.shape), piece.offsets, tuple(source.get_shape()), tuple(facts["offsets"]))
            if met is not None:
                inside, outside = met
                part = source[outside]
                piece.tensor[inside].copy_(part)
                filled += part.numel()
        if filled != piece.tensor.numel():
            raise Damaged(f"{self.store.uri}: {self.place} lacks a block of {name}; the same command takes another")


def _size(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else "x".join(map(str, shape)) or "a scalar"
