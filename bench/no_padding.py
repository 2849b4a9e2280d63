"""Fine-tuning a small BERT on texts of uneven length: HF Trainer as it comes, grouped by length, and Slipway's loop.

    python bench/no_padding.py [TEXTS] [FILE]       default 3,072 texts of FILE, one `text;label` a line

Same weights, same optimiser, one whole epoch, dropout 0, one thread. `trainer` pads each batch to its longest text and
gets Slipway's batches in Slipway's order: the two must show the same loss at every step, to 1e-4. `grouped` is the
same Trainer with `train_sampling_strategy="group_by_length"`: other batches, so its losses are its own. Weighed is
the training alone, in CPU-seconds, without imports and tokenising; the arms take turns and the smallest round counts.
Without FILE, the emotion set (Saravia et al., EMNLP 2018) is taken from the shared data beside the checkout; where it
is not there, texts of random words are made, as long as its own.
"""

import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from arms import Weighed, answer_as_arm, report, run_arms

ARMS = ["trainer", "grouped", "slipway"]
BATCH = 32
EMOTION = Path(__file__).parents[2] / "shared" / "data" / "emotion" / "train.txt"
SETTINGS: dict[str, Any] = {"vocab_size": 8000, "max_length": 128, "hidden_size": 256, "num_layers": 4, "num_heads": 4,
                            "intermediate_size": 1024, "dropout": 0.0}  # fmt: skip
TRAINING: dict[str, Any] = {"epochs": 1, "batch_size": BATCH, "learning_rate": 1e-4, "warmup": 0}
# Words a text of emotion's training file has, at these shares of the texts (counted on that file).
SHARES, WORDS = [0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1], [2, 5, 7, 11, 17, 25, 35, 41, 52, 66]
GOALS = {"trainer": 1.5, "grouped": 1.05}


def make(folder: Path, texts: int, file: Path | None) -> None:
    """What Slipway's recipe prepares, for every arm; the number of texts is cut to whole batches."""
    import numpy as np
    import pyarrow as pa

    texts -= texts % BATCH
    if file:
        pairs = [line.rsplit(";", 1) for line in file.read_text(encoding="utf-8").splitlines()[:texts]]
    else:
        random = np.random.default_rng(0)
        lengths = np.interp(random.random(texts), SHARES, WORDS).round().astype(int)
        pairs = [[" ".join(f"w{word}" for word in random.zipf(1.3, length) % 5000), f"label {length % 6}"]
                 for length in lengths]  # fmt: skip
    assert len(pairs) == texts, f"{file} holds {len(pairs)} lines, fewer than {texts}"
    columns = {"text": [text for text, _ in pairs], "label": [label for _, label in pairs]}
    table = pa.table({"row_id": [str(number) for number in range(texts)], **columns})
    contract = SimpleNamespace(name="texts", inputs=("text",), label="label")
    (folder / "prepared").mkdir()
    splits = {"train": table, "validation": table[:0], "test": table[:0]}
    recipe().prepare(splits, contract, folder / "prepared", lambda note: None)


def recipe() -> Any:
    from training.recipe import load_recipe

    module = load_recipe("text_classifier")
    return module.Recipe(module.Settings(**SETTINGS), {})


def arm(name: str, folder: Path) -> Any:
    """CPU-seconds and seconds of the training alone, its loss at each step, tokens seen by linear layers and real."""
    import torch

    torch.set_num_threads(1)
    opened = recipe()
    opened.open(folder / "prepared")
    return slipway(opened) if name == "slipway" else trainer(opened, name, folder)


def slipway(opened: Any) -> dict[str, Any]:
    from training import loop
    from training.experiment import Training

    losses: list[float] = []

    class Losses(loop.Observer):
        def metrics(self, step: int, values: dict[str, float]) -> None:
            losses.append(values["loss"])

    opened.build()  # what it imports is not training
    before = clocks()
    loop.train(opened, Training(**TRAINING), loop.World(), Losses())
    tokens = int(opened.files["train"].tokens.lengths.sum())
    return {"took": took(before), "losses": losses, "computed": tokens, "real": tokens}


