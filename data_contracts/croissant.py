"""Croissant 1.0 metadata of a version (MLCommons, https://docs.mlcommons.org/croissant/docs/croissant-spec.html).

Files and fields as any Croissant reader understands them. It tells of columns and files, never of values.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_contracts.contract import Contract

TYPES = {
    "string": "sc:Text",
    "integer": "sc:Integer",
    "number": "sc:Float",
    "boolean": "sc:Boolean",
    "date": "sc:Date",
    "timestamp": "sc:DateTime",
}
"""logicalType -> Croissant's dataType. Decoded pixels stand as bytes in the Parquet file, and are told as text."""

CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The specification's own, word for word."""


def croissant(contract: "Contract", digest: str, created: str, facts: dict[str, Any]) -> dict[str, Any]:
    """`facts` is the manifest's part that tells of files and counts; `created` is ISO 8601."""
    splits = {name.removeprefix("data/"): entry for name, entry in facts["files"].items() if name.startswith("data/")}
    body: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": contract.name,
        "description": sentence(contract),
        "version": str(contract.document.get("version", "1.0.0")),
        "identifier": f"{contract.name}@{digest}",
        "datePublished": created,
        "citeAs": f"{owner_of(contract) or 'unknown owner'}: {contract.name}, version {digest} ({created[:4]})",
        "url": f"urn:slipway:{contract.name}:{digest}",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": f"{split}.parquet",
                "name": f"{split}.parquet",
                "contentUrl": entry["name"],
                "contentSize": f"{entry['bytes']} B",
                "encodingFormat": "application/x-parquet",
                "sha256": entry["sha256"],
            }
            for split, entry in splits.items()
        ],
        "recordSet": [_records(contract, split) for split in splits],
    }
    found = licence(contract)
    if found is not None:
        body["license"] = found
    owner = owner_of(contract)
    if owner is not None:
        body["creator"] = {"@type": "sc:Organization", "name": owner}
    return body


def _records(contract: "Contract", split: str) -> dict[str, Any]:
    described = {entry["name"]: entry.get("description", "") for entry in contract.document["schema"][0]["properties"]}
    columns = [("row_id", "sc:Text", "SHA-256 of the row's values after the cast, with its occurrence.", False)]
    columns += [
        (
            column.name,
            TYPES.get(column.item or column.type, "sc:Text"),
            described.get(column.name, ""),
            bool(column.item),
        )
        for column in contract.columns
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "key": {"@id": f"{split}/row_id"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{split}/{name}",
                "name": name,
                "description": description,
                "dataType": kind,
                **({"repeated": True} if repeated else {}),
                "source": {"fileObject": {"@id": f"{split}.parquet"}, "extract": {"column": name}},
            }
            for name, kind, description, repeated in columns
        ],
    }


def sentence(contract: "Contract") -> str:
    """What the contract says the set is for."""
    said = contract.document.get("description")
    if isinstance(said, dict):
        return " ".join(str(said[key]).strip() for key in ("purpose", "usage", "limitations") if said.get(key))
    return str(said or contract.name)


def licence(contract: "Contract") -> str | None:
    """The address of its licence: `description.authoritativeDefinitions` of type licence; else the property of that
    name."""
    said = contract.document.get("description")
    definitions = list(contract.document.get("authoritativeDefinitions") or [])
    definitions += (said.get("authoritativeDefinitions") or []) if isinstance(said, dict) else []
    for entry in definitions:
        if str(entry.get("type", "")).lower() in ("licence", "license"):
            return str(entry["url"])
    for entry in contract.document.get("customProperties") or []:
        if str(entry["property"]).lower() in ("licence", "license"):
            return str(entry["value"])
    return None


def owner_of(contract: "Contract") -> str | None:
    team = contract.document.get("team")
    return str(team["name"]) if isinstance(team, dict) and team.get("name") else None
