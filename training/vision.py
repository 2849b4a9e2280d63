"""Transformers' vision transformers as recipes use them: fresh, or from a folder that a ViT or a masked autoencoder
was saved in."""

import json
from pathlib import Path
from typing import Any

import torch

from infra.errors import WrongInput

KINDS = ("vit", "vit_mae")
"""Of transformers: an encoder of the one loads into the other."""


def vit_sizes(settings: Any) -> dict[str, Any]:
    """The configuration of `training.recipe.PatchSettings`, as transformers names it."""
    return {
        "image_size": settings.image_size,
        "patch_size": settings.patch_size,
        "num_channels": settings.channels,
        "hidden_size": settings.hidden_size,
        "num_hidden_layers": settings.num_layers,
        "num_attention_heads": settings.num_heads,
        "intermediate_size": settings.intermediate_size,
        "hidden_dropout_prob": settings.dropout,
        "attention_probs_dropout_prob": settings.dropout,
    }


def build_vit(settings: Any, base: Path | None) -> Any:
    """A ViT without a pooler: of the settings' sizes with random weights, or that of a folder. Raises WrongInput where
    the folder's takes other pictures than the settings say."""
    from transformers import ViTConfig, ViTModel

    if base is None:
        model = ViTModel(ViTConfig(**vit_sizes(settings)), add_pooling_layer=False)
        draw_weights(model)
        return model
    model = load_vit(base, settings.dropout)
    for field, name in (("image_size", "image_size"), ("channels", "num_channels")):
        if (wanted := getattr(model.config, name)) != getattr(settings, field):
            raise WrongInput(
                f"settings.{field}: {getattr(settings, field)}, the base was trained on {wanted}; write {wanted}"
            )
    return model


@torch.no_grad()
def draw_weights(model: torch.nn.Module) -> None:
    """Xavier-uniform weights for linear layers and for patches (He et al., CVPR 2022, appendix A.1, after ViT's own
    code). transformers' normal of 0.02 is made for a width of 768: narrow transformers learn much slower from it."""
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            torch.nn.init.xavier_uniform_(layer.weight.view(len(layer.weight), -1))


def load_vit(folder: Path, dropout: float = 0.0) -> Any:
    """The encoder of a ViT or of a masked autoencoder. Raises WrongInput for a folder that holds neither."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import ViTConfig, ViTModel

    quiet()
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = found.pop("model_type", None)
    except (OSError, ValueError, AttributeError) as error:
        raise WrongInput(
            f"model folder {folder}: has no config.json of a model ({error}); give a ViT's or a masked autoencoder's"
        ) from error
    if kind not in KINDS:
        raise WrongInput(f"model folder {folder}: holds a {kind}; give one of {', '.join(KINDS)}")
    if not any(folder.glob("*.safetensors")):
        raise WrongInput(f"model folder {folder}: has no .safetensors file; pickled weights (.bin) can run code")
    known = ViTConfig().to_dict().keys() - {"architectures", "transformers_version", "model_type", "dtype"}
    sizes = {name: value for name, value in found.items() if name in known}
    sizes |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    try:
        return ViTModel.from_pretrained(
            folder,
            config=ViTConfig(**sizes),
            add_pooling_layer=False,
            use_safetensors=True,
            local_files_only=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, StrictDataclassError) as error:
        raise WrongInput(f"model folder {folder}: transformers cannot load it ({error})") from error


def quiet() -> None:
    """A body taken from a bigger model always leaves weights unused, of which transformers would tell a page."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
