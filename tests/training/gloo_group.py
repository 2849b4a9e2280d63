"""Worker processes that stay: functions are run in them, all at once, as members of one gloo group."""

import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch.multiprocessing as mp

from training.sharding import Sharding, World

PATIENCE_S = 120


class GlooGroup:
    """`run(f, *arguments)` calls `f(world, *arguments)` in each process and returns what each returned, by rank.

    f: a function of a module, not of a test. A group in which one failed is started anew, because the others may wait
    for it for ever.
    """

    def __init__(self, size: int, folder: Path):
        self.size, self.folder = size, folder
        self.starts = 0
        self.workers: list[tuple[Any, Connection]] = []

    def start(self) -> None:
        self.starts += 1
        meeting = self.folder / f"meeting-{self.size}-{self.starts}"
        context = mp.get_context("spawn")
        root = str(Path(__file__).parents[2])  # the children import the test's module
        sys.path.insert(0, root)
        try:
            for rank in range(self.size):
                here, there = context.Pipe()
                process = context.Process(target=_serve, args=(there, rank, self.size, str(meeting)), daemon=True)
                process.start()
                there.close()
                self.workers.append((process, here))
        finally:
            sys.path.remove(root)

    def run(self, function: Callable[..., Any], *arguments: Any, sharding: Sharding = "ddp") -> list[Any]:
        if not self.workers:
            self.start()
        for _, pipe in self.workers:
            pipe.send((function, sharding, arguments))
        answers: dict[int, Any] = {}
        errors: list[str] = []
        waiting: dict[Any, int] = {pipe: rank for rank, (_, pipe) in enumerate(self.workers)}
        while waiting:
            ready = wait(list(waiting), 5 if errors else PATIENCE_S)
            if not ready:
                errors += [f"rank {rank} does not answer" for rank in waiting.values()]
                break
            for one in ready:
                rank = waiting.pop(one)
                try:
                    whole, answers[rank] = self.workers[rank][1].recv()
                except EOFError:
                    whole, answers[rank] = False, "died"
                if not whole:
                    errors.append(f"rank {rank}: {answers[rank]}")
        if errors:
            self.close()
            raise AssertionError("\n".join(errors))
        return [answers[rank] for rank in range(self.size)]

    def close(self) -> None:
        for _, pipe in self.workers:
            pipe.close()
        for process, _ in self.workers:
            process.join(10)
            if process.is_alive():
                process.kill()
        self.workers = []


def _serve(pipe: Connection, rank: int, size: int, meeting: str) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    while True:
        try:
            function, sharding, arguments = pipe.recv()
        except EOFError:
            break
        try:
            pipe.send((True, function(World(rank, size, sharding=sharding), *arguments)))
        except Exception:
            pipe.send((False, traceback.format_exc()))
    if dist.is_initialized():
        dist.barrier()  # a worker that leaves while another still sends makes that one abort
        dist.destroy_process_group()
