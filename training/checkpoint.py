"""Checkpoints: everything a run needs to go on, whole or absent, written while the training goes on.

`runs/<run>/checkpoints/<attempt>/<step>/`:

    <rank>-<part>.safetensors   blocks of tensors (names: `training.pieces`), on each worker its own
    <rank>.json                 of each block its file, the whole tensor's shape and the block's offset per dimension;
                                of each file its SHA-256
    manifest.json               written by rank 0 when all workers' files are whole: SHA-256 of every file, and facts

A checkpoint exists when the run's log names its manifest by SHA-256. So any number of workers, sharded or not, reads
what any other number wrote. torch's distributed checkpoints are not used because their metadata is a pickle. Nothing
random is in a checkpoint: dropout, masks and the order of samples are functions of (seed, step, sample).
"""

import json
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import suppress
from typing import Any

import torch

from infra.artifacts import Damaged, check_format
from infra.digests import digest_bytes, digest_file
from infra.errors import SlipwayError, WrongInput
from infra.patience import PATIENCE_S, patiently
from infra.store import NotFound, Store
from training.blocks import Blocks
from training.buffers import Buffers, Part
from training.pieces import model_tensors, optimizer_keys, own_pieces
from training.sharding import World
from training.state import TrainState

FORMAT = 2
LOGGER = logging.getLogger(__name__)
RETRY_S = 60.0
"""How long a checkpoint is tried again while the training goes on; then the next one is due instead."""

Say = Callable[[str], None]