def trainer(opened: Any, name: str, folder: Path) -> dict[str, Any]:
    import datasets
    import numpy as np
    import torch
    from transformers import PreTrainedTokenizerFast, Trainer, TrainingArguments

    from training.randomness import stream_seed
    from training.sampler import SampleOrder

    tokens, labels = opened.files["train"].tokens, opened.labels["train"]
    _, order = SampleOrder(stream_seed(0, "samples"), len(tokens)).at(np.arange(len(tokens)))
    ids = [tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].tolist() for row in order]
    masks, lengths = [[1] * len(one) for one in ids], [len(one) for one in ids]
    data = datasets.Dataset.from_dict(
        {"input_ids": ids, "attention_mask": masks, "labels": labels[order].tolist(), "length": lengths}
    )
    torch.manual_seed(stream_seed(0, "initial weights"))  # what Slipway's loop seeds its weights with
    model = padded_twin(opened.build())
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "prepared" / "tokenizer.json"), pad_token="[PAD]", model_max_length=128
    )
    arguments = TrainingArguments(
        str(folder / "trainer"), num_train_epochs=TRAINING["epochs"], per_device_train_batch_size=BATCH,
        learning_rate=TRAINING["learning_rate"], weight_decay=0.01, max_grad_norm=1.0, warmup_steps=0,
        train_sampling_strategy="group_by_length" if name == "grouped" else "sequential",
        logging_strategy="no", save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    engine = Trainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)
    before = clocks()
    engine.train()
    spent = took(before)
    return {"took": spent, "losses": [float(loss) for loss in model.losses], "computed": model.computed,
            "real": sum(lengths)}  # fmt: skip


def padded_twin(task: Any) -> Any:
    """The same weights as transformers runs them: padded rows, SDPA, the mean of each text's tokens, a linear layer."""
    import torch
    from torch.nn import functional

    class Padded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = task.encoder, task.head
            self.encoder.set_attn_implementation("sdpa")
            self.losses: list[Any] = []
            self.computed = 0

        def forward(self, input_ids: Any, attention_mask: Any, labels: Any, token_type_ids: Any = None) -> Any:
            self.computed += input_ids.numel()
            states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (N, T, D)
            real = attention_mask[..., None].to(states.dtype)
            logits = self.head((states * real).sum(1) / real.sum(1))
            loss = functional.cross_entropy(logits, labels)
            self.losses.append(loss.detach())
            return {"loss": loss, "logits": logits}

    return Padded()


def clocks() -> tuple[float, float]:
    import resource
    import time

    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, time.perf_counter()


def took(before: tuple[float, float]) -> list[float]:
    return [now - then for now, then in zip(clocks(), before, strict=True)]


def largest_difference(first: list[float], second: list[float]) -> float:
    """Of two loss curves, relative; infinite where one is longer."""
    if len(first) != len(second):
        return float("inf")
    return max(abs(one - other) / abs(other) for one, other in zip(first, second, strict=True))


def measure(texts: int, file: Path | None, rounds: int, arms: list[str] = ARMS) -> tuple[dict[str, Weighed], float]:
    """The arms, each weighed by its training alone, and how far `slipway`'s losses are from `trainer`'s."""
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as name:
        make(Path(name), texts, file)
        turns = [run_arms(__file__, arms, Path(name), rounds=1) for _ in range(rounds)]
    best = {}
    for one in arms:
        best[one] = min((turn[one] for turn in turns), key=lambda weighed: weighed.answer["took"][0])
        best[one].cpu_seconds, best[one].seconds = best[one].answer["took"]
    return best, largest_difference(best["slipway"].answer["losses"], best["trainer"].answer["losses"])


def main() -> None:
    texts = int(sys.argv[1]) if sys.argv[1:] else 3072
    file = Path(sys.argv[2]) if sys.argv[2:] else (EMOTION if EMOTION.is_file() else None)
    arms, difference = measure(texts, file, rounds=2)
    own, facts = arms["slipway"].cpu_seconds, {}
    print(f"{'':10}{'CPU s':>8}{'clock s':>9}{'tokens/CPU s':>14}{'padding':>9}{'slipway is':>12}{'goal':>7}")
    for name, one in arms.items():
        padding = 1 - one.answer["real"] / one.answer["computed"]
        ratio, goal = one.cpu_seconds / own, GOALS.get(name)
        facts[name] = {"padding_share": padding, "slipway_is_faster": ratio, "goal": goal}
        aim = f"{ratio:11.2f}x{goal:6.2f}x" if goal else ""
        speed = one.answer["real"] / one.cpu_seconds
        print(f"{name:10}{one.cpu_seconds:8.1f}{one.seconds:9.1f}{speed:14,.0f}{padding:9.1%}{aim}")
    steps = len(arms["slipway"].answer["losses"])
    print(f"largest relative difference of the loss over {steps} steps, trainer and slipway: {difference:.1e}")
    report("no_padding", arms, difference <= 1e-4, texts=texts, data=file.name if file else "generated", compared=facts,
           largest_loss_difference=difference)  # fmt: skip


if __name__ == "__main__" and not answer_as_arm(arm):
    main()
