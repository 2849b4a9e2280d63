"""What the columns of a sample look to be for: key, split, label, caption, input, group. For a draft, as guesses."""

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from data_contracts import hints
from data_contracts.contract import Contract, parse_contract
from data_contracts.draft_server import Found, typed
from data_contracts.rows import cast, said_plainly
from data_contracts.sources.images import ENDINGS
from data_contracts.splits import SPLITS, assign

MAX_LABELS = 200
BESIDE_TEXT = 2
"""Other columns that tell about a text; where there are more, it is a table with remarks in it."""
LONG_TEXT = 20
"""Characters on average, from which a text is taken for an input of its own."""
CAPTION_WORDS = 3
"""Words on average, from which a text beside a picture is a caption and no class. One of fewer is a caption where most
rows have another."""
WORDS = re.compile(r"[^\d/\\_@]+")
"""A text without what codes and addresses have."""
SHARES = ((0.1, 0.1), (0.2, 0.2), (0.3, 0.3))
"""Of test and validation: the first that the sample fills is drafted."""


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


class Roles:
    """Guessed from names and values of the columns in `seen`; rows: those of the sample.

    keys: columns whose values name a row. pinned: the value of slipway.split where the data brings its splits. label,
    caption: a column, or None. inputs: what a model sees, never empty where there is a column.
    """

    def __init__(self, found: Found, seen: list[Seen], rows: int):
        self.found, self.seen, self.rows = found, seen, rows
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
            if inputs and any(self.fills(test, validation, None) for test, validation in SHARES):
                return inputs
        return chosen or [name for name in self.names if name != self.label][:1] or self.names[:1]

    def repeats(self) -> int:
        """Rows of the sample whose inputs an earlier row has."""
        chosen = [one for one in self.seen if one.name in self.inputs]
        if any(one.kind == "image" or one.missing for one in chosen):
            return 0
        rows = Counter(zip(*(map(str, one.values) for one in chosen), strict=False))
        return sum(count - 1 for count in rows.values())

    def group(self) -> str | None:
        """A column that names whom or what a row is of, so that rows of one belong into one split."""
        for one in self.seen:
            repeats = one.values and not one.missing and 10 <= one.distinct < 0.9 * len(one.values)
            if repeats and one.name != self.label and hints.GROUPS.fullmatch(one.name):
                return one.name
        return None

    def fills(self, test: float, validation: float, group: str | None) -> bool:
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


def _is_caption(one: Seen) -> bool:
    texts = one.values[:2000]
    if one.kind != "string" or one.personal or not texts:
        return False
    files = sum(text.lower().endswith(tuple(ENDINGS)) for text in texts)
    said = sum(bool(WORDS.fullmatch(text)) for text in texts)
    words = sum(len(text.split()) for text in texts) / len(texts)
    varied = one.distinct > len(one.values) / 2 and said > len(texts) / 2
    return files <= len(texts) / 2 and (words >= CAPTION_WORDS or varied)


def made_names(contract: Contract) -> list[str]:
    return [column.name for column in contract.columns]