class Checkpoints:
    """Writes the checkpoints of one attempt, one at a time; every worker has one.

    `save` copies this worker's part into buffers that are used again, and a thread writes them. Each worker asks
    `written` and, at the same step as the others, is told the sums (`heard`); then rank 0 writes the manifest and calls
    `record` in its thread, which adds the run log's entry. So what `save` costs the training is the copy.
    """

    def __init__(
        self,
        store: Store,
        run: str,
        attempt: int,
        world: World,
        *,
        keep: int,
        record: Callable[[dict[str, Any]], Any],
        say: Say = LOGGER.warning,
    ):
        self.store, self.folder, self.attempt, self.world = store, f"runs/{run}/checkpoints", attempt, world
        self.keep, self.record, self.say = keep, record, say
        self.buffers = Buffers()
        self.writer = ThreadPoolExecutor(1, "checkpoint")
        self.write: Callable[[float], None]
        """Writes this worker's part of the newest checkpoint, trying for so many seconds."""
        self.part: Future[None] | None = None
        self.commit: Callable[[float], None]
        """On rank 0: makes that checkpoint exist, trying for so many seconds."""
        self.committing: Future[None] | None = None
        self.failing = False
        self.step = 0
        self.steps: list[int] = []
        """Of this attempt's checkpoints that exist."""

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is under way: `save` has to wait its turn."""
        return self.part is not None or (self.committing is not None and not self.committing.done())

    def save(self, step: int, state: TrainState) -> None:
        """Begin a checkpoint. Where one is under way, wait for this worker's part of it: the buffers are still read."""
        if self.part is not None:
            wait_for([self.part])
        self.step, place = step, f"{self.folder}/{self.attempt}/{step}"
        filled = self.buffers.fill(own_pieces(state, self.world))
        about = {"step": step, "workers": self.world.size, "facts": json.loads(json.dumps(state.facts))}
        self.write = lambda patience: self._write(place, about, filled, patience)
        self.commit = lambda patience: self._commit(place, about, patience)
        self.part, self.committing = self.writer.submit(self.write, RETRY_S), None

    def written(self) -> tuple[int, int]:
        """Of the checkpoint under way, (1 if this worker's part is whole, 1 if it was given up)."""
        if self.part is None or not self.part.done():
            return 0, 0
        return (0, 1) if self.part.exception() else (1, 0)

    def heard(self, whole: int, failed: int) -> None:
        """`written` summed over the workers."""
        if self.part is None or whole + failed < self.world.size:
            return
        self.part = None
        if failed:
            self._complain(self.step)(f"{failed} of {self.world.size} workers could not write their part")
            return
        if self.world.rank == 0:
            self.committing = self.writer.submit(self.commit, RETRY_S)
        else:
            self.failing = False

    def wait(self) -> None:
        """Until what is under way is done; what failed is tried once more, longer. Raises what it fails by."""
        if self.part is not None:
            wait_for([self.part])
            if self.part.exception():
                self.part = self.writer.submit(self.write, PATIENCE_S)
                self.part.result()
        if self.committing is not None:
            wait_for([self.committing])
            if self.committing.exception():
                self.committing = self.writer.submit(self.commit, PATIENCE_S)
                self.committing.result()

    def _write(self, place: str, about: dict[str, Any], filled: list[Part], patience: float) -> None:
        complain = self._complain(about["step"])
        try:
            patiently(lambda: self._write_part(place, about, filled), complain, patience)
        except Exception as error:
            complain(str(error))
            self._remove([f"{place}/{_file(self.world.rank, number)}" for number in range(len(filled))])
            raise

    def _write_part(self, place: str, about: dict[str, Any], filled: list[Part]) -> None:
        files, blocks = {}, {}
        for number, part in enumerate(filled):
            name, data = _file(self.world.rank, number), part.bytes()
            self.store.put(f"{place}/{name}", data)
            files[name] = {"sha256": digest_bytes(data), "bytes": len(data)}
            for piece in part.pieces:
                blocks[piece.name] = {"file": name, "shape": piece.shape, "offsets": piece.offsets}
        body = {"format": FORMAT, "files": files, "blocks": blocks}
        self.store.put(f"{place}/{self.world.rank:05d}.json", json.dumps(body, sort_keys=True).encode())

    def _commit(self, place: str, about: dict[str, Any], patience: float) -> None:
        step, facts = about["step"], about["facts"]
        complain = self._complain(step)
        try:
            manifest = patiently(lambda: self._write_manifest(place, about), complain, patience)
            best = {"best": facts["best"]} if "best" in facts else {}
            self.record({"step": step, "place": place, "digest": digest_bytes(manifest), **best})
        except Exception as error:
            complain(str(error))
            raise
        self.failing = False
        self.steps.append(step)
        self._discard(facts)

    def _write_manifest(self, place: str, about: dict[str, Any]) -> bytes:
        files: dict[str, Any] = {}
        for rank in range(about["workers"]):
            data = self.store.get(f"{place}/{rank:05d}.json")
            files |= json.loads(data)["files"]
            files[f"{rank:05d}.json"] = {"sha256": digest_bytes(data), "bytes": len(data)}
        manifest = json.dumps({"format": FORMAT, **about, "files": files}, indent=1, sort_keys=True).encode()
        self.store.put(f"{place}/manifest.json", manifest)
        return manifest

    def _complain(self, step: int) -> Say:
        """Says what is wrong once, until a checkpoint succeeds."""

        def say(what: str) -> None:
            if not self.failing:
                self.failing = True
                self.say(f"checkpoint of step {step}: {what}; training goes on, the newest whole one stays")

        return say

    def _discard(self, facts: dict[str, Any]) -> None:
        """Remove what is neither among the newest checkpoints nor the best; those of attempts before only once this
        attempt has enough of its own."""
        kept = set(self.steps[-self.keep :])
        replaced = range(self.attempt if len(kept) == self.keep else 0)
        best = facts.get("best", {}).get("step")
        doomed = []
        with suppress(SlipwayError):
            for key in self.store.list(f"{self.folder}/"):
                attempt, step = (int(part) for part in key.removeprefix(f"{self.folder}/").split("/")[:2])
                # Of a later step than this one's, another worker may have written its part already.
                older = attempt == self.attempt and step not in kept and step < self.steps[-1]
                if step != best and (attempt in replaced or older):
                    doomed.append(key)
            for attempt in replaced:
                self.store.sweep(f"{self.folder}/{attempt}")
        self._remove(sorted(doomed, key=lambda key: not key.endswith("/manifest.json")))  # never half there

    def _remove(self, keys: list[str]) -> None:
        with suppress(SlipwayError):  # the store is away: what is left goes with the next old ones
            for key in keys:
                self.store.delete(key)


