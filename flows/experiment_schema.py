"""A JSON schema of experiments for editors: pydantic's own, with the recipe's settings and every gate's fields."""

from typing import Any

from flows.judging.gate import gate_names, load_gate
from flows.orchestration.schedule import Schedule
from training.experiment import Experiment
from training.recipe import recipe_names, settings_class


def experiment_schema(recipe: str | None = None) -> dict[str, Any]:
    """`recipe` adds the fields of its settings and its roles. Raises WrongInput for an unknown one."""
    schema = Experiment.model_json_schema(by_alias=True)
    schema["title"] = "Slipway experiment"
    schema["required"] = [name for name in schema["required"] if name != "name"]  # by default the file's
    fields, shared = schema["properties"], schema["$defs"]
    fields["recipe"]["enum"] = [recipe] if recipe else recipe_names()
    if recipe:
        kind = settings_class(recipe)
        settings = kind.model_json_schema()
        shared |= settings.pop("$defs", {})
        fields["settings"] = settings
        roles = {role: {"type": "string", "description": meaning} for role, meaning in kind.roles.items()}
        fields["from"] = {"type": "object", "properties": roles, "additionalProperties": False}
        if not kind.trains:
            seed = shared["Training"]["properties"]["seed"]
            fields["training"] = {"type": "object", "properties": {"seed": seed}, "additionalProperties": False}
            schema["required"].remove("training")
            del fields["scaling"]
    gates = {}
    for name in gate_names():
        gates[name] = load_gate(name).model_json_schema()
        shared |= gates[name].pop("$defs", {})
    fields["schedule"] = Schedule.model_json_schema()
    fields["gates"] = {"type": "object", "properties": gates, "additionalProperties": False}
    return schema
