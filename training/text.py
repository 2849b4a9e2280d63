"""Text as tokens: tokenizers trained or taken over, token files memory-mapped, batches packed without padding."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from infra.errors import WrongInput

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


MAX_CHARACTERS = 1000
"""Distinct characters that a trained vocabulary holds; rarer ones become [UNK]."""


def train_wordpiece(texts: Iterable[str], vocab_size: int) -> "Tokenizer":
    """A lower-casing WordPiece tokenizer with BERT's normaliser, pre-tokeniser and [CLS] a [SEP] b [SEP] template.

    The same texts give the same tokenizer. The library's trainer alone does not: it numbers the pieces `##c` as it
    meets them in a hash map whose order is random, and settles equal counts by those numbers. So they are numbered
    beforehand, as if they were special tokens, and the vocabulary that comes out is put into a fresh model.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    characters: Counter[str] = Counter()
    for word, count in words.items():
        characters.update(dict.fromkeys(word, count))
    kept = sorted(characters, key=lambda one: (-characters[one], one))[:MAX_CHARACTERS]
    inner = sorted({character for word in words for character in word[1:]} & set(kept))
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL, *(f"##{character}" for character in inner)],
        initial_alphabet=kept,
        limit_alphabet=len(kept),
        show_progress=False,
    )
    scratch = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    scratch.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    scratch.train_from_iterator((" ".join([word] * count) for word, count in words.items()), trainer)

    tokenizer = Tokenizer(models.WordPiece(scratch.get_vocab(), unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.decoder = decoders.WordPiece()
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return tokenizer


def settle_tokenizer(
    base: Path | None, rows: Sequence[str] | Sequence[tuple[str, str]], vocab_size: int, say: Callable[[str], None]
) -> "Tokenizer":
    """The base's tokenizer where there is a base, else one trained on these texts or pairs."""
    if base is not None:
        return load_tokenizer(base)
    say(f"training a WordPiece tokenizer on {len(rows):,} texts")
    return train_wordpiece((row if isinstance(row, str) else " ".join(row) for row in rows), vocab_size)


def load_tokenizer(folder: Path) -> "Tokenizer":
    """The fast tokenizer of a model folder. Raises WrongInput when the folder has none."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise WrongInput(f"model folder {folder}: has no tokenizer.json; give a folder saved with a fast tokenizer")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()  # a published tokenizer.json may pad and cut by itself; batches here are packed
    tokenizer.no_truncation()
    return tokenizer


def mask_id(tokenizer: "Tokenizer") -> int:
    """The id of the token that hides others. Raises WrongInput when the tokenizer has none."""
    for name in ("[MASK]", "<mask>"):
        found = tokenizer.token_to_id(name)
        if found is not None:
            return int(found)
    raise WrongInput("tokenizer: has no [MASK] token; give a folder with a BERT-like tokenizer.json")


def special_ids(tokenizer: "Tokenizer") -> np.ndarray:
    """Which ids are special tokens: (vocabulary,) bool."""
    special = np.zeros(tokenizer.get_vocab_size(), dtype=bool)
    special[[number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special]] = True
    return special


@dataclass(frozen=True)
class Tokens:
    """Token ids of many texts, end to end. ids: (tokens,) int32; offsets: (N + 1,) int64; types: like ids, or None."""

    ids: np.ndarray
    offsets: np.ndarray
    types: np.ndarray | None = None
    truncated: int = 0
    """How many texts were cut to the length budget."""

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1


def tokenize(tokenizer: "Tokenizer", rows: Sequence[str] | Sequence[tuple[str, str]], max_length: int) -> Tokens:
    """Tokenise texts or pairs; each is cut to `max_length` tokens, the special ones included."""
    tokenizer.enable_truncation(max_length)
    encoded = tokenizer.encode_batch_fast(list(rows))
    tokenizer.no_truncation()
    lengths = np.fromiter((len(one.ids) for one in encoded), dtype=np.int64, count=len(encoded))
    total = int(lengths.sum())
    ids = np.fromiter((token for one in encoded for token in one.ids), dtype=np.int32, count=total)
    pairs = bool(rows) and not isinstance(rows[0], str)
    types = np.fromiter((kind for one in encoded for kind in one.type_ids), np.int8, total) if pairs else None
    truncated = sum(bool(one.overflowing) for one in encoded)
    return Tokens(ids, np.concatenate([[0], np.cumsum(lengths)]), types, truncated)


def write_tokens(path: Path, tokens: Tokens, columns: Mapping[str, Any]) -> None:
    """One uncompressed Arrow file: `input_ids` (and `type_ids`) as lists, beside the given columns. Same input, same
    bytes."""
    import pyarrow as pa

    offsets = pa.array(tokens.offsets, pa.int64())
    arrays = {"input_ids": pa.LargeListArray.from_arrays(offsets, pa.array(tokens.ids))}
    if tokens.types is not None:
        arrays["type_ids"] = pa.LargeListArray.from_arrays(offsets, pa.array(tokens.types))
    write_arrow(path, {**columns, **arrays})


def write_arrow(path: Path, columns: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """One uncompressed Arrow file of these columns. Same input, same bytes."""
    import pyarrow as pa

    table = pa.table(dict(columns)).combine_chunks().replace_schema_metadata(metadata)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def read_arrow(path: Path) -> Any:
    """A pyarrow.Table, memory-mapped."""
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


@dataclass(frozen=True)
class TokenFile:
    """An opened token file: nothing is copied until a batch is cut out."""

    tokens: Tokens
    columns: Any
    """The pyarrow.Table it came from."""

    @classmethod
    def open(cls, path: Path) -> "TokenFile":
        table = read_arrow(path)
        if table.num_rows == 0:
            return cls(Tokens(np.empty(0, np.int32), np.zeros(1, np.int64)), table)
        lists = table["input_ids"].combine_chunks()
        types = table["type_ids"].combine_chunks().values.to_numpy() if "type_ids" in table.column_names else None
        return cls(Tokens(lists.values.to_numpy(), lists.offsets.to_numpy(), types), table)

    def __len__(self) -> int:
        return len(self.tokens)

    def row_ids(self, index: np.ndarray) -> list[str]:
        return self.columns["row_id"].take(index).to_pylist()


def pack(tokens: Tokens, index: np.ndarray, first_position: int = 0) -> "dict[str, Any]":
    """The texts of `index` (N,) end to end: `input_ids` (1, tokens), `type_ids` if any, and their `boundaries`."""
    import torch

    from training.attention import Boundaries

    lengths = tokens.lengths[index]
    starts = np.repeat(tokens.offsets[:-1][index] - (np.cumsum(lengths) - lengths), lengths)
    flat = starts + np.arange(int(lengths.sum()))
    batch: dict[str, Any] = {
        "input_ids": torch.from_numpy(tokens.ids[flat].astype(np.int64))[None],
        "lengths": torch.from_numpy(lengths),
    }
    if tokens.types is not None:
        batch["type_ids"] = torch.from_numpy(tokens.types[flat].astype(np.int64))[None]
    batch["boundaries"] = Boundaries.of(batch["lengths"], first_position)
    return batch


def encode_packed(encoder: "torch.nn.Module", batch: Mapping[str, Any]) -> "torch.Tensor":
    """The last hidden states of a packed batch, (tokens, width). The encoder sees the samples sorted by length, so that
    the tokens change places twice a forward pass and not in every layer."""
    import torch

    boundaries, inputs = batch["boundaries"], {"input_ids": batch["input_ids"]}
    if "type_ids" in batch:
        inputs["token_type_ids"] = batch["type_ids"]
    order = boundaries.sorting
    if order is not None:
        boundaries, inputs = boundaries.sorted(), {name: ids[:, order] for name, ids in inputs.items()}
    position_ids = boundaries.position_ids + getattr(encoder, "first_position", 0)
    states = encoder(**inputs, position_ids=position_ids, boundaries=boundaries).last_hidden_state[0]
    return states if order is None else torch.empty_like(states).index_copy(0, order, states)


def mean_pool(hidden: "torch.Tensor", lengths: "torch.Tensor") -> "torch.Tensor":
    """The mean over each text's tokens. hidden: (tokens, D), lengths: (N,). Returns (N, D)."""
    import torch

    owner = torch.repeat_interleave(torch.arange(len(lengths), device=hidden.device), lengths)
    total = torch.zeros(len(lengths), hidden.shape[1], dtype=hidden.dtype, device=hidden.device)
    return total.index_add(0, owner, hidden) / lengths[:, None].to(hidden.dtype)


def by_length(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Indexes in groups of at most `budget` tokens, similar lengths together: the order for answering many rows."""
    groups: list[np.ndarray] = []
    order = np.argsort(lengths, kind="stable")
    begin, total = 0, 0
    for end, index in enumerate(order):
        if end > begin and total + lengths[index] > budget:
            groups.append(order[begin:end])
            begin, total = end, 0
        total += int(lengths[index])
    return [*groups, order[begin:]] if len(order) else []


def text_rows(table: Any, inputs: Sequence[str]) -> list[Any]:
    """The input columns of a table as texts (one column) or pairs (two), a null as an empty text. Raises WrongInput for
    more."""
    columns = [["" if value is None else value for value in table[name].to_pylist()] for name in inputs[:2]]
    if len(inputs) == 1:
        return columns[0]
    if len(inputs) == 2:
        return list(zip(*columns, strict=True))
    raise WrongInput(f"contract: slipway.inputs names {len(inputs)} columns; a text recipe reads one text or a pair")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps({"format": 1, **value}, indent=1, sort_keys=True), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
