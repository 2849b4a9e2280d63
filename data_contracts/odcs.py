"""What any ODCS v3 document must be: safe YAML, the standard's JSON schema, quality rules that can be run.

NOTE the schema is applied before the package's own model, because the model drops a misspelt nested key in silence
and so turns `requierd: true` into a column that may be empty.
"""

import re
from typing import Any

from infra.errors import WrongInput, choices

MAX_BYTES = 1 << 20
MAX_ALIASES = 20
"""Each alias can at most double what was there: 20 keep any bomb below 2,000 times the file."""
MAX_DEPTH = 40

METRICS = {"nullValues", "missingValues", "invalidValues", "duplicateValues", "rowCount"}
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
ARGUMENTS = {
    "nullValues": set(),
    "missingValues": {"missingValues"},
    "invalidValues": {"validValues", "pattern"},
    "duplicateValues": {"properties"},
    "rowCount": set(),
}
UNITS = {"rows", "percent"}


def load_yaml(text: str, where: str) -> dict[str, Any]:
    """The document as plain JSON values: text that looks like a date stays text. Raises WrongInput."""
    import yaml

    if len(text) > MAX_BYTES:
        raise WrongInput(f"{where}: is {len(text):,} characters long; a contract has at most {MAX_BYTES:,}")
    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc, valid-type]
        yaml_implicit_resolvers = {
            first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
            for first, resolvers in base.yaml_implicit_resolvers.items()
        }

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                    line = key.start_mark.line + 1
                    raise WrongInput(f"{where}: line {line}: key '{key.value}' stands there twice; keep one")
                seen.add(key.value if isinstance(key.value, str) else id(key))
            return super().construct_mapping(node, deep)

    try:
        aliases = depth = 0
        for event in yaml.parse(text, Loader=base):
            aliases += isinstance(event, yaml.AliasEvent)
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if aliases > MAX_ALIASES or depth > MAX_DEPTH:
                what = f"more than {MAX_ALIASES} aliases" if aliases > MAX_ALIASES else f"more than {MAX_DEPTH} levels"
                raise WrongInput(f"{where}: line {event.start_mark.line + 1}: {what}; write it out plainly")
        document = yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise WrongInput(f"{where}: {line}is not YAML ({problem}); mend it") from None
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
    elif isinstance(value, float) and not (value - value == 0):
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
            known = [str(value) for value in error.validator_value]
            faults.append((1, path, f"{error.instance!r} is unknown; {choices(str(error.instance), known)}"))
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
    waiting, seen = [schema], []
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


def check_rule(rule: dict[str, Any], where: str) -> dict[str, Any] | None:
    """A quality rule ready to run: {"kind": "metric" | "expectation" ...}; None for one of words. Raises WrongInput."""
    kind = rule.get("type", "library")
    severity = rule.get("severity", "error")
    if kind == "text":
        return None  # for people; nothing claims to check it
    if kind == "sql":
        raise WrongInput(
            f"{where}: rules in SQL are not run (no contract is evaluated as code); use a metric or a GX rule"
        )
    if kind == "library":
        metric = rule["metric"]
        operator = next(key for key in rule if key in OPERATORS)
        arguments = rule.get("arguments") or {}
        for key in arguments:
            if key not in ARGUMENTS[metric]:
                raise WrongInput(
                    f"{where}: arguments: unknown key '{key}' for {metric}; {choices(key, ARGUMENTS[metric])}"
                )
        if metric == "invalidValues" and not arguments:
            raise WrongInput(f"{where}: invalidValues needs arguments: validValues (a list) or pattern")
        if "pattern" in arguments:
            try:
                re.compile(arguments["pattern"])
            except (re.error, TypeError) as error:
                raise WrongInput(f"{where}: arguments.pattern is not a regular expression ({error})") from None
        unit = rule.get("unit", "rows")
        if unit not in UNITS:
            raise WrongInput(f"{where}: unit '{unit}' is unknown; {choices(unit, UNITS)}")
        bound = rule[operator]
        numbers = bound if isinstance(bound, list) else [bound]
        if any(isinstance(number, bool) or not isinstance(number, (int, float)) for number in numbers):
            raise WrongInput(f"{where}: {operator}: {bound!r} is not a number; write how many {unit}")
        return {
            "kind": "metric",
            "metric": metric,
            "operator": operator,
            "bound": bound,
            "unit": unit,
            "arguments": arguments,
            "severity": severity,
            "name": rule.get("name") or metric,
        }
    if rule["engine"].lower().replace("_", "").replace("-", "") != "greatexpectations":
        raise WrongInput(f"{where}: engine '{rule['engine']}' is unknown; there is: greatExpectations")
    implementation = rule["implementation"]
    if isinstance(implementation, str):
        implementation = load_yaml(implementation, f"{where}: implementation")
    return _check_expectation(implementation, rule, f"{where}: implementation", severity)


def _check_expectation(body: dict[str, Any], rule: dict[str, Any], where: str, severity: str) -> dict[str, Any]:
    for key in body:
        if key not in ("type", "expectation_type", "kwargs", "meta"):
            raise WrongInput(f"{where}: unknown key '{key}'; {choices(key, ['type', 'kwargs', 'meta'])}")
    kind = body.get("type") or body.get("expectation_type")
    known = expectations()
    if kind not in known:
        raise WrongInput(f"{where}: expectation {kind!r} is not Great Expectations' own; {choices(str(kind), known)}")
    kwargs = body.get("kwargs") or {}
    if not isinstance(kwargs, dict):
        raise WrongInput(f"{where}: kwargs {kwargs!r} is not a map")
    for key in kwargs:
        if key in ("row_condition", "condition_parser", "result_format"):
            reason = "decided by Slipway" if key == "result_format" else "text that would be run as code"
            raise WrongInput(f"{where}: kwargs.{key} is not taken ({reason}); leave it out")
    return {
        "kind": "expectation",
        "type": kind,
        "kwargs": kwargs,
        "severity": severity,
        "name": rule.get("name") or kind,
    }


def expectations() -> list[str]:
    """Names of Great Expectations' own expectations, from its files: importing it takes seconds.

    Left out are those that hand a query to a database.
    """
    import importlib.util
    from pathlib import Path

    spec = importlib.util.find_spec("great_expectations")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "expectations" / "core"
    return sorted(path.stem for path in folder.glob("expect_*.py") if "query" not in path.stem)
