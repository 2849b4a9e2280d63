"""From an ODCS document to a Contract, field by field; every complaint names file and field."""

from pathlib import Path
from typing import Any

from data_contracts.column_reader import Columns
from data_contracts.conditions import columns_of
from data_contracts.contract import NAME, QUARANTINE_LIMIT, Contract, Split
from data_contracts.filters import check_filters
from data_contracts.slices import check_slices
from data_contracts.source import check_server
from data_contracts.splits import SPLITS
from infra.errors import choices

KEEP = ("first", "all")
NEAR = ("quarantine", "report")

DRIFT_TESTS = Path(__file__).parent / "drift_tests"

SETTINGS: dict[str, type | tuple[type, ...]] = {
    "slipway.inputs": list,
    "slipway.label": str,
    "slipway.split": dict,
    "slipway.null": list,
    "slipway.duplicates": dict,
    "slipway.quarantine": dict,
    "slipway.drift": dict,
    "slipway.slices": list,
    "slipway.filters": list,
}


class Reader(Columns):
    def contract(self) -> Contract:
        name = self.document.get("name") or self.document["id"]
        if not NAME.fullmatch(name):
            raise self.wrong(
                "name" if self.document.get("name") else "id",
                f"'{name}' cannot name a dataset; use letters, digits, '-' and '_'",
            )
        tables = self.document.get("schema") or []
        if len(tables) != 1:
            raise self.wrong("schema", f"has {len(tables)} tables, a dataset is one; write one contract for each")
        table = tables[0]
        columns = tuple(self.column(entry) for entry in table.get("properties") or [])
        if not columns:
            raise self.wrong("schema.properties", "lists no column; name at least one with its logicalType")
        derived = self.derived(columns)
        columns += derived
        self.names = [column.name for column in columns]
        for column_name in self.names:
            if self.names.count(column_name) > 1:
                raise self.wrong(f"schema.properties.{column_name}", "stands there twice; keep one")
        made = {column.name for column in columns if column.condition is not None}
        for column in columns:
            where = f"schema.properties.{column.name}.slipway.condition"
            used = sorted(columns_of(column.condition)) if column.condition else []
            self.check_columns(where, used)
            if chained := made.intersection(used):
                raise self.wrong(
                    where, f"asks column '{min(chained)}', which is made of a condition itself; ask its own"
                )
        settings = self.custom(self.document, "customProperties", SETTINGS)
        label = settings.get("slipway.label")
        if label is not None:
            self.check_columns("slipway.label", [label])
        split = self.split(settings.get("slipway.split", {}))
        left_out = {label, split.column, *(column.name for column in derived)}
        inputs = settings.get("slipway.inputs") or [name for name in self.names if name not in left_out]
        self.check_columns("slipway.inputs", inputs)
        if label in inputs:
            raise self.wrong("slipway.inputs", f"holds the label '{label}'; a model that sees it learns nothing else")
        servers = self.servers()
        return Contract(
            name=name,
            document=self.document,
            text=self.text,
            columns=columns,
            inputs=tuple(inputs),
            label=label,
            split=split,
            server=servers[0],
            servers=servers,
            nulls=tuple(self.texts("slipway.null", settings.get("slipway.null", [""]))),
            duplicates=self.duplicates(settings.get("slipway.duplicates")),
            quarantine_limit=self.quarantine(settings.get("slipway.quarantine", {})),
            drift=self.drift(settings.get("slipway.drift", {})),
            slices=check_slices(settings.get("slipway.slices", []), self.names, f"{self.where}: slipway.slices"),
            filters=check_filters(settings.get("slipway.filters", []), self.names, f"{self.where}: slipway.filters"),
            quality=tuple(self.rules("schema.quality", table.get("quality") or [])),
            path=self.where.removeprefix("contract "),
        )

    def check_columns(self, where: str, wanted: list[Any]) -> None:
        for name in wanted:
            if name not in self.names:
                raise self.wrong(where, f"column '{name}' is not in the schema; {choices(str(name), self.names)}")

    def check_single(self, where: str, name: str) -> None:
        if any(
            entry["name"] == name and entry["logicalType"] == "array"
            for entry in self.document["schema"][0]["properties"]
        ):
            raise self.wrong(where, f"column '{name}' holds lists; name one whose values are single")

    def split(self, section: dict[str, Any]) -> Split:
        self.keys("slipway.split", section, ("test", "validation", "group", "files", "column", "values"))
        files = self.pinned(section)
        usual = 0.0 if files or "column" in section else 0.1
        split = Split(
            test=self.share("slipway.split.test", section.get("test", usual)),
            validation=self.share("slipway.split.validation", section.get("validation", usual)),
            group=section.get("group"),
            files=files,
            column=section.get("column"),
            values=section.get("values") or {},
        )
        if split.test + split.validation >= 1:
            raise self.wrong(
                "slipway.split", f"test {split.test} and validation {split.validation} leave nothing to train on"
            )
        if split.group is not None:
            self.check_columns("slipway.split.group", [split.group])
            self.check_single("slipway.split.group", split.group)
        return split

    def pinned(self, section: dict[str, Any]) -> dict[str, tuple[str, ...]]:
        """Check what pins the splits; the files of each, where files do."""
        files, column, values = section.get("files"), section.get("column"), section.get("values")
        if column is not None:
            self.check_columns("slipway.split.column", [column])
            self.check_single("slipway.split.column", column)
            for key in ("test", "validation", "group", "files"):
                if key in section:
                    raise self.wrong(f"slipway.split.{key}", "cannot stand beside column, which says every row's split")
        if values is not None:
            if column is None or not isinstance(values, dict):
                raise self.wrong("slipway.split.values", "is a map from what split.column says to a split")
            for said, name in values.items():
                if name not in SPLITS:
                    raise self.wrong(f"slipway.split.values.{said}", f"'{name}': {choices(str(name), SPLITS)}")
        if files is None:
            return {}
        if not isinstance(files, dict) or "train" not in files:
            raise self.wrong("slipway.split.files", "is a map {train: FILE or a list, validation: ..., test: ...}")
        self.keys("slipway.split.files", files, SPLITS)
        found = {}
        for name, patterns in files.items():
            where = f"slipway.split.files.{name}"
            if name in section:
                raise self.wrong(f"slipway.split.{name}", f"is a share, and {where} names files; keep one of the two")
            found[name] = tuple(self.texts(where, patterns if isinstance(patterns, list) else [patterns]))
        return found

    def duplicates(self, section: dict[str, Any] | None) -> dict[str, Any] | None:
        if section is None:
            return None
        self.keys("slipway.duplicates", section, ("columns", "keep", "near", "similarity"))
        keep, near = section.get("keep", "first"), section.get("near")
        if keep not in KEEP:
            raise self.wrong("slipway.duplicates.keep", f"'{keep}' is unknown; {choices(str(keep), KEEP)}")
        if near is not None and near not in NEAR:
            raise self.wrong("slipway.duplicates.near", f"'{near}' is unknown; {choices(str(near), NEAR)}")
        similarity = self.share("slipway.duplicates.similarity", section.get("similarity", 0.8))
        if similarity < 0.5:
            raise self.wrong(
                "slipway.duplicates.similarity", f"{similarity} is too little to be a duplicate; give 0.5 or more"
            )
        columns = section.get("columns") or self.names
        if not isinstance(columns, list):
            raise self.wrong("slipway.duplicates.columns", f"{columns!r} is not a list of columns")
        self.check_columns("slipway.duplicates.columns", columns)
        return {"columns": columns, "keep": keep, "near": near, "similarity": similarity}

    def quarantine(self, section: dict[str, Any]) -> float:
        self.keys("slipway.quarantine", section, ("limit",))
        return self.share("slipway.quarantine.limit", section.get("limit", QUARANTINE_LIMIT))

    def drift(self, section: dict[str, Any]) -> dict[str, Any]:
        self.keys("slipway.drift", section, ("alpha", "effect", "block", "columns"))
        columns = section.get("columns") or {}
        if not isinstance(columns, dict):
            raise self.wrong("slipway.drift.columns", f"{columns!r} is not a map from a column to its policy")
        self.check_columns("slipway.drift.columns", list(columns))
        policy = {
            "alpha": self.share("slipway.drift.alpha", section.get("alpha", 0.05)),
            "effect": self.share("slipway.drift.effect", section.get("effect", 0.1)),
            "block": section.get("block", True),
            "columns": {},
        }
        if not isinstance(policy["block"], bool):
            raise self.wrong("slipway.drift.block", f"{policy['block']!r} is not true or false")
        for name, own in columns.items():
            policy["columns"][name] = self.column_drift(f"slipway.drift.columns.{name}", own)
        return policy

    def column_drift(self, where: str, own: Any) -> dict[str, Any]:
        if not isinstance(own, dict):
            raise self.wrong(where, f"{own!r} is not a policy; write {{effect: 0.2}}")
        self.keys(where, own, ("effect", "block", "ignore", "test"))
        for key in ("block", "ignore"):
            if not isinstance(own.get(key, True), bool):
                raise self.wrong(f"{where}.{key}", f"{own[key]!r} is not true or false")
        # Listed, not imported: how versions are compared is no part of what a contract makes of the data.
        tests = sorted(path.stem for path in DRIFT_TESTS.glob("*.py") if path.stem != "__init__")
        if "test" in own and own["test"] not in tests:
            raise self.wrong(f"{where}.test", f"'{own['test']}' is unknown; {choices(str(own['test']), tests)}")
        return {**own, "effect": self.share(f"{where}.effect", own["effect"])} if "effect" in own else own

    def servers(self) -> tuple[dict[str, Any], ...]:
        sections = self.document.get("servers") or []
        if not sections:
            raise self.wrong(
                "servers", "is missing; say where the data is: {server: files, type: local, path: ..., format: csv}"
            )
        return tuple(self.server(section, f"servers[{number}]") for number, section in enumerate(sections))

    def server(self, section: dict[str, Any], where: str) -> dict[str, Any]:
        if section["type"] not in ("local", "s3", "custom"):
            raise self.wrong(f"{where}.type", f"'{section['type']}' has no source; there is: local, s3, custom")
        server = {key: value for key, value in section.items() if key != "customProperties"}
        for entry in section.get("customProperties") or []:
            key = entry["property"]
            if key.startswith("slipway."):
                server[key.removeprefix("slipway.")] = entry["value"]
        if section["type"] in ("local", "s3"):
            server.setdefault("source", "files" if section["type"] == "local" else "s3")
        if not isinstance(server.get("source"), str):
            raise self.wrong(where, "a custom server needs the custom property slipway.source; see `slipway sources`")
        check_server(server, f"{self.where}: {where}")
        return server
