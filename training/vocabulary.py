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
