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

SERVER = {"dataset": str, "revision": str, "config": str, "splits": list, "columns": dict, "classes": list, "mode": str}
"""dataset: OWNER/NAME on the hub; revision: the commit, 40 hex digits; config: where the dataset has several; splits:
those to read (default: all); columns: {ours: what the hub calls it}; classes: names of the labels 0, 1, 2 ... where
they are text here and numbers there (default: the hub's own names); mode: what images are converted to, as for source
images."""

BATCH_ROWS = 8192
TIMEOUT_S = 3.0


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
    import pyarrow as pa

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
        names = [contract.server.get("columns", {}).get(column.name, column.there) for column in columns]
        for there in names:
            if there not in rows.column_names:
                raise WrongInput(
                    f"{where}: has no column '{there}', which contract {contract.path} names; "
                    f"{choices(there, rows.column_names)}"
                )
        size = TABLE_ROWS if contract.images else BATCH_ROWS
        with Native() as decoder:
            for start in range(0, rows.num_rows, size):
                table = rows.select_columns(names).with_format("arrow")[start : start + size].select(names)
                for place, column in enumerate(columns):
                    named = contract.server.get("classes") or getattr(rows.features[names[place]], "names", None)
                    if named and column.type == "string" and pa.types.is_integer(table.column(place).type):
                        table = table.set_column(place, names[place], _named(table.column(place), named))
                for batch in table.rename_columns([column.name for column in columns]).combine_chunks().to_batches():
                    if contract.images:
                        yield from decode_images(batch, contract, decoder, split, start + 1)
                    else:
                        yield batch.replace_schema_metadata({"file": split, "row": str(start + 1)})
                done += table.num_rows
                if progress is not None:
                    progress.update(done, total, f"rows of {name}")


def _named(labels: "pa.ChunkedArray", names: list[str]) -> "pa.ChunkedArray":
    """Classes by name; a number without one, such as the -1 of a hidden label, is no label."""
    import pyarrow as pa
    import pyarrow.compute as pc

    there = pc.and_(pc.greater_equal(labels, 0), pc.less(labels, len(names)))
    return pa.chunked_array([pa.array(names, pa.string()).take(pc.if_else(there, labels, None).combine_chunks())])


def _load(name: str, revision: str, config: str | None, cache: Path, where: str) -> dict[str, Any]:
    """Split -> datasets.Dataset. Raises WrongInput for a dataset that is not there, SlipwayError without a network."""
    import datasets
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    folder = cache / revision  # without a network `datasets` takes any commit that its folder holds
    problem = _unreachable(name, revision)
    if problem and not folder.is_dir():
        raise _offline(where, problem)
    online = datasets.config.HF_HUB_OFFLINE
    try:
        # NOTE no argument says so, and it would try for half a minute before it looks into its folder.
        datasets.config.HF_HUB_OFFLINE = bool(problem)
        # NOTE without hf:// a folder of the user's that is called OWNER/NAME would be read instead.
        found = datasets.load_dataset(f"hf://datasets/{name}", config, revision=revision, cache_dir=str(folder))
    except DatasetNotFoundError:
        raise WrongInput(f"{where}: is not on the hub, or not open to you; check name and commit") from None
    except (OSError, HfHubHTTPError) as error:
        raise _offline(where, type(error).__name__) from None
    except (DatasetsError, ValueError) as error:
        raise WrongInput(f"{where}: {str(error).splitlines()[0][:200]}") from None
    finally:
        datasets.config.HF_HUB_OFFLINE = online
    return dict(found)


def _unreachable(name: str, revision: str) -> str | None:
    """Why the hub does not answer within a few seconds, if so; what it answers is not judged here."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().dataset_info(name, revision=revision, timeout=TIMEOUT_S)
    except HfHubHTTPError:
        return None
    except Exception as error:  # its HTTP library's own, which is another one in each version
        return type(error).__name__
    return None


def _offline(where: str, problem: str) -> SlipwayError:
    return SlipwayError(
        f"{where}: the hub cannot be reached ({problem}); go online, or copy its files here and register them with a "
        "contract of source files"
    )
