"""What any ODCS v3 document must be: safe YAML, and the standard's JSON schema.

NOTE the schema is applied before the package's own model, because the model drops a misspelt nested key in silence
and so turns `requierd: true` into a column that may be empty.
"""

import difflib
from typing import Any

from infra.errors import WrongInput, choices

MAX_BYTES = 1 << 20
MAX_ALIASES = 20
"""Each alias can at most double what was there: 20 keep any bomb below 2,000 times the file."""
MAX_DEPTH = 40

OPERATORS = {
    "mustBe",
    "mustNotBe",
    "mustBeGreaterThan",
    "mustBeGreaterOrEqualTo",
    "mustBeLessThan",
    "mustBeLessOrEqualTo",
    "mustBeBetween",
    "mustNotBeBetween",
}


def load_yaml(text: str, where: str) -> dict[str, Any]:
    """The document as plain JSON values: text that looks like a date stays text. Raises WrongInput."""
    import yaml

    if len(text) > MAX_BYTES:
        raise WrongInput(f"{where}: is {len(text):,} characters long; a contract has at most {MAX_BYTES:,}")
    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
        for first, known in base.yaml_implicit_resolvers.items()
    }

    class Loader(base):  # type: ignore[misc, valid-type]
        yaml_implicit_resolvers = resolvers

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if not isinstance(key.value, str) or key.tag == "tag:yaml.org,2002:merge":
                    continue
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise WrongInput(f"{where}: line {line}: key '{key.value}' stands there twice; keep one")
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    try:
        aliases = depth = 0
        for event in yaml.parse(text, Loader=base):
            aliases += isinstance(event, yaml.AliasEvent)
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if aliases > MAX_ALIASES or depth > MAX_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else 1
                what = f"more than {MAX_ALIASES} aliases" if aliases > MAX_ALIASES else f"more than {MAX_DEPTH} levels"
                raise WrongInput(f"{where}: line {line}: {what}; write it out plainly")
        document = yaml.load(text, Loader=Loader)  # noqa: S506 Loader is the safe one
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise WrongInput(f"{where}: {place}is not YAML ({problem}); mend it") from None
    except (ValueError, RecursionError) as error:
        raise WrongInput(f"{where}: is not YAML ({error}); mend it") from None
    if not isinstance(document, dict):
        raise WrongInput(f"{where}: is not a contract but {type(document).__name__}; start from `apiVersion: v3.1.0`")
    _check_plain(document, where, "")
    return document


def _check_plain(value: Any, where: str, path: str) -> None:
    """Only what JSON can say: the contract's digest is of its canonical JSON."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise WrongInput(f"{where}: {path or 'document'}: key {key!r} is not text; put it in quotes")
            _check_plain(item, where, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_plain(item, where, f"{path}[{index}]")
    elif isinstance(value, float) and value - value != 0:
        raise WrongInput(f"{where}: {path}: {value} is not a finite number; write one")
    elif isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
        raise WrongInput(f"{where}: {path}: holds half a character (a lone surrogate); write it out")
    elif value is not None and not isinstance(value, (str, int, float, bool)):
        raise WrongInput(f"{where}: {path}: holds {type(value).__name__}, which JSON cannot; write text or a number")


def odcs_schema() -> dict[str, Any]:
    """ODCS's JSON schema as the package `open-data-contract-standard` ships it (without importing its model)."""
    import importlib.util
    import json
    from pathlib import Path

    spec = importlib.util.find_spec("open_data_contract_standard")
    assert spec is not None and spec.submodule_search_locations
    return json.loads((Path(spec.submodule_search_locations[0]) / "schema.json").read_text(encoding="utf-8"))


