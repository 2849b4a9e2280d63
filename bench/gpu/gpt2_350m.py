"""A GPT-2 of 355 million parameters in bf16 on one GPU: Slipway's loop beside HF Trainer, by tokens a second and MFU.

    python bench/gpu/gpt2_350m.py            says "no GPU" where there is none
    python bench/gpu/gpt2_350m.py --tiny     a toy of the same code on the CPU in float32: shows that it runs, no more

Same weights, same batches of whole blocks (no padding on either side), fused AdamW, dropout 0, neither compiled.
Weighed by the clock after a warm-up; the losses of the two must agree at every step. MFU counts 6 N + 12 L T d
operations a token (Chowdhery et al., "PaLM", 2022, appendix B) against the GPU's dense bf16 peak from its maker's data
sheet.
"""

import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from arms import answer_as_arm, report, run_arms

SIZES: dict[str, dict[str, Any]] = {
    "350m": {"n_layer": 24, "n_embd": 1024, "n_head": 16, "vocab_size": 50304, "n_positions": 1024, "batch": 16,
             "micro": 8, "steps": 90, "warm": 40, "tolerance": 2e-2},
    "tiny": {"n_layer": 2, "n_embd": 64, "n_head": 2, "vocab_size": 512, "n_positions": 64, "batch": 4,
             "micro": 2, "steps": 6, "warm": 2, "tolerance": 1e-4},
}  # fmt: skip
PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12,
         "RTX 4090": 165e12, "V100": 125e12}  # fmt: skip
"""Dense bf16 operations a second (V100: float16). The first name that the GPU's own name holds counts."""


def blocks(size: dict[str, Any]) -> Any:
    """(samples, T) token ids, as many as the run reads."""
    import torch

    generator = torch.Generator().manual_seed(1)
    return torch.randint(size["vocab_size"], (size["steps"] * size["batch"], size["n_positions"]), generator=generator)


def build(size: dict[str, Any]) -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {name: size[name] for name in ("n_layer", "n_embd", "n_head", "vocab_size", "n_positions")}
    torch.manual_seed(0)
    still = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    return GPT2LMHeadModel(GPT2Config(**shape, **still, use_cache=False, bos_token_id=None, eos_token_id=None))


def arm(name: str, folder: Path) -> Any:
    """Loss at each step, and seconds of the steps after the warm-up."""
    import torch

    size = SIZES[(folder / "size").read_text()]
    device = torch.device("cuda", 0) if torch.cuda.is_available() and size is not SIZES["tiny"] else torch.device("cpu")
    losses, seconds = (slipway if name == "slipway" else trainer)(size, device, folder)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    parameters = sum(value.numel() for value in build(size).parameters())
    return {"losses": losses, "seconds": seconds, "gpu_bytes": peak, "parameters": parameters}


def slipway(size: dict[str, Any], device: Any, folder: Path) -> tuple[list[float], float]:
    import numpy as np
    import torch
    from torch.nn import functional

    from training import loop, task
    from training.attention import Boundaries, use_packed_attention
    from training.experiment import Training

    data = blocks(size)

    class NextToken(task.Task):
        def __init__(self) -> None:
            super().__init__()
            self.model = build(size)
            use_packed_attention(self.model)

        def forward(self, batch: task.Batch, phase: str = "all") -> dict[str, Any]:
            boundaries = batch["boundaries"]
            states = self.model.transformer(
                input_ids=batch["ids"].reshape(1, -1), position_ids=boundaries.position_ids, boundaries=boundaries
            ).last_hidden_state.view(*batch["ids"].shape, -1)  # (N, T, D)
            logits = self.model.lm_head(states[:, :-1])
            targets = batch["ids"][:, 1:].reshape(-1)
            return {"loss": functional.cross_entropy(logits.float().flatten(0, 1), targets, reduction="sum")}

        def counts(self, batch: task.Batch) -> dict[str, float]:
            return {"loss": batch["ids"].shape[0] * (batch["ids"].shape[1] - 1)}

        def initial_losses(self) -> dict[str, float]:
            return {}

        def shards(self) -> list[torch.nn.Module]:
            return list(self.model.transformer.h)

    def batch(split: str, index: Any, keys: Any) -> task.Batch:
        lengths = torch.full((len(index),), size["n_positions"])
        return {"ids": data[torch.from_numpy(np.asarray(index))], "boundaries": Boundaries.of(lengths)}

    recipe: Any = SimpleNamespace(
        num_samples=lambda split: len(data) if split == "train" else 0, batch=batch, build=NextToken,
        refresh=lambda task, epoch: None,
    )  # fmt: skip
    losses: list[float] = []
    clock: dict[int, float] = {}

    class Clock(loop.Observer):
        def metrics(self, step: int, values: dict[str, float]) -> None:
            losses.append(values["loss"])  # the loop reads each step's loss: the GPU has done that step
            clock[step] = time.perf_counter()

    config = Training(epochs=1, batch_size=size["batch"], micro_batch_size=size["micro"], learning_rate=3e-4, warmup=0)
    loop.train(recipe, config, loop.World(device=device), Clock())
    # A step is reported in the step after it; the last is told at its end.
    return losses, clock[size["steps"] - 1] - clock[size["warm"] - 1]


