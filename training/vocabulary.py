"""Tokenizers of language models, which give every text back: single characters, or byte pairs.

The same texts give the same tokenizer, byte for byte. WordPiece, which encoders read, is in `training.text`.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END = "<|endoftext|>"
"""Begins and ends each text, where a tokenizer has it."""
UNKNOWN = "<unk>"


def train_characters(texts: Iterable[str]) -> "Tokenizer":
    """One token for each character of the texts, in the order of their code points, behind the one for all others."""
    from tokenizers import Tokenizer, decoders, models

    characters = sorted(set().union(*texts))
    vocabulary = {token: number for number, token in enumerate([UNKNOWN, *characters])}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN)
    )  # three times as fast as WordLevel
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def train_bpe(texts: Iterable[str], vocab_size: int) -> "Tokenizer":
    """Byte-level byte-pair encoding as GPT-2's (Radford et al. 2019, §2.2): no text is unknown to it.

    The library's trainer is deterministic here: bytes are numbered beforehand, and equal counts settled by number.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def train_unigram(texts: Iterable[str], vocab_size: int) -> "Tokenizer":
    """A unigram language model of pieces (Kudo, "Subword regularization", ACL 2018, §3.2) over words with the space
    before them, as SentencePiece has it; it chooses the likeliest segmentation. Characters unseen here are unknown.

    The library's trainer finds the same pieces each time, but their scores only nearly: it sums in the order of a hash
    map, and lowers the characters that it has to keep one by one in such an order. So scores are rounded, those
    characters numbered by their code points, and the pieces put into a fresh model.
    """
    import json

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    splitter = pre_tokenizers.Metaspace(prepend_scheme="never")
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = splitter
    special = [UNKNOWN, END]
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=special, unk_token=UNKNOWN, show_progress=False
    )
    trained.train_from_iterator(texts, trainer)
    scores = {piece: score for piece, score in json.loads(trained.to_str())["model"]["vocab"] if piece not in special}
    lowest, single = min(scores.values()), sum(len(piece) == 1 for piece in scores)
    kept = sorted(one for one, score in scores.items() if len(one) == 1 and score < lowest + single * _LOWERED)
    scores |= {piece: lowest + place * _LOWERED for place, piece in enumerate(kept)}
    ordered = sorted(((piece, round(score, 6)) for piece, score in scores.items()), key=lambda one: (-one[1], one[0]))
    tokenizer = Tokenizer(models.Unigram([(token, 0.0) for token in special] + ordered, unk_id=0))
    tokenizer.add_special_tokens([END])
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    return tokenizer


_LOWERED = 0.0001
"""By so much the library's trainer parts the scores of the characters it has to keep."""
