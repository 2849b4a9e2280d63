"""The text of a draft contract: YAML by hand, because every guess carries its reason as a comment."""

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from data_contracts import hints
from data_contracts.contract import Contract, parse_contract
from data_contracts.draft_server import Found, typed
from data_contracts.language import tell
from data_contracts.rows import cast, said_plainly
from data_contracts.sources.images import ENDINGS
from data_contracts.splits import SPLITS, assign

MAX_CATEGORIES = 20
MAX_LABELS = 200
BESIDE_TEXT = 2
"""Other columns that tell about a text; where there are more, it is a table with remarks in it."""
LONG_TEXT = 20
"""Characters on average, from which a text is taken for an input of its own."""
RARE = 0.002
"""Share of the values below which a category is pointed out."""
CAPTION_WORDS = 3
"""Words on average, from which a text beside a picture is a caption and no class. One of fewer is a caption where most
rows have another."""
WORDS = re.compile(r"[^\d/\\_@]+")
"""A text without what codes and addresses have."""
USUAL_LIMIT = 0.1
"""Share of quarantined rows above which a version is refused where the contract says no other."""
SHARES = ((0.1, 0.1), (0.2, 0.2), (0.3, 0.3))


@dataclass
class Seen:
    """A column of the sample."""

    name: str
    physical: str
    kind: str
    """logicalType, or "image"."""
    format: str | None = None
    values: list[Any] = field(default_factory=list)
    """Without the missing ones."""
    missing: int = 0
    item: tuple[str, str | None] | None = None
    """Type of a list's items."""
    odd: float = 0.0
    """Share of the values that are not of the type."""
    notes: list[str] = field(default_factory=list)
    personal: str | None = None

    @property
    def distinct(self) -> int:
        return len(set(map(str, self.values)))

    @property
    def mean_length(self) -> float:
        return sum(len(str(value)) for value in self.values) / max(len(self.values), 1)


