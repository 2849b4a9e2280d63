"""Search: the passages of texts that mean what is asked for, learned from passages that follow each other.

Paper: Reimers & Gurevych, "Sentence-BERT", EMNLP 2019, §4.4 (sections of one article lie nearer than those of others);
the index: Malkov & Yashunin, TPAMI 2020.
How ours differs: a pair is a passage and the next one, for texts have no marked sections; all else as
sentence_embedding has it.
Command: slipway train gutenberg-search --set base=FOLDER    (from a published encoder: safetensors + tokenizer.json)
Hardware and time: the experiment's header says what was measured.
Expected: the index finds 99 % of the ten nearest passages; how well the order suits a reader, these pairs hardly tell.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from training.columns import one_text
from training.pairs import Pairs, Pool, neighbours
from training.recipe import prepared_by
from training.recipes import sentence_embedding
from training.recipes.sentence_embedding import Settings as EmbeddingSettings


class Settings(EmbeddingSettings):
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {**EmbeddingSettings.presets["tiny"], "passage_words": 6}}
    reads: ClassVar[str] = "text"
    evaluates: ClassVar[str] = "retrieval"

    @staticmethod
    def check_columns(contract: Any) -> None:
        one_text(contract)

    loss: Literal["triplet", "in_batch"] = prepared_by("in_batch")
    """triplet: a passage is nearer to the next one than to another, by a margin. in_batch: of all next passages in the
    batch, which is its own?"""
    alike: None = prepared_by(None)
    """Unused: texts have no labels."""
    passage_words: int = prepared_by(80, ge=4, le=512)
    """Words of a passage at most; paragraphs stay whole where they fit."""


class Recipe(sentence_embedding.Recipe):
    settings: Settings

    def check(self, contract: Any) -> None:
        one_text(contract)

    def pairs_of(self, table: Any, inputs: Sequence[str], label: str | None, pool: Pool) -> Pairs:
        return neighbours(table, inputs[0], self.settings.passage_words, pool)


load_predictor = sentence_embedding.load_predictor
