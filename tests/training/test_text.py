"""Tokenizers trained here."""

import random
import string

from training.text import SPECIAL, train_wordpiece


def texts(seed: int = 0) -> list[str]:
    """Words of equal counts, so that ties decide, in more than one alphabet."""
    source = random.Random(seed)
    letters = string.ascii_lowercase + "éßж中°_-"
    return [" ".join("".join(source.choices(letters, k=source.randint(1, 6))) for _ in range(9)) for _ in range(200)]


def test_the_same_texts_give_the_same_tokenizer() -> None:
    first, *others = (train_wordpiece(texts(), 400).to_str() for _ in range(4))
    assert others == [first] * 3
    assert train_wordpiece(texts(1), 400).to_str() != first


def test_a_trained_vocabulary_has_the_size_asked_for_and_spells_every_character_it_saw() -> None:
    tokenizer = train_wordpiece(texts(), 400)
    assert tokenizer.get_vocab_size() == 400
    assert [tokenizer.id_to_token(number) for number in range(len(SPECIAL))] == list(SPECIAL)
    for text in texts():
        assert "[UNK]" not in tokenizer.encode(text).tokens
    assert "[UNK]" in tokenizer.encode("ω").tokens


def test_pieces_are_not_special() -> None:
    tokenizer = train_wordpiece(["##ab abab ab b"] * 3, 30)
    assert tokenizer.decode(tokenizer.encode("abab ##b", add_special_tokens=False).ids) == "abab # # b"
