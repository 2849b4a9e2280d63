"""Which columns of a dataset a recipe reads: the same rules when an experiment is drafted and when data is prepared."""

from typing import Any

from infra.errors import WrongInput

WAY = "`slipway data draft FOLDER` writes such a contract of a folder with pictures and a list of files and"


def one_image(contract: Any) -> str:
    """The picture among a contract's inputs, whatever else is. Raises WrongInput for none, or for several."""
    images = _images(contract)
    if len(images) != 1:
        raise WrongInput(
            f"{_found(contract)}; this recipe reads one column with slipway.type: image, and found {len(images)}; "
            f"{WAY} labels"
        )
    return images[0]


def image_alone(contract: Any) -> str:
    """The picture that is a contract's only input. Raises WrongInput for none, or for another input beside it."""
    if len(contract.inputs) != 1 or not _images(contract):
        raise WrongInput(
            f"{_found(contract)}; this recipe reads one column with slipway.type: image and no other; {WAY} labels"
        )
    return str(contract.inputs[0])


def image_and_caption(contract: Any) -> tuple[str, str]:
    """The picture and the text that says what it shows. Raises WrongInput where the inputs are not one of each."""
    images = _images(contract)
    texts = [name for name in contract.inputs if contract.column(name).type == "string" and name not in images]
    if len(images) != 1 or len(texts) != 1 or len(contract.inputs) != 2:
        raise WrongInput(
            f"{_found(contract)}; this recipe reads one column with slipway.type: image and one of texts, its caption "
            f"(sources idx and digits make one: slipway.caption); {WAY} captions"
        )
    return images[0], texts[0]


def one_text(contract: Any) -> str:
    """The only input, which is no picture. Raises WrongInput for several, or for a picture."""
    no_images(contract)
    if len(contract.inputs) != 1:
        raise WrongInput(f"{_found(contract)}; this recipe reads one column of texts; name the one to learn from")
    return str(contract.inputs[0])


def no_images(contract: Any) -> None:
    """Raises WrongInput where an input is a picture."""
    if images := _images(contract):
        raise WrongInput(
            f"{_found(contract)}; this recipe reads no pictures, and {', '.join(images)} holds some; name other "
            "columns, or see `slipway recipes` for one that reads them"
        )


def _images(contract: Any) -> list[str]:
    return [name for name in contract.inputs if name in contract.images]


def _found(contract: Any) -> str:
    return f"contract {contract.name}: slipway.inputs is {', '.join(contract.inputs)}"
