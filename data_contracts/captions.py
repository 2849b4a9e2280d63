"""Captions made of labels, where pictures come with classes alone: `slipway.caption: "a photo of a {label}"`.

Such a caption restates the label: a model that learns from it shows the mechanism, and knows no more than a classifier.
"""

from typing import TYPE_CHECKING

from infra.errors import WrongInput

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract

PLACE = "{label}"


def captions(contract: "Contract", labels: "pa.Array", usual: str | None = None) -> "dict[str, pa.Array]":
    """The column `caption` of rows with these labels, where the contract asks for one or the source has a usual
    one. Raises WrongInput for a caption that does not say where the label goes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    template = contract.server.get("caption", usual)
    if template is None:
        return {}
    before, place, after = template.partition(PLACE)
    if not place:
        raise WrongInput(f"contract {contract.path}: slipway.caption: '{template}' has no {PLACE}; write it in")
    return {"caption": pc.binary_join_element_wise(before, pc.cast(labels, pa.string()), after, "")}
