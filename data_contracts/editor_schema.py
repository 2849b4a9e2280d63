"""A JSON schema of contracts for editors: ODCS's own, and what Slipway adds to it as custom properties."""

from typing import Any

from data_contracts.contract_reader import ARROW_TYPES, SETTINGS
from data_contracts.odcs import odcs_schema
from data_contracts.quality import SEVERITIES
from data_contracts.source import load_source, sources
from data_contracts.splits import SPLITS

NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}
SHARE = {"type": "number", "minimum": 0, "maximum": 1}
TEXTS = {"type": "array", "items": {"type": "string"}}
FILES = {"anyOf": [{"type": "string"}, TEXTS]}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


DETAILS: dict[str, dict[str, Any]] = {
    "slipway.inputs": TEXTS | {"description": "Columns that the model sees."},
    "slipway.label": {"type": "string", "description": "The column that it predicts."},
    "slipway.split": _object(
        test=SHARE,
        validation=SHARE,
        group={"type": "string", "description": "Rows equal in this column stay together."},
        files=_object(**dict.fromkeys(SPLITS, FILES)),
        column={"type": "string", "description": "The column that says each row's split."},
        values={"type": "object", "additionalProperties": {"enum": list(SPLITS)}},
    ),
    "slipway.null": TEXTS | {"description": "Texts that mean: no value."},
    "slipway.quarantine": {
        "type": "object",
        "description": "limit: the share of rows beyond which no version is made.",
    },
    "slipway.severity": {"enum": list(SEVERITIES)},
    "slipway.type": {"enum": ["image"]},
    "slipway.source": {"enum": sources()},
}


def editor_schema() -> dict[str, Any]:
    """ODCS's JSON schema, in which a `slipway.*` property is one there is and its value of the right kind."""
    kinds: dict[str, set[str]] = {}
    for name in sources():
        for key, kind in load_source(name).SERVER.items():
            kinds.setdefault(f"slipway.{key}", set()).add(NAMES[kind])
    for name, setting in SETTINGS.items():
        wanted = setting if isinstance(setting, tuple) else (setting,)
        kinds.setdefault(name, set()).update(NAMES[kind] for kind in wanted)
    for name in DETAILS:
        kinds.setdefault(name, set())
    rules = []
    for name, types in sorted(kinds.items()):
        value = dict(DETAILS.get(name, {}))
        if types and "type" not in value and "enum" not in value:
            value["type"] = sorted(types)
        rules.append(
            {"if": {"properties": {"property": {"const": name}}, "required": ["property"]},
             "then": {"properties": {"value": value}}}
        )  # fmt: skip
    schema = odcs_schema()
    own = schema["$defs"]["CustomProperty"]
    known = {"anyOf": [{"enum": sorted(kinds)}, {"not": {"pattern": "^slipway"}}]}
    own["allOf"] = [*own.get("allOf", []), {"properties": {"property": known}}, *rules]
    described = schema["$defs"]["SchemaBaseProperty"]["properties"]["logicalType"]
    described["description"] = f"{described.get('description', '')} Slipway reads: {', '.join(ARROW_TYPES)}."
    schema["title"] = "Data contract for Slipway (ODCS v3)"
    return schema
