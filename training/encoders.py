"""Transformers' encoders as recipes use them: fresh or from a folder, attending without padding."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from infra.errors import WrongInput
from training.attention import NAME, use_packed_attention

KNOWN = "give a BERT, RoBERTa, DistilBERT, ELECTRA or their like"


def fresh_bert(cls: Any, settings: Any, vocab_size: int) -> Any:
    """A BERT of the settings' sizes with random weights."""
    from transformers import BertConfig

    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        intermediate_size=settings.intermediate_size,
        max_position_embeddings=settings.max_length,
        hidden_dropout_prob=settings.dropout,
        attention_probs_dropout_prob=settings.dropout,
    )
    model = cls(config)
    use_packed_attention(model)
    return model


def load_pretrained(auto: Any, folder: Path, **options: Any) -> Any:
    """A model from a local folder, safetensors only: a pickle could run code, so it is refused."""
    if not (folder / "config.json").is_file():
        raise WrongInput(f"model folder {folder}: has no config.json; give a folder saved by save_pretrained")
    if not any(folder.glob("*.safetensors")):
        raise WrongInput(
            f"model folder {folder}: has no .safetensors file; pickled weights (.bin) are refused because loading them "
            "can run code: save it again with safe_serialization"
        )
    from huggingface_hub.errors import StrictDataclassError
    from transformers.utils import logging

    logging.set_verbosity_error()  # the report of unused heads: a body taken from a bigger model always has some
    logging.disable_progress_bar()
    _refuse_unknown(folder)
    try:
        model = auto.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, dtype=torch.float32, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError, StrictDataclassError) as error:
        raise WrongInput(f"model folder {folder}: transformers cannot load it ({error})") from error
    if getattr(model.config, "is_encoder_decoder", False):
        raise WrongInput(f"model folder {folder}: is an encoder-decoder ({model.config.model_type}); give an encoder")
    if not model._supports_attention_backend:  # its own attention would look across the texts of a packed batch
        raise WrongInput(
            f"model folder {folder}: the attention of a {model.config.model_type} cannot be replaced, so texts cannot "
            f"be packed for it; {KNOWN}"
        )
    model.config._attn_implementation = NAME
    use_packed_attention(model)
    model.base_model.first_position = _first_position(model.base_model)
    return model


def build_encoder(settings: Any, base: Path | None, vocabulary: int) -> Any:
    """The encoder of `training.recipe.EncoderSettings`: the base's where there is a base, else one with random weights;
    without a pooler, which nothing would train. vocabulary: entries of the tokenizer. Raises WrongInput where the base
    has no room for them, or for texts of `max_length`."""
    from transformers import AutoModel, BertModel

    if base is None:
        encoder = fresh_bert(BertModel, settings, vocabulary)
    else:
        encoder = load_pretrained(AutoModel, base)
        room = encoder.get_input_embeddings().num_embeddings
        if vocabulary > room:
            raise WrongInput(
                f"from.base {base}: its tokenizer has {vocabulary} entries, its model {room}; give a folder whose two "
                "fit"
            )
        refuse_longer(encoder, settings.max_length)
    encoder.pooler = None  # DDP waits for every parameter's gradient
    return encoder


def body(trained: torch.nn.Module) -> Any:
    """The transformer of a task: the outermost of transformers' models among its modules."""
    from transformers import PreTrainedModel

    return next(one for one in trained.modules() if isinstance(one, PreTrainedModel))


def _refuse_unknown(folder: Path) -> None:
    """Before transformers says it in a paragraph."""
    from transformers import CONFIG_MAPPING, __version__

    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise WrongInput(f"model folder {folder}: config.json is not JSON of a model ({error})") from error
    if found not in CONFIG_MAPPING:
        raise WrongInput(
            f"model folder {folder}: config.json: model_type '{found}' is unknown to transformers {__version__}; "
            f"{KNOWN}"
        )


def refuse_longer(model: Any, max_length: int) -> None:
    """Raises WrongInput where the model has no positions for so many tokens; packed attention would not notice."""
    room = getattr(model.config, "max_position_embeddings", max_length) - model.first_position
    if max_length > room:
        raise WrongInput(
            f"settings.max_length: {max_length} tokens, the base takes {room} (max_position_embeddings); lower it"
        )


def _first_position(model: Any) -> int:
    """The position id of a text's first token: RoBERTa and its like count from their padding id on."""
    embeddings: Any = getattr(model, "embeddings", None)
    counts = hasattr(embeddings, "create_position_ids_from_input_ids")
    return int(embeddings.padding_idx) + 1 if counts else 0


def save_pretrained(model: Any, tokenizer_folder: Path, folder: Path) -> None:
    """Weights, configuration and tokenizer in transformers' own layout, loadable without Slipway."""
    save_weights(model, folder)
    shutil.copyfile(tokenizer_folder / "tokenizer.json", folder / "tokenizer.json")


def save_weights(model: Any, folder: Path) -> None:
    """Those and the configuration alone."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    attention = model.config._attn_implementation
    model.config._attn_implementation = None  # ours is registered in this process only
    try:
        model.save_pretrained(folder, safe_serialization=True)
    finally:
        model.config._attn_implementation = attention
