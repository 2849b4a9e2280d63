"""The demo: the whole way on the docstrings of the installed libraries, and a summary of what happened."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from flows.config import load_config
from flows.graph import build_graph
from flows.retrain import run_steps
from infra import service_records
from infra.settings import Settings

EXPERIMENT = "library-docs"


def run_demo(settings: Settings, ablation: bool) -> dict[str, Any]:
    """Run what is stale of the demo. Returns the summary that `show` prints."""
    started = time.monotonic()
    experiment = load_config(EXPERIMENT)
    steps = build_graph(settings, experiment, ablation=ablation)
    report = run_steps(settings, steps, EXPERIMENT)
    store = settings.object_store
    evaluation = report.outputs[f"evaluate {EXPERIMENT}"]["evaluation"]
    metrics = json.loads(store.get(f"evaluations/{evaluation}/metrics.json"))
    card = f"scorecards/{report.outputs[f'gate {EXPERIMENT}']['scorecard']}"
    programs = Path(sys.executable).parent
    pages = service_records.running(settings.folder)
    pretrained = _pretraining(settings, report.outputs)
    return {
        "seconds": round(time.monotonic() - started, 1),
        "stages": report.to_json(),
        "figures": {
            "rows": metrics["rows"],
            "candidate": {name: metrics["model"][name] for name in ("accuracy", "macro_f1")},
            "baseline": {name: metrics["baseline"][name] for name in ("accuracy", "macro_f1")},
            "majority": {"accuracy": metrics["majority"]["accuracy"]},
            "pretraining": pretrained,
            "ablation": metrics.get("ablation"),
        },
        "promoted": report.outputs[f"promote {EXPERIMENT}"]["promoted"],
        "scorecard": str(store.local_path(f"{card}/scorecard.html")),
        **{name: pages[name].url if name in pages else f"{programs / 'slipway'} up" for name in ("mlflow", "prefect")},
    }


def _pretraining(settings: Settings, outputs: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Held-out loss of masked language modelling beside the unigram entropy of the same tokens, in nats."""
    from training.run_log import RunLog, read_state

    state = read_state(RunLog(settings.object_store, outputs["train library-docs-mlm"]["run"]))
    prepared = outputs["prepare library-docs-mlm"]["prepared"]
    report = json.loads(settings.object_store.get(f"prepared/{prepared}/report.json"))
    return {"test_loss": state.ending["test"]["mlm_loss"], "unigram_entropy": report["unigram_entropy"]["test"]}


def show(summary: dict[str, Any]) -> None:
    from flows.commands.output import table

    rows = [[one["step"], one["status"], f"{one['seconds']:.1f}"] for one in summary["stages"]]
    table(rows, ["stage", "state", "seconds"])
    click.echo(f"{'total':<40}{summary['seconds']:.1f} s\n")
    figures = summary["figures"]
    click.echo(f"test split, {figures['rows']:,} rows, 95 % intervals")
    for who in ("candidate", "baseline", "majority"):
        cells = [f"{name} {v['value']:.3f} [{v['low']:.3f}, {v['high']:.3f}]" for name, v in figures[who].items()]
        click.echo(f"  {who:<10} {'   '.join(cells)}")
    loss = figures["pretraining"]
    click.echo(
        f"  pretraining: held-out loss {loss['test_loss']:.2f} nats (knowing only token frequencies: "
        f"{loss['unigram_entropy']:.2f})"
    )
    if figures["ablation"]:
        click.echo(f"  {figures['ablation']['sentence']}")
    click.echo(f"\n{'promoted: library-docs@champion' if summary['promoted'] else 'not promoted'}")
    click.echo(f"scorecard  {summary['scorecard']}")
    click.echo(f"MLflow     {summary['mlflow']}")
    click.echo(f"Prefect    {summary['prefect']}")
    click.echo(f'try        {Path(sys.executable).parent / "slipway"} predict library-docs "fit a random forest"')