def trainer(size: dict[str, Any], device: Any, folder: Path) -> tuple[list[float], float]:
    import datasets
    import numpy as np
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from training.randomness import stream_seed
    from training.sampler import SampleOrder

    data = blocks(size)
    _, order = SampleOrder(stream_seed(0, "samples"), len(data)).at(np.arange(len(data)))
    rows = data[torch.from_numpy(order)].tolist()
    clock: dict[int, float] = {}

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step in (size["warm"] - 1, size["steps"] - 1):
                if device.type == "cuda":
                    torch.cuda.synchronize()
                clock[state.global_step] = time.perf_counter()

    arguments = TrainingArguments(
        str(folder / "trainer"), num_train_epochs=1, per_device_train_batch_size=size["micro"],
        gradient_accumulation_steps=size["batch"] // size["micro"], learning_rate=3e-4, weight_decay=0.01,
        max_grad_norm=1.0, warmup_steps=0, optim="adamw_torch_fused", bf16=device.type == "cuda",
        use_cpu=device.type == "cpu",
        train_sampling_strategy="sequential", logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True,
    )  # fmt: skip
    # Trainer divides by the labels that are not -100, the first of each row too, which nothing predicts.
    rows_of = datasets.Dataset.from_dict({"input_ids": rows, "labels": [[-100, *row[1:]] for row in rows]})
    engine = Trainer(model=build(size), args=arguments, train_dataset=rows_of, callbacks=[Clock()])
    engine.train()
    losses = [float(entry["loss"]) for entry in engine.state.log_history if "loss" in entry]
    return losses, clock[size["steps"] - 1] - clock[size["warm"] - 1]


def main() -> None:
    import torch

    tiny = "--tiny" in sys.argv[1:]
    if not tiny and not torch.cuda.is_available():
        print("gpt2_350m: no GPU here; not measured")
        return
    chosen = "tiny" if tiny else "350m"
    size = SIZES[chosen]
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as name:
        (Path(name) / "size").write_text(chosen)
        arms = run_arms(__file__, ["trainer", "slipway"], Path(name), rounds=1 if tiny else 2)
    first, second = (arms[name].answer["losses"] for name in ("slipway", "trainer"))
    difference = max(abs(one - other) / other for one, other in zip(first, second, strict=True))
    device = "CPU" if tiny else torch.cuda.get_device_name(0)
    peak = next((peak for known, peak in PEAKS.items() if known in device), None)
    tokens = (size["steps"] - size["warm"]) * size["batch"] * size["n_positions"]
    facts = {}
    for name, one in arms.items():
        parameters = one.answer["parameters"]
        operations = 6 * parameters + 12 * size["n_layer"] * size["n_positions"] * size["n_embd"]
        rate = tokens / one.answer["seconds"]
        share = rate * operations / peak if peak else None
        facts[name] = {"tokens_per_second": rate, "mfu": share, "gpu_bytes": one.answer["gpu_bytes"]}
        mfu = f"MFU {share:.1%}" if share else f"MFU unknown: no peak known for {device}"
        print(f"{name:10}{rate:12,.0f} tokens/s   {one.answer['gpu_bytes'] / 1e9:6.1f} GB   {mfu}")
    print(f"{parameters:,} parameters on {device}; largest relative difference of the loss: {difference:.1e}")
    name = "gpt2_tiny" if tiny else "gpt2_350m"
    report(name, arms, difference <= size["tolerance"], device=device, compared=facts, size=size)


if __name__ == "__main__" and not answer_as_arm(arm):
    main()
