"""Low-rank adaptation of sentence embeddings: the encoder's weights stay, small matrices move what lies near what.

Paper: Hu et al., "LoRA: Low-rank adaptation of large language models", ICLR 2022, §4.1; the objectives: recipe
sentence_embedding.
How ours differs: as recipe `lora` does.
Command: slipway recipes draft lora_embedding DATASET       (from.base: a folder of a published encoder)
Hardware and time: not measured; no shipped experiment uses it.
Expected: a better order of near and far than the base's; how near to training every weight was not measured.
"""

from typing import Any, ClassVar

from training.low_rank import LowRank
from training.recipe import LowRankSettings
from training.recipes import sentence_embedding
from training.recipes.sentence_embedding import Settings as EmbeddingSettings


class Settings(LowRankSettings, EmbeddingSettings):
    libraries: ClassVar[tuple[str, ...]] = (*EmbeddingSettings.libraries, "peft")
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {**EmbeddingSettings.presets["tiny"], "rank": 16, "target_layers": ("query", "key", "value", "dense")}
    }


class Recipe(LowRank, sentence_embedding.Recipe):
    settings: Settings
