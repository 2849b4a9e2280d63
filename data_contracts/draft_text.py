"""The text of a draft contract: YAML by hand, because every guess carries its reason as a comment."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from data_contracts.contract import QUARANTINE_LIMIT
from data_contracts.draft_roles import LONG_TEXT, SHARES, Roles, Seen
from data_contracts.draft_server import Found, typed
from data_contracts.language import tell

MAX_CATEGORIES = 20
RARE = 0.002
"""Share of the values below which a category is pointed out."""


class Text:
    """Composes the draft of one file or folder from what was seen of its columns."""

    def __init__(self, found: Found, path: Path, seen: list[Seen], marks: list[str], unreadable: int, rows: int):
        self.found, self.path, self.seen, self.marks = found, path, seen, marks
        self.unreadable, self.rows = unreadable, rows
        self.roles = Roles(found, seen, rows)

    def text(self) -> str:
        lines = [
            f"# Drafted from {self.rows:,} rows of {self.path.name}: read it, prune it, then register it with",
            "#     slipway data register THIS_FILE",
            "# What is drafted of a column (required, unique, ranges, lengths, categories) only warns where",
            "# slipway.severity: warning stands under it. Take that line away, and a row that breaks such a rule is",
            "# quarantined, as is always a row that has a value of another type.",
            "apiVersion: v3.1.0",
            "kind: DataContract",
            f"id: {_name(self.path)}",
            f"name: {_name(self.path)}",
            "version: 1.0.0",
            "status: draft",
            "description:",
            '  purpose: ""  # what it is for; who may use it stands under `team` and `authoritativeDefinitions`',
            "",
            *self._servers(),
            "",
            "schema:",
            "  - name: rows",
            "    properties:",
        ]
        for one in self.seen:
            lines += self._column(one)
        for name, why in self.found.left_out.items():
            lines.append(f"      # left out: {_comment(name)} ({_comment(why)})")
        return "\n".join([*lines, "", *self._settings()]) + "\n"

    def _servers(self) -> list[str]:
        section = self.found.section(str(self.path.absolute()))
        lines = ["servers:", f"  - server: {section['server']}", f"    type: {section['type']}"]
        lines.append(f"    path: {scalar(section['path'])}  # a relative path starts from this file's folder")
        if "format" in section:
            lines.append(f"    format: {section['format']}")
        if "encoding" in section:
            lines.append(f"    encoding: {section['encoding']}  # told by the file's bytes; check an accent or two")
        if section.get("customProperties"):
            lines.append("    customProperties:")
            for entry in section["customProperties"]:
                lines += [f"      - property: {entry['property']}", f"        value: {scalar(entry['value'])}"]
        if self.unreadable:
            lines.append(f"    # {self.unreadable:,} of the first rows could not be parsed: they would be quarantined")
        return lines

    def _column(self, one: Seen) -> list[str]:
        lines = [f"      # {_comment('; '.join(one.notes))}"] if one.notes else []
        lines.append(f"      - name: {scalar(one.name)}")
        if one.physical != one.name:
            lines.append(f"        physicalName: {scalar(one.physical)}")
        lines.append(f"        logicalType: {'string' if one.kind == 'image' else one.kind}")
        if one.item:
            lines.append(f"        items: {scalar(typed(*one.item))}")
        complete = bool(one.values) and not one.missing
        if one.name == self.roles.caption:
            return [*lines, *self._caption_rules(one)]
        if complete and not one.odd:
            lines.append("        required: true")
        if one.kind == "image":
            return [*lines, "        customProperties:", "          - {property: slipway.type, value: image}"]
        if one.name in self.roles.keys:
            lines.append("        unique: true  # a key: no value comes twice in the sample")
        if one.personal:
            lines.append("        classification: personal")
        ruled = complete or one.name in self.roles.keys
        options, enum = self._rules(one)
        if options:
            lines.append(f"        logicalTypeOptions: {scalar(options)}")
        if enum:
            lines.append("        enum:")
            lines += [f"          - value: {scalar(value)}{self._remark(one, value)}" for value in enum]
        if ruled or enum or options.keys() - {"format"}:
            lines += ["        customProperties:", "          - {property: slipway.severity, value: warning}"]
            lines += [f"          # - {{property: {name}, value: {scalar(value)}}}" for name, value in _budgets(one)]
        return lines

    def _caption_rules(self, one: Seen) -> list[str]:
        """Strict, because a recipe refuses a data set with a picture whose caption is missing or blank."""
        lines = [
            "        required: true  # no warning: a picture without a caption is quarantined",
            r"        logicalTypeOptions: {pattern: '\S'}",
        ]
        budgets = [f"        #   - {{property: {name}, value: {scalar(value)}}}" for name, value in _budgets(one)]
        return [*lines, *(["        # customProperties:", *budgets] if budgets else [])]

    def _remark(self, one: Seen, value: Any) -> str:
        if one.name in self.found.derived:
            return _mode(one.values, value)
        return _rare(one.values, value)

    def _rules(self, one: Seen) -> tuple[dict[str, Any], list[Any]]:
        options: dict[str, Any] = {"format": one.format} if one.format else {}
        if not one.values or one.personal:
            return options, []
        if one.kind == "array":
            lengths = [len(value) for value in one.values]
            return options | {"minItems": min(lengths), "maxItems": max(lengths)}, []
        counts = Counter(one.values)
        repeated = 2 <= len(counts) <= MAX_CATEGORIES and len(one.values) >= 5 * len(counts)
        if one.kind in ("string", "integer") and repeated and (one.kind == "string" or len(counts) <= 10):
            return options, sorted(counts)
        if one.kind in ("integer", "number"):
            finite = [value for value in one.values if abs(value) < float("inf")]
            if finite:
                options |= {"minimum": min(finite), "maximum": max(finite)}
        elif one.kind == "string":
            longest = max(len(value) for value in one.values)
            options["maxLength"] = max(longest * 2, 10)  # twice what was seen
        return options, []

    def _settings(self) -> list[str]:
        lines = ["customProperties:", "  # What a model sees, and what it is to predict."]
        if len(self.roles.inputs) > 0:
            lines += ["  - property: slipway.inputs", f"    value: {scalar(self.roles.inputs)}"]
        if self.roles.caption in self.roles.inputs:
            images = [name for name in self.roles.inputs if name != self.roles.caption]
            lines += ["  # Pictures with captions, as recipe clip reads them. An image classifier would want a label",
                      f"  # instead: {scalar(images)} above, and the label's column below."]  # fmt: skip
        if self.roles.label:
            lines += [
                "  - property: slipway.label",
                f"    value: {scalar(self.roles.label)}  # a guess by name and values",
            ]
        else:
            lines += ["  # - property: slipway.label", "  #   value: no column looks like one"]
        if self.marks:
            lines += [
                "  # These stand for a missing value where they were found, and do in every column.",
                "  - property: slipway.null",
                f"    value: {scalar(['', *self.marks])}",
            ]
        lines += self._filters()
        lines += self._quarantine()
        lines += self._split()
        repeats = self.roles.repeats()
        if repeats and not self.roles.pinned:
            lines += [
                f"  # {repeats:,} rows of the sample repeat an earlier row's inputs and share its split. To keep only",
                "  # the first of each:",
                "  # - property: slipway.duplicates",
                f"  #   value: {{columns: {scalar(self.roles.inputs)}, keep: first}}",
            ]
        return lines

    def _filters(self) -> list[str]:
        """An example of the first column that can be compared, to take up."""
        for one in self.seen:
            if (
                one.kind in ("integer", "number")
                and one.name not in (*self.roles.keys, self.roles.label)
                and not one.personal
            ):
                finite = [value for value in one.values if abs(value) < float("inf")]
                if not finite:
                    continue
                where = {"type": "comparison", "column": {"name": one.name}, "operator": "<", "parameter": min(finite)}
                return [
                    "  # Rows to leave out on purpose, counted and kept apart with the name that you give:",
                    "  # - property: slipway.filters",
                    f"  #   value: [{scalar({'name': 'too-small', 'where': where})}]",
                ]
        return []

    def _quarantine(self) -> list[str]:
        """A limit that the pictures without a caption stay below, where they would come near the usual one."""
        missing = sum(one.missing for one in self.seen if one.name == self.roles.caption) / max(self.rows, 1)
        if missing < QUARANTINE_LIMIT / 2:
            return []
        return [
            f"  # {missing:.1%} of the pictures have no caption and are quarantined. A version with more than this",
            "  # share of its rows in quarantine is refused:",
            "  - property: slipway.quarantine",
            f"    value: {{limit: {min(1.0, round(2 * missing, 2))}}}",
        ]

    def _split(self) -> list[str]:
        head = ["  - property: slipway.split"]
        if self.roles.pinned:
            return [
                "  # The splits as they are given; what they share is reported.",
                *head,
                f"    value: {scalar(self.roles.pinned)}",
            ]
        group = self.roles.group()
        together = "it repeats, and names whom or what a row is of"
        if group is None and self.roles.caption in self.roles.inputs:  # by both inputs, a picture's captions would part
            group = next(name for name in self.roles.inputs if name != self.roles.caption)
            together = "a picture may have several captions"
        for test, validation in SHARES:
            value: dict[str, Any] = {"test": test, "validation": validation}
            if group and self.roles.fills(test, validation, group):
                why = f"  # Rows of one {_comment(group)} stay together: {together}."
                return [why, *head, f"    value: {scalar(value | {'group': group})}"]
            if self.roles.fills(test, validation, None):
                lines = [*head, f"    value: {scalar(value)}"]
                return (
                    lines
                    if not group
                    else [f"  # Rows of one {_comment(group)} may part: too few of it for a split.", *lines]
                )
        return [
            "  # Too few distinct inputs for a split by hash: all rows train. With more: {test: 0.1, validation: 0.1}",
            *head,
            "    value: {test: 0, validation: 0}",
        ]


def _rare(values: list[Any], value: Any) -> str:
    """A remark beside a category that hardly occurs: perhaps it is misspelt."""
    count = sum(one == value for one in values)
    if count > RARE * len(values):
        return ""
    return f"  # only {count} of {len(values):,}: misspelt?"


def _mode(values: list[Any], value: str) -> str:
    """A remark beside an image's mode: what training.images does with such pictures, and how they are kept out."""
    out = "without this line and the severity: quarantined"
    if value == "F":
        return f"  # floats: training refuses them unless slipway.mode of the source is set; {out}"
    if not _rare(values, value):
        return ""
    how = "scales 16 bits to 8" if value == "I;16" else "converts it"
    return f"  # only {values.count(value):,} of {len(values):,}: training {how}; {out}"


def _budgets(one: Seen) -> list[tuple[str, dict[str, Any]]]:
    """Custom properties to take up for texts that are read: their length, and the language that most look to be in."""
    if one.kind != "string" or one.mean_length <= LONG_TEXT or one.personal:
        return []
    words = sorted(len(value.split()) for value in one.values)
    found = [("slipway.length", {"maximum": words[len(words) * 99 // 100], "unit": "words", "over": "filter"})]
    told = Counter(code for value in one.values[:2000] if (code := tell(value)) is not None)
    for code, count in told.most_common(1):
        if count > 0.9 * told.total():
            found.append(("slipway.language", {"expected": code, "limit": 0.05, "over": "warn"}))
    return found


def scalar(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=1 << 30)
    return text.removesuffix("...\n").strip()


def _comment(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)[:160]


def _name(path: Path) -> str:
    stem = path.name if path.is_dir() else path.name.removesuffix(".gz").removesuffix(path.suffix)
    stem = stem if path.is_dir() or path.suffix != ".gz" else Path(stem).stem
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:100] or "dataset"
