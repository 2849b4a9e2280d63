"""Linear layers made smaller: as the tensors that are stored, and as the modules that answer.

    int8            weight_int8 (out, in) int8 and weight_scale (out,): one symmetric scale a row (Jacob et al., CVPR
                    2018, §2.1). What the layer reads is rounded as well, by one scale a token: by one for all of a
                    batch, as torch does it, an answer would depend on what is asked beside it (here by up to 0.18).
    pruning         weight_kept, a bit for each weight, and weight_values, those that are not 0: the largest of all
                    layers together (Han et al., NeurIPS 2015, §3). It saves bytes and no time: answering, it is dense.
    factorisation   weight_up (out, rank) and weight_down (rank, in): outputs projected on their principal directions
                    over training texts (Yu & Wu, "Compressing transformers: features are low-rank, but weights are
                    not!", AAAI 2023, §3.2), the mean kept in the bias.

Stored under `<layer>.<name>`, biases and all that is no linear layer as they were. No pickle: torch's own quantised
modules store one.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from infra.errors import WrongInput, choices
from training.attention import use_packed_attention

Layers = dict[str, torch.nn.Linear]
Tensors = dict[str, torch.Tensor]
FILE = "compressed.safetensors"
ENGINES = ("onednn", "x86", "fbgemm", "qnnpack")
"""Of torch's dynamic quantisation, what multiplies 8-bit integers. `torchao` is the other backend."""

TOKENS_AT_ONCE = 255
"""That an 8-bit layer reads: what it writes in between then stays in the processor's cache (twice as fast as all)."""


def linear_layers(encoder: torch.nn.Module) -> Layers:
    return {name: one for name, one in encoder.named_modules() if isinstance(one, torch.nn.Linear)}


