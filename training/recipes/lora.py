"""Low-rank adaptation of a text classifier: the encoder's weights stay, small matrices beside them are trained.

Paper: Hu et al., "LoRA: Low-rank adaptation of large language models", ICLR 2022, §4.1: W + (alpha / rank) B A, A drawn
at random, B zero, so that training begins with the encoder as it was given.
How ours differs: by peft, into a BERT's body; the linear layer on top is trained whole. What is packaged is the encoder
with the products added to its weights, so that answering costs what it did, and the small matrices alone beside it.
Command: slipway train emotion-lora
Hardware and time: the record of emotion-lora; a step takes 0.9 of one that trains every weight, the optimiser 1.5 % of
the bytes.
Expected: within a point of training every weight, by 1.5 % of them (on emotion 0.932, every weight 0.933).
"""

from typing import ClassVar

from training.low_rank import LowRank
from training.recipe import LowRankSettings
from training.recipes import text_classifier
from training.recipes.text_classifier import Settings as ClassifierSettings


class Settings(LowRankSettings, ClassifierSettings):
    libraries: ClassVar[tuple[str, ...]] = (*ClassifierSettings.libraries, "peft")


class Recipe(LowRank, text_classifier.Recipe):
    settings: Settings
