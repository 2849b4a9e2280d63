"""A JSON schema of contracts for editors: ODCS's own, and what Slipway adds to it as custom properties."""

from typing import Any

from data_contracts.budgets import OVER_LANGUAGE, OVER_LENGTH, UNITS
from data_contracts.column_reader import ARROW_TYPES
from data_contracts.column_reader import SETTINGS as COLUMN_SETTINGS
from data_contracts.conditions import COMPARISONS, IN
from data_contracts.contract_reader import SETTINGS
from data_contracts.language import LANGUAGES
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


COLUMN = _object(name={"type": "string"})
NESTED = {"type": "array", "items": {"type": "object"}, "minItems": 1}
CONDITION = {
    "description": "Which rows: a comparison, a nullity, or several joined by and / or.",
    "anyOf": [
        _object(type={"const": "comparison"}, column=COLUMN, operator={"enum": [*COMPARISONS, *IN]}, parameter={}),
        _object(type={"const": "nullity"}, column=COLUMN, is_null={"type": "boolean"}),
        _object(type={"enum": ["and", "or"]}, conditions=NESTED),
    ],
}

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
    "slipway.filters": {
        "type": "array",
        "description": "Rows left out on purpose: counted, kept with the filter's name, judged by no rule.",
        "items": _object(name={"type": "string"}, where=CONDITION) | {"required": ["name", "where"]},
    },
    "slipway.length": _object(
        maximum={"type": "integer", "minimum": 1},
        unit={"enum": list(UNITS), "description": "characters where nothing is said."},
        over={"enum": list(OVER_LENGTH), "description": "quarantine where nothing is said."},
    )
    | {"required": ["maximum"]},
    "slipway.language": _object(
        expected={"enum": list(LANGUAGES)},
        limit=SHARE | {"description": "Of the texts that can be told; 0.05 where nothing is said."},
        over={"enum": list(OVER_LANGUAGE), "description": "warn where nothing is said."},
    )
    | {"required": ["expected"]},
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
    for name, setting in (SETTINGS | COLUMN_SETTINGS).items():
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
