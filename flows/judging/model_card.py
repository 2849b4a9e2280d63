"""The model card in the Hugging Face Hub's format: a front matter that tools read, and a page that people do.

Mitchell et al., "Model cards for model reporting", FAT* 2019. It is made from the scorecard, so it says nothing that
the gates have not seen; what only people know (intended use, limits) it leaves to them.
"""

import re
from collections.abc import Mapping
from typing import Any

from flows.judging.page import VISIBLE
from flows.judging.scorecard_plots import figure
from training.evaluation import load_kind
from training.recipe import recipe_names, settings_class

HUB_METRICS = {"macro_f1": "f1"}
"""Metrics that the hub knows by another name."""


def model_card(card: Mapping[str, Any]) -> str:
    """The README.md of a scorecard's JSON."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    candidate, metrics, lineage = card["candidate"], card["metrics"], card["lineage"]
    dataset = candidate["dataset"].partition("@")[0]
    kind = load_kind(metrics["task"]) if metrics else None
    results = kind and [
        EvalResult(
            task_type=kind.hub_task(_reads(lineage["experiment"])),
            dataset_type=dataset,
            dataset_name=_plain(dataset),
            dataset_split=metrics["split"],
            dataset_revision=candidate["dataset"].partition("@")[2],
            metric_type=HUB_METRICS.get(metric, metric),
            metric_value=metrics["model"][metric]["value"],
        )
        for metric in kind.compared
    ]
    data = ModelCardData(
        model_name=_plain(candidate["name"]),
        datasets=[dataset],
        tags=["slipway", "mlflow"],
        eval_results=results or None,
        co2_eq_emissions=_emissions(card.get("energy")),
        slipway={
            "version": candidate["version"],
            "run": candidate["run"],
            "model_digest": candidate["model"],
            "dataset_digest": candidate["dataset"].partition("@")[2],
            "contract_digest": candidate["contract"],
            "verdict": _plain(card["verdict"]),
        },
    )
    lines = [
        f"# {_text(candidate['name'])}, version {candidate['version']}",
        "",
        f"{_text(card['verdict'])}.",
        "",
        *(line for note in card.get("notes", ()) for line in (f"> {_text(note)}", "")),
        "## Evaluation",
        "",
    ]
    if kind:
        lines += [f"On {metrics['rows']:,} {kind.rows} of the {metrics['split']} split, with 95 % intervals:", ""]
        lines += ["| metric | this model | " + _text(metrics["baseline"]["name"]) + " |", "| --- | --- | --- |"]
        lines += [
            f"| {kind.metrics[metric].title} | {_estimate(metrics['model'][metric])} | "
            f"{_estimate(metrics['baseline'][metric])} |"
            for metric in kind.compared
        ]
    else:
        lines.append("There is no evaluation of this model that can be trusted.")
    lines += ["", "## Gates", "", "| gate | verdict | why |", "| --- | --- | --- |"]
    lines += [
        f"| {verdict['gate']} | {_answer(verdict)} | {_text(verdict['sentence'])} |" for verdict in card["verdicts"]
    ]
    lines += ["", "## Training data", "", f"`{_plain(candidate['dataset'])}`", ""]
    lines += [f"- {_text(name)}: {_text(str(value))}" for name, value in lineage["dataset"].items()]
    lines += [
        "",
        "## How it was made",
        "",
        f"- run: `{_plain(candidate['run'])}`",
        f"- author: {_text(lineage['author'])}",
    ]
    lines += [f"- finished: {_text(lineage['created'])}", f"- started from: {_text(lineage['base'])}"]
    if card.get("energy"):
        spent = card["energy"]
        lines.append(
            "- energy: " + ", ".join(f"{figure(value)} {UNITS[name]}" for name, value in spent.items() if name in UNITS)
        )
    lines += ["", "```yaml", lineage["experiment"].translate(VISIBLE).replace("```", "'''").rstrip(), "```", ""]
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(lines), ignore_metadata_errors=False))


UNITS = {"energy_kwh": "kWh", "co2_kg": "kg of CO2e"}


def _reads(experiment: str) -> str:
    """What the recipe of the experiment (YAML) reads."""
    recipe = re.search(r"^recipe: (\w+)$", experiment, re.MULTILINE)
    known = recipe and recipe[1] in recipe_names()
    return settings_class(recipe[1]).reads if recipe and known else "text"


def _emissions(energy: Mapping[str, float] | None) -> dict[str, Any] | None:
    """In grams, as the hub counts them."""
    if not energy or "co2_kg" not in energy:
        return None
    return {"emissions": 1000 * energy["co2_kg"], "source": "codecarbon", "training_type": "training"}


def _answer(verdict: Mapping[str, Any]) -> str:
    return "yes" if verdict["passed"] else "no" if verdict["severity"] == "block" else "warning"


def _estimate(found: Mapping[str, float]) -> str:
    return f"{figure(found['value'])} ({figure(found['low'])} to {figure(found['high'])})"


def _plain(text: str) -> str:
    return " ".join(text.translate(VISIBLE).split())


def _text(text: str) -> str:
    """Text of the data as Markdown that shows it and nothing else."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|&~])", r"\\\1", _plain(text)).replace("\\<", "&lt;").replace("\\&", "&amp;")
