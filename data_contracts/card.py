"""A version's dataset card: README.md with the front matter that the Hugging Face hub reads.

It tells of columns, counts and findings, never of values.
"""

from typing import TYPE_CHECKING, Any

from data_contracts.croissant import licence, owner_of, sentence
from data_contracts.filters import DUPLICATE
from data_contracts.row_sample import personal_columns

if TYPE_CHECKING:
    from data_contracts.contract import Column, Contract

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""The hub's size categories."""
DTYPES = {"double": "float64", "float": "float32", "timestamp": "timestamp[us, tz=UTC]", "image": "binary"}
"""Arrow names as the hub's `dataset_info` writes them, where they differ."""


def card(contract: "Contract", digest: str, facts: dict[str, Any]) -> str:
    """`facts` is the manifest's part that tells of files and counts."""
    import yaml

    front = yaml.safe_dump(_front(contract, facts), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n{_body(contract, digest, facts)}"


def _front(contract: "Contract", facts: dict[str, Any]) -> dict[str, Any]:
    counts = facts["counts"]
    splits = [name.removeprefix("data/") for name in facts["files"] if name.startswith("data/")]
    kept = sum(counts[split] for split in splits)
    front: dict[str, Any] = {"pretty_name": contract.name}
    if licence(contract) is not None:
        # The hub knows licences by short names; any other is "other", with its address.
        front |= {"license": "other", "license_name": "see-link", "license_link": licence(contract)}
    tags = contract.document.get("tags")
    if tags:
        front["tags"] = [str(tag) for tag in tags]
    features = [{"name": "row_id", "dtype": "string"}]
    features += [_feature(column) for column in contract.columns]
    return front | {
        "size_categories": [next((name for limit, name in SIZES if kept < limit), "n>1M")],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits],
            }
        ],
        "dataset_info": {
            "features": features,
            "splits": [{"name": split, "num_examples": counts[split]} for split in splits],
        },
    }


def _feature(column: "Column") -> dict[str, str]:
    if column.item:
        item = column.arrow.removeprefix("list<").removesuffix(">")
        return {"name": column.name, "list": DTYPES.get(item, item)}
    return {"name": column.name, "dtype": DTYPES.get(column.arrow, column.arrow)}


def _body(contract: "Contract", digest: str, facts: dict[str, Any]) -> str:
    counts, personal = facts["counts"], personal_columns(contract)
    described = {
        entry["name"]: " ".join(str(entry.get("description", "")).split())
        for entry in contract.document["schema"][0]["properties"]
    }
    lines = [f"# {contract.name}", "", sentence(contract), "", f"Version `{contract.name}@{digest}`", ""]
    owner = owner_of(contract)
    if owner:
        lines += [f"Owner: {owner}", ""]
    lines += ["## Rows", "", "| | rows |", "| --- | ---: |"]
    lines += [f"| {name} | {count:,} |" for name, count in counts.items()]
    if facts["corrected"]:
        lines += [
            "",
            f"{facts['corrected']:,} rows were corrected by a person; the corrections are kept with the data.",
        ]
    filters = {name: count for name, count in facts["filtered_by"].items() if name != DUPLICATE}
    if filters:
        lines += ["", "Left out on purpose: " + ", ".join(f"{name} {count:,}" for name, count in filters.items()) + "."]
    lines += ["", "## Columns", "", "| column | type | role | description |", "| --- | --- | --- | --- |"]
    for column in contract.columns:
        roles = ["input"] if column.name in contract.inputs else []
        roles += ["label"] if column.name == contract.label else []
        roles += ["personal"] if column.name in personal else []
        lines.append(
            f"| {column.name} | {column.type} | {', '.join(roles)} | {_cell(described.get(column.name, ''))} |"
        )
    if facts["warnings"]:
        lines += ["", "## Remarks", "", "| rule | rows |", "| --- | ---: |"]
        lines += [f"| {_cell(one['rule'])} | {one['rows']:,} |" for one in facts["warnings"]]
    split = contract.split
    if split.pinned:
        how = "Splits are kept as their publisher made them."
    else:
        key = f"`{split.group}`" if split.group else "the normalised inputs"
        how = (
            f"Rows are assigned by a hash of {key}: test {split.test:.0%}, validation {split.validation:.0%}, "
            "the rest train. More rows move no old one."
        )
    return "\n".join([*lines, "", "## Splits", "", how, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
