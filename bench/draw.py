"""Drawing pictures of 256 codes: keys and values kept, and everything read again for each code.

    python bench/draw.py [PICTURES]     default: 2 at once

A model of 4 layers of 128 with random weights draws 16 x 16 codes behind captions of two lengths, once as a caption
asks and once guided (each code read behind the caption and behind none). Both arms have to draw the same codes; how far
the probabilities differ is told. Goal: the cache takes a third of the processor's time at most.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from arms import Weighed, answer_as_arm, report, run_arms

ARMS = ["read again", "cached"]
GOAL = 3.0
GRID, CODES, GUIDANCE = 16, 512, 2.0


def arm(name: str, folder: Path) -> Any:
    """The codes drawn, the model's probabilities of them, and the CPU-seconds of drawing alone."""
    import time

    import numpy as np
    import torch

    from training.drawing import Drawer, chances
    from training.generation import Sampling
    from training.image_tokens import Layout, build_model
    from training.recipe import settings_class

    count, grid = (int((folder / file).read_text()) for file in ("pictures", "grid"))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layout = Layout(text_vocabulary=300, text_length=16, codes=CODES, grid=grid)
    model = build_model(layout, settings_class("dalle")(dropout=0.0)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)  # fresh weights find every code as likely
    texts = [np.array([0, *range(5, 8 + number % 2), 0]) for number in range(count)]
    drawer = Drawer(model, layout, cached=name == "cached")
    answer: dict[str, Any] = {"codes": [], "shares": []}
    begun = time.process_time()
    for guidance in (1.0, GUIDANCE):
        names = [f"picture {number}" for number in range(count)]
        codes, shares = drawer.draw(texts, chances(0, names, layout.image_tokens), Sampling(), guidance=guidance)
        answer["codes"].append(codes.tolist())
        answer["shares"].append(shares.tolist())
    return {**answer, "cpu_seconds": time.process_time() - begun}


def measure(count: int, rounds: int, grid: int = GRID) -> tuple[dict[str, Weighed], bool, dict[str, float]]:
    """The arms, whether they drew the same codes, and figures of both."""
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as name:
        folder = Path(name)
        (folder / "pictures").write_text(str(count))
        (folder / "grid").write_text(str(grid))
        weighed = run_arms(__file__, ARMS, folder, rounds=rounds)
    again, cached = (weighed[name] for name in ARMS)
    shares = [np.array(one.answer["shares"]) for one in (again, cached)]
    facts = {
        "image_tokens": grid**2,
        "read_again_cpu_seconds": again.least("cpu_seconds"),
        "cached_cpu_seconds": cached.least("cpu_seconds"),
        "speed_ratio": again.least("cpu_seconds") / cached.least("cpu_seconds"),
        "largest_difference_of_a_probability": float(np.abs(shares[0] - shares[1]).max()),
    }
    return weighed, again.answer["codes"] == cached.answer["codes"], facts


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    weighed, equal, facts = measure(count, rounds=3)
    print(
        f"{count} pictures of {facts['image_tokens']} codes: {facts['read_again_cpu_seconds']:.1f} CPU-seconds reading "
        f"again, {facts['cached_cpu_seconds']:.1f} cached: {facts['speed_ratio']:.1f} times (goal {GOAL:g})"
    )
    report("draw", weighed, equal, pictures=count, goal=GOAL, **facts)


if __name__ == "__main__" and not answer_as_arm(arm):
    main()
