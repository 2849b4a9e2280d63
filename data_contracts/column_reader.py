"""From the columns of an ODCS document to `Column`s; every complaint names file and field."""

import re
from typing import Any

from data_contracts.budgets import check_language, check_length
from data_contracts.conditions import check_condition
from data_contracts.contract import DERIVED, Column
from data_contracts.quality import SEVERITIES, check_rule
from infra.errors import WrongInput, choices

ARROW_TYPES = {
    "string": {"": "string"},
    "integer": {
        "": "int64",
        **{f"{kind[0]}{bits}": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    },
    "number": {"": "double", "f32": "float", "f64": "double"},
    "boolean": {"": "bool"},
    "date": {"": "date32"},
    "timestamp": {"": "timestamp"},
    "array": {"": "list"},
}
"""logicalType -> logicalTypeOptions.format -> Arrow type. Without a format integers and numbers take 64 bits."""

OPTIONS = {
    "string": {"minLength", "maxLength", "pattern"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "format"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "format"},
    "boolean": set(),
    "date": {"minimum", "maximum"},
    "timestamp": {"minimum", "maximum"},
    "array": {"minItems", "maxItems", "uniqueItems"},
}
"""The logicalTypeOptions that are checked; another one is refused, because a rule nobody checks is a false promise."""


SETTINGS: dict[str, type | tuple[type, ...]] = {
    "slipway.severity": str,
    "slipway.type": str,
    "slipway.length": dict,
    "slipway.language": dict,
    "slipway.condition": dict,
}
BUDGETS = {"slipway.length": check_length, "slipway.language": check_language}


class Section:
    """What checking any part of the document needs."""

    def __init__(self, document: dict[str, Any], text: str, where: str):
        self.document, self.text, self.where = document, text, where

    def wrong(self, where: str, problem: str) -> WrongInput:
        return WrongInput(f"{self.where}: {where}: {problem}")

    def custom(self, section: dict[str, Any], where: str, known: dict[str, type | tuple[type, ...]]) -> dict[str, Any]:
        """The customProperties of a section. An unknown `slipway.*` is an error; others are the user's own."""
        found = {}
        for entry in section.get("customProperties") or []:
            key = entry["property"]
            if key not in known:
                if key.startswith("slipway"):
                    raise self.wrong(where, f"unknown property '{key}'; {choices(key, known)}")
                continue
            if not isinstance(entry["value"], known[key]) or isinstance(entry["value"], bool) > (known[key] is bool):
                raise self.wrong(key, f"value {entry['value']!r} is not {_type_name(known[key])}")
            found[key] = entry["value"]
        return found

    def keys(self, where: str, section: dict[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
        for key in section:
            if key not in known:
                raise self.wrong(where, f"unknown key '{key}'; {choices(str(key), known)}")
        return section

    def texts(self, where: str, values: list[Any]) -> list[str]:
        for value in values:
            if not isinstance(value, str):
                raise self.wrong(where, f"value {value!r} is not text; put it in quotes")
        return values

    def share(self, where: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise self.wrong(where, f"{value!r} is not a share; write a number from 0 to 1")
        return float(value)


class Columns(Section):
    """What a contract says of each column."""

    def column(self, entry: dict[str, Any]) -> Column:
        where = f"schema.properties.{entry['name']}"
        if entry["name"] == "row_id":
            raise self.wrong(where, "is the name of Slipway's own column; rename it in the data")
        kind = entry.get("logicalType")
        if kind not in ARROW_TYPES:
            raise self.wrong(
                where, f"logicalType {kind!r} is not one that rows can have; {choices(str(kind), ARROW_TYPES)}"
            )
        options = dict(entry.get("logicalTypeOptions") or {})
        for key in options:
            if key not in OPTIONS[kind]:
                raise self.wrong(
                    f"{where}.logicalTypeOptions", f"'{key}' is not checked; {choices(key, OPTIONS[kind])}"
                )
        width = options.pop("format", "")
        if width not in ARROW_TYPES[kind]:
            widths = choices(width, [known for known in ARROW_TYPES[kind] if known])
            raise self.wrong(f"{where}.logicalTypeOptions.format", f"'{width}' is not a width; {widths}")
        if "pattern" in options:
            try:
                re.compile(options["pattern"])
            except re.error as error:
                raise self.wrong(
                    f"{where}.logicalTypeOptions.pattern", f"is not a regular expression ({error})"
                ) from None
        own = self.custom(entry, f"{where}.customProperties", SETTINGS)
        severity = own.get("slipway.severity", "error")
        if severity not in SEVERITIES:
            raise self.wrong(f"{where}.slipway.severity", f"'{severity}' is unknown; {choices(severity, SEVERITIES)}")
        budgets = {}
        for key, check in BUDGETS.items():
            if key in own:
                if kind != "string" or "slipway.type" in own:
                    raise self.wrong(
                        f"{where}.{key}", f"is a budget of text, and the column is {own.get('slipway.type', kind)}"
                    )
                budgets[key.removeprefix("slipway.")] = check(own[key], f"{self.where}: {where}.{key}")
        condition = own.get("slipway.condition")
        if condition is not None:
            if kind != "boolean" or entry.get("physicalName"):
                raise self.wrong(
                    f"{where}.slipway.condition",
                    "is what a column of logicalType: boolean is made of, which no source holds under any physicalName",
                )
            check_condition(condition, f"{self.where}: {where}.slipway.condition")
        if "slipway.type" in own:
            return self.image(entry, where, own["slipway.type"])
        item, arrow = self.items(entry, where) if kind == "array" else ("", ARROW_TYPES[kind][width])
        return Column(
            name=entry["name"],
            physical=entry.get("physicalName") or "",
            type=kind,
            arrow=arrow,
            item=item,
            required=bool(entry.get("required") or entry.get("primaryKey")),
            unique=bool(entry.get("unique") or entry.get("primaryKey")),
            options=options,
            enum=tuple(value["value"] for value in entry.get("enum") or []),
            severity=severity,
            quality=tuple(self.rules(f"{where}.quality", entry.get("quality") or [])),
            condition=condition,
            **budgets,
        )

    def items(self, entry: dict[str, Any], where: str) -> tuple[str, str]:
        """(logicalType, Arrow type of the list) of a list column."""
        for key in ("unique", "primaryKey", "enum", "quality"):
            if entry.get(key):
                raise self.wrong(
                    f"{where}.{key}", "is of a list; there is: required, and minItems, maxItems, uniqueItems"
                )
        if "items" not in entry:
            raise self.wrong(f"{where}.items", "is missing; say what the list holds: `items: {logicalType: string}`")
        item = self.column({"name": entry["name"], **entry["items"]})
        kinds = [kind for kind in ARROW_TYPES if kind != "array"]
        if item.type not in kinds:
            raise self.wrong(
                f"{where}.items", f"{item.type} is not one that a list can have; {choices(item.type, kinds)}"
            )
        if item.options or item.enum or item.required or item.unique or item.quality:
            raise self.wrong(
                f"{where}.items", "rules of single items are not checked; there is: logicalType and its format"
            )
        return item.type, f"list<{item.arrow}>"

    def image(self, entry: dict[str, Any], where: str, kind: str) -> Column:
        if kind != "image" or entry["logicalType"] != "string":
            raise self.wrong(f"{where}.slipway.type", f"'{kind}' of a {entry['logicalType']}: a string may be an image")
        for key in ("logicalTypeOptions", "enum", "unique", "primaryKey", "quality"):
            if entry.get(key):
                name = entry["name"]
                raise self.wrong(f"{where}.{key}", f"is of an image; give it to {name}_width, _height or _mode")
        # Whether it is required is asked of its width: pixels are no affair of the rules.
        return Column(name=entry["name"], physical=entry.get("physicalName") or "", type="image", arrow="image")

    def derived(self, columns: tuple[Column, ...]) -> tuple[Column, ...]:
        """The columns that images bring and the contract does not list itself."""
        listed = {column.name: column for column in columns}
        required = {entry["name"] for entry in self.document["schema"][0]["properties"] if entry.get("required")}
        found = []
        for image in (column for column in columns if column.type == "image"):
            for suffix, kind in DERIVED.items():
                name = f"{image.name}_{suffix}"
                if name not in listed:
                    arrow = "int32" if kind == "integer" else "string"
                    found.append(Column(name=name, type=kind, arrow=arrow, required=image.name in required))
                elif listed[name].type != kind:
                    raise self.wrong(f"schema.properties.{name}", f"tells of an image and must be logicalType: {kind}")
        return tuple(found)

    def rules(self, where: str, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rules = []
        for number, entry in enumerate(entries):
            place = f"{where}[{entry.get('name', number)}]"
            severity = entry.get("severity", "error")
            if severity not in SEVERITIES:
                raise self.wrong(place, f"severity '{severity}' is unknown; {choices(severity, SEVERITIES)}")
            rule = check_rule(entry, f"{self.where}: {place}")
            if rule is not None:
                rules.append(rule)
        return rules


def _type_name(kind: type | tuple[type, ...]) -> str:
    names = {
        list: "a list",
        dict: "a map",
        str: "text",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
    }
    return " or ".join(names[one] for one in (kind if isinstance(kind, tuple) else (kind,)))
