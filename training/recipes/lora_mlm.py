"""Low-rank adaptation of a masked language model: a trained BERT moves to new text by small matrices.

Paper: Hu et al., "LoRA: Low-rank adaptation of large language models", ICLR 2022, §4.1; the objective: recipe bert_mlm.
How ours differs: as recipe `lora` does; the head that names the hidden tokens is trained whole, but for the embeddings
it ends with: many published encoders come without one.
Command: slipway recipes draft lora_mlm DATASET       (from.base: a trained bert_mlm, or a folder of a published BERT)
Hardware and time: not measured; no shipped experiment uses it.
Expected: less loss on new text than the base has; how near to training every weight was not measured.
"""

from typing import Any, ClassVar

from training.low_rank import LowRank
from training.recipe import LowRankSettings
from training.recipes import bert_mlm
from training.recipes.bert_mlm import Settings as MaskedSettings


class Settings(LowRankSettings, MaskedSettings):
    roles: ClassVar[dict[str, str]] = {"base": "required: the masked language model that is adapted, and its tokenizer"}
    libraries: ClassVar[tuple[str, ...]] = (*MaskedSettings.libraries, "peft")
    example_sources: ClassVar[dict[str, str]] = {"base": "bert_mlm"}
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {**MaskedSettings.presets["tiny"], "rank": 16, "target_layers": ("query", "key", "value", "dense")}
    }


class Recipe(LowRank, bert_mlm.Recipe):
    settings: Settings