def check_document(document: dict[str, Any], where: str) -> None:
    """Check against ODCS's JSON schema, then let its model read it. Raises WrongInput for the first fault."""
    from jsonschema import Draft201909Validator

    version = document.get("apiVersion")
    if not isinstance(version, str) or not version.startswith("v3."):
        raise WrongInput(f"{where}: apiVersion {version!r} is not ODCS v3; write `apiVersion: v3.1.0`")
    for table in _listed(document.get("schema")):
        for column in _listed(table.get("properties")):
            if "logicalType" not in column:  # the schema would then apply the rules of every type, and fail the first
                path = f"schema.{table.get('name')}.properties.{column.get('name')}"
                near = difflib.get_close_matches("logicalType", [str(key) for key in column], n=1, cutoff=0.7)
                if near:
                    raise WrongInput(f"{where}: {path}: unknown key '{near[0]}'; did you mean 'logicalType'?")
                raise WrongInput(f"{where}: {path}: logicalType is missing; write `logicalType: string`, say")
    schema = odcs_schema()
    errors = list(Draft201909Validator(schema).iter_errors(document))
    faults = []
    for error in errors:
        path = _path(document, list(error.absolute_path))
        if error.validator in ("unevaluatedProperties", "additionalProperties"):
            known = _known_keys(schema, error.schema)
            for key in error.instance:
                if key not in known:
                    problem = f"unknown key '{key}'; {choices(key, known)}"
                    faults.append((0, path, problem))
        elif error.validator == "required":
            missing = next(key for key in error.validator_value if key not in error.instance)
            faults.append((1, path, f"'{missing}' is missing"))
        elif error.validator == "enum":
            values = [str(value) for value in error.validator_value]
            faults.append((1, path, f"{error.instance!r} is unknown; {choices(str(error.instance), values)}"))
        elif error.validator == "type" and error.instance is None:
            problem = f"is empty and has to be {_either(error.validator_value)}; fill it in or take the line away"
            faults.append((1, path, problem))
        elif error.validator == "type":
            faults.append((1, path, f"{_short(error.instance)} is not {_either(error.validator_value)}"))
        elif error.validator == "oneOf" and isinstance(error.instance, dict) and "quality" in path:
            faults.append((1, path, f"needs exactly one of {', '.join(sorted(OPERATORS))}"))
        else:
            faults.append((2, path, error.message[:200]))
    if faults:
        _, path, problem = min(faults)
        raise WrongInput(f"{where}: {path or 'document'}: {problem}")
    if errors:  # only echoes of each other: a key reported as unknown that the schema does know
        raise WrongInput(f"{where}: {_path(document, list(errors[0].absolute_path))}: {errors[0].message[:200]}")
    from open_data_contract_standard.model import OpenDataContractStandard
    from pydantic import ValidationError

    try:
        OpenDataContractStandard.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        raise WrongInput(f"{where}: {path}: {first['msg']}") from None


def drop_empty_lists(document: dict[str, Any]) -> None:
    """Take away `customProperties:` and `quality:` under which nothing stands (any more): they mean none."""
    tables = _listed(document.get("schema"))
    columns = [column for table in tables for column in _listed(table.get("properties"))]
    for section in (document, *_listed(document.get("servers")), *tables, *columns):
        for key in ("customProperties", "quality"):
            if key in section and section[key] is None:
                del section[key]


def _listed(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _path(document: Any, parts: list[str | int]) -> str:
    """`schema.properties.age.required`: list entries by their name where they have one."""
    path = ""
    for part in parts:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            document = None
        if isinstance(part, int):
            name = document.get("name") or document.get("property") if isinstance(document, dict) else None
            path += f".{name}" if isinstance(name, str) else f"[{part}]"
        else:
            path += f".{part}"
    return path.removeprefix(".")


def _known_keys(root: dict[str, Any], schema: Any) -> set[str]:
    """Every property that a schema, or any it refers to for the same object, names."""
    known: set[str] = set()
    waiting: list[Any] = [schema]
    seen: list[Any] = []
    while waiting:
        part = waiting.pop()
        if not isinstance(part, dict) or any(part is other for other in seen):
            continue
        seen.append(part)
        known.update(part.get("properties", {}))
        if isinstance(reference := part.get("$ref"), str) and reference.startswith("#/"):
            target: Any = root
            for step in reference[2:].split("/"):
                target = target[step]
            waiting.append(target)
        for key in ("allOf", "anyOf", "oneOf"):
            waiting.extend(part.get(key, ()))
        waiting.extend(part[key] for key in ("then", "else") if key in part)
    return known


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _either(types: str | list[str]) -> str:
    return types if isinstance(types, str) else " or ".join(types)