def size(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes."""
    return sum(one.numel() * one.element_size() for one in tensors)


def engines() -> list[str]:
    """Those that multiply 8-bit integers on this machine, as installed."""
    known = [name for name in ENGINES if name in torch.backends.quantized.supported_engines]
    return known + ["torchao"] * (find_spec("torchao") is not None)


# What is stored.


def quantise(layers: Layers) -> Tensors:
    found = {}
    for name, layer in layers.items():
        weight = layer.weight.detach()
        scale = weight.abs().amax(1).clamp_min(1e-12) / 127
        found[f"{name}.weight_int8"] = (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
        found[f"{name}.weight_scale"] = scale
        found[f"{name}.bias"] = layer.bias.detach()
    return found


def prune(layers: Layers, keep: float) -> Tensors:
    """`keep`: the share of the weights of all layers that stays."""
    every = torch.cat([layer.weight.detach().abs().flatten() for layer in layers.values()])
    limit = every.kthvalue(max(1, round((1 - keep) * len(every)))).values
    found = {}
    for name, layer in layers.items():
        weight = layer.weight.detach().flatten()
        kept = weight.abs() > limit
        bits = torch.nn.functional.pad(kept, (0, -len(kept) % 8)).view(-1, 8).to(torch.uint8)
        found[f"{name}.weight_kept"] = (bits << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)
        found[f"{name}.weight_values"] = weight[kept]
        found[f"{name}.bias"] = layer.bias.detach()
    return found


class Factors:
    """The principal directions of each layer's outputs over some texts, from which factors of any rank are cut."""

    def __init__(self, layers: Layers, run: Callable[[], object]):
        """`run`: one or more forward passes over the texts. Outputs are added up in float64."""
        sums: dict[str, list[torch.Tensor]] = {}
        counts: dict[str, int] = {}

        def listen(name: str) -> Callable[..., None]:
            def hook(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
                rows = output.detach().flatten(0, -2)
                parts = sums.setdefault(name, [torch.zeros(1, dtype=torch.float64)] * 2)
                sums[name] = [parts[0] + rows.sum(0, dtype=torch.float64), parts[1] + (rows.T @ rows).double()]
                counts[name] = counts.get(name, 0) + len(rows)

            return hook

        handles = [layer.register_forward_hook(listen(name)) for name, layer in layers.items()]
        try:
            run()
        finally:
            for handle in handles:
                handle.remove()
        self.layers, self.means, self.directions = layers, {}, {}
        for name, (total, products) in sums.items():
            mean = total / counts[name]
            _, vectors = torch.linalg.eigh(products / counts[name] - mean[:, None] * mean)
            self.means[name], self.directions[name] = mean, vectors.flip(1)  # (out, out), the strongest first

    def cut(self, keep: float) -> Tensors:
        """Factors that together hold at most `keep` of each layer's weights."""
        found = {}
        for name, layer in self.layers.items():
            weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
            rank = max(1, int(keep * weight.numel() / sum(weight.shape)))
            up, mean = self.directions[name][:, :rank], self.means[name]
            found[f"{name}.weight_up"] = up.float().contiguous()
            found[f"{name}.weight_down"] = (up.T @ weight).float().contiguous()
            found[f"{name}.bias"] = (mean + up @ (up.T @ (bias - mean))).float()
        return found


# What answers.


class Int8Linear(torch.nn.Module):
    """A linear layer that rounds what it reads to 8 bits, by one scale a token, and multiplies integers."""

    def __init__(self, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, engine: str):
        """weight: (out, in) int8; scale: (out,); bias: (out,)."""
        super().__init__()
        zeros = torch.zeros(len(scale), dtype=torch.long)
        with _engine(engine), warnings.catch_warnings():
            # Announced to go in a later torch, with no eager successor but torchao's, which is slower here.
            warnings.filterwarnings("ignore", message=".*quantized tensor creation functions.*are deprecated")
            quantised = torch._make_per_channel_quantized_tensor(weight, scale.double(), zeros, 0)
            self.packed = torch.ops.quantized.linear_prepack(quantised, None)
        self.bias = bias
        # torch takes its scale from the ends of a batch: of tokens from -1 to 1, and this row, always the same one.
        self.ends = torch.zeros(1, weight.shape[1])
        self.ends[0, :2] = torch.tensor([-1.0, 1.0])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        parts = inputs.flatten(0, -2).split(TOKENS_AT_ONCE)
        return torch.cat([self._answer(part) for part in parts]).unflatten(0, inputs.shape[:-1])

    def _answer(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, in) -> (N, out)"""
        largest = tokens.abs().amax(1, keepdim=True).clamp_min(1e-12)
        answers = torch.ops.quantized.linear_dynamic(torch.cat([tokens / largest, self.ends]), self.packed)[:-1]
        return torch.addcmul(self.bias, answers, largest)


@contextmanager
def _engine(name: str) -> Iterator[None]:
    if name not in torch.backends.quantized.supported_engines:
        raise WrongInput(f"settings.engine: this machine's torch has no '{name}'; {choices(name, engines())}")
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


def _torchao(layer: torch.nn.Linear) -> torch.nn.Module:
    """torchao finds the same 8-bit weights again: their scales are symmetric, too. It rounds what it reads by token."""
    try:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
    except ImportError as error:
        raise WrongInput(f"settings.engine: torchao is not installed; {choices('torchao', engines())}") from error
    holder = torch.nn.Sequential(layer)
    quantize_(holder, Int8DynamicActivationInt8WeightConfig())
    return holder[0]


def _dense(weight: torch.Tensor, bias: torch.Tensor | None) -> torch.nn.Linear:
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = torch.nn.Parameter(bias, requires_grad=False)
    return layer


def _module(stored: Mapping[str, torch.Tensor], shape: torch.Size, engine: str) -> torch.nn.Module:
    """One layer. stored: its tensors; shape: (out, in)."""
    bias = stored["bias"]
    if "weight_int8" in stored:
        whole, scale = stored["weight_int8"], stored["weight_scale"]
        if engine == "torchao":
            return _torchao(_dense(whole * scale[:, None], bias))
        return Int8Linear(whole, scale, bias, engine)
    if "weight_up" in stored:
        return torch.nn.Sequential(_dense(stored["weight_down"], None), _dense(stored["weight_up"], bias))
    kept = (stored["weight_kept"][:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    weight = torch.zeros(shape.numel())
    weight[kept.flatten()[: len(weight)].bool()] = stored["weight_values"]
    return _dense(weight.view(shape), bias)


def put_in(encoder: Any, tensors: Tensors, engine: str) -> Any:
    """The encoder with its linear layers replaced by those that the tensors describe."""
    for name, layer in linear_layers(encoder).items():
        stored = {key.removeprefix(f"{name}."): one for key, one in tensors.items() if key.rpartition(".")[0] == name}
        encoder.set_submodule(name, _module(stored, layer.weight.shape, engine))
    return encoder


def save(encoder: torch.nn.Module, tensors: Tensors, folder: Path) -> None:
    """encoder: the original one, of which all but the linear layers is stored."""
    linear = linear_layers(encoder)
    rest = {name: one for name, one in encoder.state_dict().items() if name.rpartition(".")[0] not in linear}
    save_file({name: one.contiguous() for name, one in {**rest, **tensors}.items()}, folder / FILE)


def load(folder: Path, engine: str) -> Any:
    """The encoder of a folder that `save`'s file and transformers' configuration are in."""
    from transformers import AutoConfig, AutoModel

    encoder = AutoModel.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    encoder.pooler = None
    use_packed_attention(encoder)
    tensors = load_file(folder / FILE)
    rest = [name for name in encoder.state_dict() if name.rpartition(".")[0] not in linear_layers(encoder)]
    encoder.load_state_dict({name: tensors.pop(name) for name in rest}, strict=False)
    return put_in(encoder, tensors, engine)
