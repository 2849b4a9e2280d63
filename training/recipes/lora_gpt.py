"""Low-rank adaptation of a language model: a trained GPT-2 goes on learning by small matrices beside its weights.

Paper: Hu et al., "LoRA: Low-rank adaptation of large language models", ICLR 2022, §4.1 and §5.4 (GPT-2).
How ours differs: as recipe `lora` does; the layer of queries, keys and values, one in GPT-2, is adapted as a whole.
Command: slipway recipes draft lora_gpt DATASET       (from.base: a trained gpt, or a folder of a published GPT-2)
Hardware and time: not measured; no shipped experiment uses it.
Expected: on par with training every weight (the paper's table 3, not measured here).
"""

from typing import Any, ClassVar

from training.low_rank import LowRank
from training.recipe import LowRankSettings
from training.recipes import gpt
from training.recipes.gpt import Settings as GptSettings


class Settings(LowRankSettings, GptSettings):
    roles: ClassVar[dict[str, str]] = {"base": "required: the language model that is adapted, and its tokenizer"}
    libraries: ClassVar[tuple[str, ...]] = (*GptSettings.libraries, "peft")
    example_sources: ClassVar[dict[str, str]] = {"base": "gpt"}
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {**GptSettings.presets["tiny"], "rank": 16, "alpha": 64, "target_layers": ("c_attn", "c_fc", "c_proj")}
    }
    target_layers: tuple[str, ...] = ("c_attn",)
    """The linear layers that are adapted, by the last part of their name: c_attn, c_proj, c_fc."""


class Recipe(LowRank, gpt.Recipe):
    settings: Settings
