"""A dataset of the Hugging Face hub, at one commit: a branch moves, and a version must be what it was.

Its splits are this source's files: `slipway.split: {files: {train: train, test: test}}` keeps them as given. Code of a
dataset is never run (`datasets` 5 has no loading scripts).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts.embedded_images import TABLE_ROWS, decode_images, derived_names
from data_contracts.native import Native
from data_contracts.source import Unreadable
from infra.errors import SlipwayError, WrongInput, choices

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract
    from infra.progress import Progress

    Found = Iterator[pa.RecordBatch | Unreadable]

SERVER = {"dataset": str, "revision": str, "config": str, "splits": list, "mode": str}
"""dataset: OWNER/NAME on the hub; revision: the commit, 40 hex digits; config: where the dataset has several; splits:
those to read (default: all); mode: what images are converted to, as for source images."""

BATCH_ROWS = 8192


def _address(contract: "Contract", uri: str | None) -> tuple[str, str]:
    """(dataset, commit), of `--source OWNER/NAME@COMMIT` or of the contract. Raises WrongInput."""
    name, revision = contract.server.get("dataset", ""), contract.server.get("revision", "")
    if uri is not None:
        name, _, revision = uri.removeprefix("hf://").removeprefix("datasets/").partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise WrongInput(f"contract {contract.path}: slipway.dataset '{name}': write OWNER/NAME as on the hub")
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise WrongInput(
            f"contract {contract.path}: slipway.revision '{revision}': is no commit; write its 40 hex digits (the hub "
            "shows them under 'History'), because a branch moves"
        )
    return name, revision


def fingerprint(contract: "Contract", uri: str | None, cache: Path) -> dict[str, Any]:
    """The commit: what it holds cannot change."""
    name, revision = _address(contract, uri)
    return {"dataset": name, "revision": revision, "config": contract.server.get("config")}


def read(contract: "Contract", uri: str | None, cache: Path, progress: "Progress | None") -> "Found":
    name, revision = _address(contract, uri)
    where = f"source {name}@{revision[:12]}"
    parts = _load(name, revision, contract.server.get("config"), cache / "hub", where)
    wanted = contract.server.get("splits") or list(parts)
    done, total = 0, sum(parts[split].num_rows for split in wanted if split in parts)
    for split in wanted:
        if split not in parts:
            raise WrongInput(f"{where}: has no split '{split}', which slipway.splits names; {choices(split, parts)}")
        rows = parts[split]
        columns = [column for column in contract.columns if column.name not in derived_names(contract)]
        for column in columns:
            if column.there not in rows.column_names:
                raise WrongInput(
                    f"{where}: has no column '{column.there}', which contract {contract.path} names; "
                    f"{choices(column.there, rows.column_names)}"
                )
        names = [column.there for column in columns]
        size = TABLE_ROWS if contract.images else BATCH_ROWS
        with Native() as decoder:
            for start in range(0, rows.num_rows, size):
                table = rows.select_columns(names).with_format("arrow")[start : start + size].combine_chunks()
                for batch in table.select(names).rename_columns([column.name for column in columns]).to_batches():
                    if contract.images:
                        yield from decode_images(batch, contract, decoder, split, start + 1)
                    else:
                        yield batch.replace_schema_metadata({"file": split, "row": str(start + 1)})
                done += table.num_rows
                if progress is not None:
                    progress.update(done, total, f"rows of {name}")


def _load(name: str, revision: str, config: str | None, cache: Path, where: str) -> dict[str, Any]:
    """Split -> datasets.Dataset. Raises WrongInput for a dataset that is not there, SlipwayError without a network."""
    import datasets
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        found = datasets.load_dataset(name, config, revision=revision, cache_dir=str(cache))
    except DatasetNotFoundError:
        raise WrongInput(f"{where}: is not on the hub, or not open to you; check name and commit") from None
    except (ConnectionError, OSError, HfHubHTTPError, OfflineModeIsEnabled) as error:
        raise SlipwayError(
            f"{where}: the hub cannot be reached ({type(error).__name__}); go online, or copy its files here and "
            "register them with a contract of source files"
        ) from None
    except (DatasetsError, ValueError) as error:
        raise WrongInput(f"{where}: {str(error).splitlines()[0][:200]}") from None
    return dict(found)
