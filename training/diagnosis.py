"""A look into the layers, now and then: what a loss curve does not say, in metrics and in plain words.

Every N steps, and at the first few powers of two: the norm of each layer's gradient, the size of its update beside its
own, dead and saturated units behind its activations. It reads and changes nothing: a run with it and one without have
the same bits. What it finds is said once, when two looks in a row have seen it.

Sees what is a module: an activation that is a plain function call inside `forward` has no hook.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from training.averages import local
from training.pieces import model_tensors
from training.sharding import World
from training.task import Task

NUM_LAYERS = 24
"""At most so many layers have metrics of their own, spread evenly over the depth."""
FIRST_LOOKS = 32
UPDATE = 0.5
"""An update as large as half of the weights it moves. Usual is about 0.001 (Karpathy, "makemore" part 3)."""
USUAL_SIZE = 0.02
"""What a layer's weights are measured against at least, per element (BERT's initial spread): some begin at 0."""
DEPTH = 1e5
"""Between the gradients of the first and the last layers."""
STEEP = 1e4
"""A gradient so many times as large as the weights."""
SATURATED, DEAD = 0.9, 0.5
"""Share of a layer's activations at their limits; share of its units that are silent for all of a batch."""
EDGE = 0.01
"""Of the whole range: nearer than this a sigmoid is at its limit, and its gradient below 4 % of the largest."""
SILENT = 1e-3
"""Largest output of a silent unit behind GELU or SiLU, which come near 0 but not to it."""
FEWEST = 16
"""Positions (samples, tokens) that a unit must have been silent for."""
LIMITS = {"Sigmoid": (0.0, 1.0), "Hardsigmoid": (0.0, 1.0), "Tanh": (-1.0, 1.0), "Hardtanh": (-1.0, 1.0)}