def _file(rank: int, number: int) -> str:
    return f"{rank:05d}-{number:03d}.safetensors"


def newest_whole(store: Store, entries: list[dict[str, Any]]) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """The newest checkpoint entry whose every file is there and unaltered, and the newer ones that are not: each with
    its `step`, `place` and `why`."""
    skipped: list[dict[str, Any]] = []
    for entry in reversed(entries):
        why = damage(store, entry)
        if why is None:
            return entry, skipped
        skipped.append({"step": entry["step"], "place": entry["place"], "why": why})
    return None, skipped


def damage(store: Store, entry: dict[str, Any]) -> str | None:
    """The first file that is missing or is not what was written, as one phrase; None when all is whole."""
    try:
        files = read_manifest(store, entry)["files"]
        for name, facts in files.items():
            if digest_file(store.local_path(f"{entry['place']}/{name}")) != facts["sha256"]:
                return f"{name} was altered"
    except NotFound as error:
        return f"{str(error.args[0]).rpartition('/')[2]} is missing"
    except Damaged:
        return "manifest.json was altered"
    return None


def read_manifest(store: Store, entry: dict[str, Any]) -> dict[str, Any]:
    """Raises NotFound, Damaged when it is not the one that the log's entry names, WrongInput for another format."""
    where = f"{entry['place']}/manifest.json"
    try:
        data = store.get(where)
    except NotFound:
        if store.exists(f"{entry['place']}/{entry['digest']}/manifest.json"):
            raise WrongInput(
                f"checkpoint {entry['place']}: has format 1, of before workers wrote their own parts; finish the run "
                "with the Slipway that began it, or train anew with another training.seed"
            ) from None
        raise
    if digest_bytes(data) != entry["digest"]:
        raise Damaged(f"{store.uri}: {where} was altered")
    manifest = json.loads(data)
    check_format(manifest, FORMAT, where)
    return manifest


def load_checkpoint(store: Store, entry: dict[str, Any], state: TrainState) -> int:
    """Put what a log entry names into the state, in place. Returns the number of steps done.

    Each worker reads the blocks it needs. Raises Damaged; WrongInput where weights and checkpoint differ in name or
    shape, naming the first that does.
    """
    manifest = read_manifest(store, entry)
    blocks = Blocks(store, entry["place"], manifest)
    weights = model_tensors(state.task)
    blocks.compare({f"model|{name}": tuple(value.shape) for name, value in weights.items()})
    for name, value in weights.items():
        blocks.fill(f"model|{name}", value)
    for phase, optimizer in state.optimizers.items():
        _fill_optimizer(blocks, phase, optimizer, weights)
    for stored in [name for name in blocks.of if name.startswith("average|")]:
        name = stored.removeprefix("average|")
        like = weights[name.rpartition("|")[2]]
        state.averages.setdefault(name, torch.empty_like(like, requires_grad=False))
        blocks.fill(stored, state.averages[name])
    state.facts.clear()
    state.facts.update(manifest["facts"])
    return manifest["step"]


def _fill_optimizer(
    blocks: Blocks, phase: str, optimizer: torch.optim.Optimizer, weights: dict[str, torch.Tensor]
) -> None:
    keys = optimizer_keys(list(blocks.of), phase)
    names = {id(value): name for name, value in weights.items()}
    parameters = [names[id(value)] for group in optimizer.param_groups for value in group["params"]]
    found: dict[int, dict[str, torch.Tensor]] = {}
    for number, name in enumerate(parameters):
        for key in keys.get(name, ()):
            stored = f"optimizer|{phase}|{name}|{key}"
            like = weights[name].detach()
            # State of the parameter's shape lies where the parameter lies; the rest (step counts) on every worker.
            same = blocks.shape(stored) == tuple(like.shape) and like.ndim > 0 and key != "step"
            value = torch.empty_like(like) if same else torch.empty(blocks.shape(stored))
            blocks.fill(stored, value)
            found.setdefault(number, {})[key] = value
    # torch puts each value where its kind of optimiser wants it: a fused one its step counts on the GPU.
    optimizer.load_state_dict({"state": found, "param_groups": optimizer.state_dict()["param_groups"]})