class Text:
    """Composes the draft of one file or folder from what was seen of its columns."""

    def __init__(self, found: Found, path: Path, seen: list[Seen], marks: list[str], unreadable: int, rows: int):
        self.found, self.path, self.seen, self.marks = found, path, seen, marks
        self.unreadable, self.rows = unreadable, rows
        self.names = [one.name for one in seen]
        self.keys = [one.name for one in seen if self._is_key(one)]
        self.pinned = found.split or self._split_column()
        self.label = self._label()
        self.caption = self._caption()
        self.inputs: list[str] = []
        self.inputs = self._inputs()

    def _is_key(self, one: Seen) -> bool:
        unique = len(one.values) > 1 and not one.missing and one.distinct == len(one.values)
        return unique and one.kind in ("integer", "string") and bool(hints.KEYS.fullmatch(one.name))

    def _split_column(self) -> dict[str, Any] | None:
        known = {"train": "train", "training": "train", "test": "test", "testing": "test", "dev": "validation",
                 "val": "validation", "valid": "validation", "validation": "validation"}  # fmt: skip
        for one in self.seen:
            said = set(map(str, one.values))
            named = one.name.lower() in ("split", "set", "subset", "partition", "fold")
            if named and not one.missing and "train" in said and said <= known.keys():
                values = {value: known[value] for value in sorted(said) if value not in SPLITS}
                return {"column": one.name} | ({"values": values} if values else {})
        return None

    def _categorical(self, one: Seen) -> bool:
        few = 2 <= one.distinct <= min(MAX_LABELS, max(len(one.values) // 5, 2))
        return few and one.kind in ("string", "integer", "boolean") and one.mean_length <= 40

    def _label(self) -> str | None:
        open_ones = [one for one in self.seen if one.name not in self.keys and one.kind != "image" and one.values]
        open_ones = [one for one in open_ones if one.name != (self.pinned or {}).get("column")]
        open_ones = [one for one in open_ones if one.name not in self.found.derived]
        for word in hints.LABELS:
            for one in open_ones:
                if one.name.lower() == word and len(self.seen) > 1:
                    return one.name
        pictures = any(one.kind == "image" for one in self.seen)
        if len(open_ones) > (0 if pictures else 1) and self._is_label(open_ones[-1]):
            return open_ones[-1].name
        return None

    def _is_label(self, one: Seen) -> bool:
        return self._categorical(one) and not one.personal and one not in self._captions()

    def _captions(self) -> list[Seen]:
        """Texts that say in words what a picture shows."""
        if [one.kind for one in self.seen].count("image") != 1:
            return []
        left_out = {*self.keys, *self.found.derived, (self.pinned or {}).get("column")}
        return [one for one in self.seen if one.name not in left_out and _is_caption(one)]

    def _caption(self) -> str | None:
        """The one column that a picture goes with where there is no label."""
        found = self._captions() if self.label is None else []
        if len(found) > 1:  # such as the licence beside the caption
            found = [one for one in found if one.distinct > len(one.values) / 2]
        return found[0].name if len(found) == 1 else None

    def _inputs(self) -> list[str]:
        left_out = {*self.keys, self.label, (self.pinned or {}).get("column")}
        left_out |= {one.name for one in self.seen if one.personal}
        usable = [one for one in self.seen if one.name not in left_out and one.values]
        usable = [one for one in usable if one.name not in self.found.derived]
        images = [one.name for one in usable if one.kind == "image"]
        texts = [one.name for one in usable if one.kind == "string" and one.mean_length > LONG_TEXT]
        others = [one.name for one in usable if one.kind != "string" or one.distinct < len(one.values) / 2]
        if len(others) > BESIDE_TEXT + len(texts):
            texts = []
        if images and self.caption:
            images.append(self.caption)
        chosen = images or texts[:2] or others or [one.name for one in usable]
        for inputs in (chosen, [one.name for one in usable]):
            self.inputs = inputs
            if inputs and any(self._fills(test, validation, None) for test, validation in SHARES):
                return inputs
        return chosen or [name for name in self.names if name != self.label][:1] or self.names[:1]

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
        if one.name == self.caption:
            return [*lines, *self._caption_rules(one)]
        if complete and not one.odd:
            lines.append("        required: true")
        if one.kind == "image":
            return [*lines, "        customProperties:", "          - {property: slipway.type, value: image}"]
        if one.name in self.keys:
            lines.append("        unique: true  # a key: no value comes twice in the sample")
        if one.personal:
            lines.append("        classification: personal")
        ruled = complete or one.name in self.keys
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
        if len(self.inputs) > 0:
            lines += ["  - property: slipway.inputs", f"    value: {scalar(self.inputs)}"]
        if self.caption in self.inputs:
            images = [name for name in self.inputs if name != self.caption]
            lines += ["  # Pictures with captions, as recipe clip reads them. An image classifier would want a label",
                      f"  # instead: {scalar(images)} above, and the label's column below."]  # fmt: skip
        if self.label:
            lines += ["  - property: slipway.label", f"    value: {scalar(self.label)}  # a guess by name and values"]
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
        repeats = self._repeats()
        if repeats and not self.pinned:
            lines += [
                f"  # {repeats:,} rows of the sample repeat an earlier row's inputs and share its split. To keep only",
                "  # the first of each:",
                "  # - property: slipway.duplicates",
                f"  #   value: {{columns: {scalar(self.inputs)}, keep: first}}",
            ]
        return lines

    def _filters(self) -> list[str]:
        """An example of the first column that can be compared, to take up."""
        for one in self.seen:
            if one.kind in ("integer", "number") and one.name not in (*self.keys, self.label) and not one.personal:
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
        missing = sum(one.missing for one in self.seen if one.name == self.caption) / max(self.rows, 1)
        if missing < USUAL_LIMIT / 2:
            return []
        return [
            f"  # {missing:.1%} of the pictures have no caption and are quarantined. A version with more than this",
            "  # share of its rows in quarantine is refused:",
            "  - property: slipway.quarantine",
            f"    value: {{limit: {min(1.0, round(2 * missing, 2))}}}",
        ]

    def _repeats(self) -> int:
        chosen = [one for one in self.seen if one.name in self.inputs]
        if any(one.kind == "image" or one.missing for one in chosen):
            return 0
        rows = Counter(zip(*(map(str, one.values) for one in chosen), strict=False))
        return sum(count - 1 for count in rows.values())

    def _split(self) -> list[str]:
        head = ["  - property: slipway.split"]
        if self.pinned:
            return [
                "  # The splits as they are given; what they share is reported.",
                *head,
                f"    value: {scalar(self.pinned)}",
            ]
        group = self._group()
        together = "it repeats, and names whom or what a row is of"
        if group is None and self.caption in self.inputs:  # by both inputs, a picture's captions would part
            group = next(name for name in self.inputs if name != self.caption)
            together = "a picture may have several captions"
        for test, validation in SHARES:
            value: dict[str, Any] = {"test": test, "validation": validation}
            if group and self._fills(test, validation, group):
                why = f"  # Rows of one {_comment(group)} stay together: {together}."
                return [why, *head, f"    value: {scalar(value | {'group': group})}"]
            if self._fills(test, validation, None):
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

    def _group(self) -> str | None:
        for one in self.seen:
            repeats = one.values and not one.missing and 10 <= one.distinct < 0.9 * len(one.values)
            if repeats and one.name != self.label and hints.GROUPS.fullmatch(one.name):
                return one.name
        return None

    def _fills(self, test: float, validation: float, group: str | None) -> bool:
        """Whether the sample's rows reach every split."""
        import pyarrow as pa

        columns = [group] if group else self.inputs
        chosen = [one for one in self.seen if one.name in columns]
        if any(one.kind == "image" for one in chosen):  # pixels are not in the sample: trust to their number
            return self.rows >= 100
        provisional = self._provisional(chosen, test, validation, group)
        said = [[said_plainly(value) for value in one.values] for one in chosen]
        rows = min(map(len, said))
        batch = pa.record_batch([pa.array(texts[:rows]) for texts in said], names=[one.name for one in chosen])
        table = pa.Table.from_batches([cast(batch, provisional)[0]])
        sizes = Counter(assign(table, provisional, []))
        return all(sizes[split] > 0 for split in SPLITS)

    def _provisional(self, chosen: list[Seen], test: float, validation: float, group: str | None) -> Contract:
        document = {
            "apiVersion": "v3.1.0",
            "kind": "DataContract",
            "id": "draft",
            "version": "1.0.0",
            "servers": [{"server": "here", "type": "local", "path": "x", "format": "csv"}],
            "schema": [
                {
                    "name": "rows",
                    "properties": [
                        {"name": one.name, **typed(one.kind, None), **({"items": typed(*one.item)} if one.item else {})}
                        for one in chosen
                    ],
                }
            ],
        }
        made = parse_contract(yaml.safe_dump(document), "draft")
        inputs = tuple(name for name in self.inputs if name in made_names(made))
        return replace(made, inputs=inputs, split=replace(made.split, test=test, validation=validation, group=group))


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


def _is_caption(one: Seen) -> bool:
    texts = one.values[:2000]
    if one.kind != "string" or one.personal or not texts:
        return False
    files = sum(text.lower().endswith(tuple(ENDINGS)) for text in texts)
    said = sum(bool(WORDS.fullmatch(text)) for text in texts)
    words = sum(len(text.split()) for text in texts) / len(texts)
    varied = one.distinct > len(one.values) / 2 and said > len(texts) / 2
    return files <= len(texts) / 2 and (words >= CAPTION_WORDS or varied)


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


def made_names(contract: Contract) -> list[str]:
    return [column.name for column in contract.columns]


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