class Diagnosis:
    """One run's looks. Each worker has one; what units do is seen on the worker's own share of the batch."""

    def __init__(self, task: Task, every: int | None, world: World):
        self.task, self.every, self.world = task, every, world
        self.layers = layers_of(task)
        names = list(self.layers)
        picked = {round(place * (len(names) - 1) / (NUM_LAYERS - 1)) for place in range(NUM_LAYERS)}
        self.shown = names if len(names) <= NUM_LAYERS else [names[place] for place in sorted(picked)]
        self.seen: set[tuple[str, str]] = set()
        self.told: set[tuple[str, str]] = set()
        self.units: Units | None = None
        self.gradients: dict[str, float] = {}
        self.updates: dict[str, float] = {}
        self.steepness: dict[str, float] = {}

    def begin(self, step: int) -> bool:
        """Whether to look at the step that makes `step` steps done."""
        self.units, self.gradients, self.updates, self.steepness = None, {}, {}, {}
        first = step <= FIRST_LOOKS and step & (step - 1) == 0
        if self.every is None or not (first or step % self.every == 0):
            return False
        self.units = Units()
        return True

    @contextmanager
    def forward(self) -> Iterator[None]:
        """The context of a forward pass."""
        if self.units is None:
            yield
            return
        handles = self.units.listen(self.task)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def update(self, parameters: Sequence[torch.Tensor]) -> Iterator[None]:
        """The context of clipping and of the optimiser's step, which moves these parameters."""
        if self.units is None:
            yield
            return
        moved = {id(value) for value in parameters if value.grad is not None}
        layers = {name: [one for one in owned if id(one) in moved] for name, owned in self.layers.items()}
        layers = {name: owned for name, owned in layers.items() if owned}
        flat = [value for owned in layers.values() for value in owned]
        gradients = _squares([value.grad for value in flat])
        before = [local(value).clone() for value in flat]
        yield
        torch._foreach_sub_(before, [local(value) for value in flat])
        sums = torch.stack([gradients, _squares(before), _squares(flat)], dim=1).double().cpu()
        if self.world.size > 1 and self.world.sharding == "fsdp":
            self.world.sum(sums)
        begin = 0
        for name, owned in layers.items():
            gradient, change, size = sums[begin : begin + len(owned)].sum(0).sqrt().tolist()
            least = USUAL_SIZE * sum(value.numel() for value in owned) ** 0.5
            self.gradients[name], self.updates[name] = gradient, change / max(size, least)
            self.steepness[name] = gradient / max(size, least)
            begin += len(owned)

    def metrics(self) -> dict[str, float]:
        found = {}
        for name in self.shown:
            if name in self.gradients:
                found[f"layer/{name}/gradient_norm"] = self.gradients[name]
                found[f"layer/{name}/update_ratio"] = self.updates[name]
        return found

    def findings(self) -> list[str]:
        """What two looks in a row have seen and no finding said before, in plain words."""
        now = {**self._updates(), **self._size(), **self._depth(), **(self.units.findings() if self.units else {})}
        found = [sentence for key, sentence in now.items() if key in self.seen and key not in self.told]
        self.told |= self.seen & now.keys()
        self.seen = set(now)
        return found

    def _updates(self) -> dict[tuple[str, str], str]:
        layer = max(self.updates, key=lambda name: self.updates[name], default="")
        if not layer or self.updates[layer] <= UPDATE:
            return {}
        return {
            ("learning rate", ""): f"the learning rate is too high: a step moves layer '{layer}' by "
            f"{self.updates[layer]:.2g} times its own size (usual is about 0.001); lower training.learning_rate"
        }

    def _depth(self) -> dict[tuple[str, str], str]:
        names = list(self.gradients)
        if len(names) < 4:
            return {}
        quarter = max(1, len(names) // 4)
        first, last = names[:quarter], names[-quarter:]
        far, near = (max(self.gradients[name] for name in part) for part in (first, last))
        end = min(first, key=lambda name: self.gradients[name]) if far < near else names[0]
        sizes = f"its norm is {self.gradients[end]:.1e} in layer '{end}' and {near:.1e} near the output"
        if near > DEPTH * far:
            return {("vanishing", ""): f"the gradient vanishes with depth: {sizes}; normalise or add residual paths"}
        if far > DEPTH * near:
            return {("exploding", ""): f"the gradient explodes with depth: {sizes}; normalise or start smaller"}
        return {}

    def _size(self) -> dict[tuple[str, str], str]:
        layer = max(self.steepness, key=lambda name: self.steepness[name], default="")
        if not layer or self.steepness[layer] <= STEEP:
            return {}
        return {
            ("exploding", ""): f"the gradient explodes: in layer '{layer}' its norm is {self.gradients[layer]:.1e}, "
            f"{self.steepness[layer]:.0e} times that of the weights; normalise layers or targets, or start smaller"
        }


class Units:
    """What the units behind activation modules do in one step."""

    def __init__(self) -> None:
        self.alive: dict[str, torch.Tensor] = {}
        self.positions: dict[str, int] = {}
        self.at_limit: dict[str, list[torch.Tensor]] = {}

    def listen(self, task: Task) -> list[Any]:
        handles = []
        self.calls: dict[str, int] = {}
        for name, module in task.named_modules():
            kind = type(module).__name__
            if kind in LIMITS:
                handles.append(module.register_forward_hook(self._limits(name, LIMITS[kind])))
            elif kind.startswith(("ReLU", "SiLU")) or "GELU" in kind:
                handles.append(module.register_forward_hook(self._silence(name, 0.0 if "ReLU" in kind else SILENT)))
        return handles

    def _called(self, name: str) -> str:
        """A module may be used at several places: each call is a layer of its own."""
        self.calls[name] = self.calls.get(name, 0) + 1
        return name if self.calls[name] == 1 else f"{name}, use {self.calls[name]}"

    def _limits(self, name: str, limits: tuple[float, float]) -> Any:
        low, high = limits
        middle, reach = (low + high) / 2, (high - low) * (0.5 - EDGE)

        def hook(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
            share = ((output.detach() - middle).abs() > reach).float().mean()
            self.at_limit.setdefault(self._called(name), []).append(share)

        return hook

    def _silence(self, name: str, largest: float) -> Any:
        def hook(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
            key, out = self._called(name), output.detach()
            unit = 1 if out.ndim == 4 else out.ndim - 1  # (N, C, H, W), else (..., units)
            alive = out.abs().amax([place for place in range(out.ndim) if place != unit]) > largest
            self.alive[key] = self.alive[key] | alive if key in self.alive else alive
            self.positions[key] = self.positions.get(key, 0) + out.numel() // out.shape[unit]

        return hook

    def findings(self) -> dict[tuple[str, str], str]:
        found = {}
        for name, shares in self.at_limit.items():
            if (share := float(torch.stack(shares).mean())) > SATURATED:
                found["saturated", name] = (
                    f"layer '{name}' is saturated: {share:.0%} of its outputs are at their limits, where hardly any "
                    "gradient passes; start smaller or normalise what it is given"
                )
        for name, alive in self.alive.items():
            dead = 1 - float(alive.float().mean())
            if dead > DEAD and self.positions[name] >= FEWEST:
                found["dead", name] = (
                    f"{dead:.0%} of the units of layer '{name}' are dead: they give nothing for any of "
                    f"{self.positions[name]} positions; lower the learning rate or start their biases higher"
                )
        return found


def layers_of(task: Task) -> dict[str, list[torch.Tensor]]:
    """Layer -> its trainable parameters, in the order of the model: the task's shards (a transformer's layers), and
    each other module that has parameters of its own."""
    shards = {id(module) for module in task.shards()}
    prefixes = [name for name, module in task.named_modules() if id(module) in shards]
    layers: dict[str, list[torch.Tensor]] = {}
    for name, value in model_tensors(task).items():
        if value.requires_grad:
            owner = next((one for one in prefixes if name.startswith(f"{one}.")), name.rpartition(".")[0] or name)
            layers.setdefault(owner, []).append(value)
    return layers


def _squares(tensors: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """The sum of squares of each, of this worker's part."""
    return torch.stack(torch._foreach_norm([local(one) for one in tensors if one is not None])).square()
