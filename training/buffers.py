"""A worker's part of a checkpoint in memory, laid out as its files: copied in at once, written out later."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from training.pieces import Piece

PART_BYTES = 256 << 20
"""Files are cut at this size, between tensors: S3 takes a file by one single put of at most 5 GB."""
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""torch -> safetensors."""


@dataclass(frozen=True)
class Part:
    """One file of a worker, in memory as it will be on disk; `pieces` are views of it."""

    whole: torch.Tensor
    """(bytes,) uint8, pinned where the training is on a GPU."""
    pieces: list[Piece]
    ready: Any
    """The CUDA event after the copy; None on a CPU."""

    def bytes(self) -> Any:
        if self.ready is not None:
            self.ready.synchronize()
        return self.whole.numpy().data


class Buffers:
    """One worker's files of a checkpoint in memory, made once and used again."""

    def __init__(self) -> None:
        self.layout: list[tuple[Any, ...]] = []
        self.parts: list[tuple[torch.Tensor, list[Piece]]] = []

    def fill(self, pieces: list[Piece]) -> list[Part]:
        """Copy the pieces; what was copied before is gone."""
        layout = [(piece.name, piece.offsets, piece.tensor.shape, piece.tensor.dtype) for piece in pieces]
        pinned = any(piece.tensor.is_cuda for piece in pieces)
        if layout != self.layout:  # the first time, and when an optimiser's state begins to exist
            self.layout, self.parts = [], []
            self.parts, self.layout = [_allocate(group, pinned) for group in _groups(pieces)], layout
        sources = {piece.name: piece.tensor for piece in pieces}
        for _, targets in self.parts:
            for target in targets:
                _copy(sources[target.name], target.tensor)
        ready = None
        if pinned:
            ready = torch.cuda.Event()
            ready.record()
        return [Part(whole, targets, ready) for whole, targets in self.parts]


def _copy(source: torch.Tensor, target: torch.Tensor) -> None:
    if source.is_cuda:
        target.copy_(source, non_blocking=True)
    else:
        # numpy copies in this thread alone. torch's threads wait for each other, and on cores that are shared that
        # made the copy ten times slower.
        bytes_of = source.contiguous().view(-1).view(torch.uint8)
        np.copyto(target.view(-1).view(torch.uint8).numpy(), bytes_of.numpy())


def _groups(pieces: list[Piece]) -> list[list[Piece]]:
    groups: list[list[Piece]] = [[]]
    room = PART_BYTES
    for piece in pieces:
        size = piece.tensor.numel() * piece.tensor.element_size()
        if size > room and groups[-1]:
            groups.append([])
            room = PART_BYTES
        groups[-1].append(piece)
        room -= size
    return groups


def _allocate(pieces: list[Piece], pinned: bool) -> tuple[torch.Tensor, list[Piece]]:
    """A safetensors file in memory: its header, and room for the tensors as views. The library's own writer would copy
    everything once more, and on the training's side of the copy."""
    header: dict[str, Any] = {}
    end = 0
    ordered = sorted(pieces, key=lambda piece: -piece.tensor.element_size())  # so that each is aligned
    for piece in ordered:
        begin, end = end, end + piece.tensor.numel() * piece.tensor.element_size()
        dtype = DTYPES[piece.tensor.dtype]
        header[piece.name] = {"dtype": dtype, "shape": list(piece.tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    whole = torch.empty(len(head) + end, dtype=torch.uint8, pin_memory=pinned)
    whole[: len(head)] = torch.frombuffer(bytearray(head), dtype=torch.uint8)
    views = []
    for piece in ordered:
        begin, end = (len(head) + offset for offset in header[piece.name]["data_offsets"])
        view = whole[begin:end].view(piece.tensor.dtype).view(piece.tensor.shape)
        views.append(Piece(piece.name, piece.shape, piece.offsets, view))
    return whole, views
