"""The scorecard: every verdict with its evidence on one page that needs nothing else, and the same as JSON.

`scorecard.json` is what a promotion is bound to; `scorecard.html` is for people: no script, no outside resource, light
and dark, phone and paper. Neither holds the time it was made, so the same evidence gives the same scorecard. Texts come
from the data and may be hostile: the template escapes everything, and a content security policy forbids scripts.
"""

import base64
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flows.judging import scorecard_plots as plots
from flows.judging.changes import looser
from flows.judging.evidence import Evaluation, Evidence, MissingEvidence, Subject
from flows.judging.gate import Gate, Verdict, passed
from flows.judging.page import pages
from flows.judging.side_by_side import side_by_side
from training.evaluation import load_kind
from training.metrics import METRICS

FORMAT = 1
MAX_CURVE_POINTS = 400
MAX_MISTAKES = 12
MAX_SAMPLES = 6
ENERGY = (("energy_kwh", "energy", "kWh"), ("co2_kg", "emissions", "kg of CO2e"))
MAX_MISTAKES_OF_A_KIND = 2


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Where the candidate comes from, as the page prints it."""

    contract: str
    """Digest of the data contract."""
    dataset: dict[str, str | int]
    """More about the dataset version: its digests and how many rows each split has."""
    experiment: str
    """The experiment as YAML."""
    code: dict[str, str]
    """Step -> key of its code."""
    base: str
    """What the weights started from: a model, a folder, or "random weights"."""
    libraries: dict[str, str]
    author: str
    created: str
    """When the run finished: ISO 8601, UTC."""
    accepted: list[str] = field(default_factory=list)
    """One sentence for each result that was kept through a change of code: step, who, why."""


def build_scorecard(
    folder: Path,
    *,
    candidate: Subject,
    champion: Subject | None,
    verdicts: Sequence[Verdict],
    evidence: Evidence,
    curves: Mapping[str, Sequence[Sequence[float]]],
    lineage: Lineage,
    policy: str = "automatic",
    gates: Sequence[Gate] = (),
    changes: Mapping[str, Any] | None = None,
    champion_curves: Mapping[str, Sequence[Sequence[float]]] | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Write `scorecard.json`, `scorecard.html` and `README.md` (the model card) into `folder`; returns what the JSON
    holds.

    curves: name -> [[step, value], ...], e.g. {"fine-tuning: train loss": [[10, 2.1], ...]}. gates: what the verdicts
    are of, whose settings the next candidate's page compares with its own. changes: what `flows.judging.changes` found,
    see `flows.promote.changes_since`. notes: what a reader must know besides. A candidate whose evaluation is missing
    still gets its page, without figures: its gates have said no.
    """
    from flows.judging.model_card import model_card

    try:
        evaluation = evidence.evaluation(candidate)
        # Pictures are named apart, where they may be shown.
        metrics: dict[str, Any] | None = {name: it for name, it in evaluation.metrics.items() if name != "pictures"}
        classes = {"label", "prediction", "confidence"} <= set(evaluation.columns)
        mistakes = _mistakes(evaluation.predictions(), evidence, candidate) if classes else []
        samples = {"samples": _samples(evaluation, evidence, candidate)} if "prompt" in evaluation.columns else {}
        pictures = _pictures(evaluation, evidence, candidate)
    except MissingEvidence:
        metrics, mistakes, samples, pictures = None, [], {}, []
    card = {
        "format": FORMAT,
        "passed": passed(verdicts),
        "verdict": headline(verdicts),
        "candidate": {**_facts(candidate), "package": candidate.package, "contract": lineage.contract},
        "compared_with": champion.sequence if champion else None,
        "champion": {**_facts(champion), "sequence": champion.sequence} if champion else None,
        "policy": policy,
        "notes": [*notes, *_notes(metrics or {}, changes, _run_figures(evidence, candidate))],
        "gates": {gate.name: gate.model_dump(mode="json") for gate in gates},
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "metrics": metrics,
        "side_by_side": side_by_side(evidence, candidate, champion) if champion and metrics else None,
        "changes": changes,
        "energy": _energy(evidence, candidate),
        "figures": _run_figures(evidence, candidate),
        "curves": {name: _thinned(points) for name, points in curves.items()},
        "champion_curves": {name: _thinned(points) for name, points in (champion_curves or {}).items()},
        "mistakes": mistakes,
        **samples,
        **({"pictures": pictures} if pictures else {}),
        "lineage": asdict(lineage),
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "scorecard.json").write_text(text, encoding="utf-8")
    images = {picture["file"]: evidence.store.get(picture["file"]) for picture in pictures}
    (folder / "scorecard.html").write_text(render(json.loads(text), images), encoding="utf-8")
    (folder / "README.md").write_text(model_card(json.loads(text)), encoding="utf-8")
    return card


def compares_nothing(verdict: Mapping[str, Any]) -> bool:
    """Whether it passed because there was no champion: it cites the promotion log and has seen no value."""
    return verdict["passed"] and verdict["observed"] is None and verdict["evidence"].startswith("promotions/")


def headline(verdicts: Sequence[Verdict]) -> str:
    """The outcome in a few plain words."""
    blocked = [verdict for verdict in verdicts if not verdict.passed and verdict.severity == "block"]
    warned = [verdict for verdict in verdicts if not verdict.passed and verdict.severity == "warn"]
    idle = sum(compares_nothing(asdict(verdict)) for verdict in verdicts)
    if not verdicts:
        return "No gate was run, which is a no"
    if blocked:
        names = ", ".join(verdict.gate for verdict in blocked)
        return f"{len(blocked)} of {len(verdicts)} gates {'says' if len(blocked) == 1 else 'say'} no: {names}"
    if warned:
        warnings = f"{len(warned)} warning{'s' if len(warned) > 1 else ''}"
        found = f"May be promoted, with {warnings}: {', '.join(verdict.gate for verdict in warned)}"
        return f"{found}; {idle} had nothing to compare" if idle else found
    if idle:
        said = len(verdicts) - idle
        return f"May be promoted: {said} gate{' says' if said == 1 else 's say'} yes, {idle} had nothing to compare"
    return "May be promoted: " + ("its gate says yes" if len(verdicts) == 1 else f"all {len(verdicts)} gates say yes")


def render(card: Mapping[str, Any], images: Mapping[str, bytes] | None = None) -> str:
    """The page of a scorecard's JSON. images: the bytes of its pictures, by `file`."""
    environment = pages()
    environment.filters.update(figure=plots.figure, scale=plots.scale, filename=_filename)
    environment.tests["idle"] = compares_nothing
    metrics, both = card["metrics"], card.get("side_by_side")
    others = card.get("champion_curves") or {}
    drawn = [plots.chart(name, points, others.get(name, ())) for name, points in card["curves"].items()]
    charts = [chart for chart in drawn if chart]
    return environment.get_template("scorecard.html").render(
        card=card,
        both=both,
        tone="no" if not card["passed"] else "yes" if all(v["passed"] for v in card["verdicts"]) else "warn",
        first=_headline_figure(metrics) if metrics else None,
        titles={name: metric.title for name, metric in METRICS.items()},
        against_baseline=_against_baseline(metrics) if metrics else "",
        figures=plots.compared(metrics, both) if metrics else [],
        pictures=[
            {**picture, "base64": base64.b64encode((images or {})[picture["file"]]).decode()}
            for picture in card.get("pictures") or []
            if picture["file"] in (images or {})
        ],
        confusion=plots.confusion(metrics) if metrics else None,
        reliability=plots.reliability(metrics) if metrics else None,
        drift=plots.drift(card["verdicts"]),
        slices=plots.slices(card["verdicts"]),
        verdicts=sorted(card["verdicts"], key=lambda one: (one["passed"], one["severity"] != "block")),
        charts=[chart for chart in charts if "layer/" not in chart["name"]],
        layer_charts=[chart for chart in charts if "layer/" in chart["name"]],
        lists=_lists(card),
    )


def _filename(key: str) -> str:
    """The last part of a key, a digest in it cut short."""
    return re.sub(r"([0-9a-f]{8})[0-9a-f]{56}", r"\1…", key.rstrip("/").rpartition("/")[2])


def _against_baseline(metrics: Mapping[str, Any]) -> str:
    """How it does beside the baseline, in plain words, worse included."""
    kind = load_kind(metrics["task"])
    metric = kind.compared[0]
    name, reached = metrics["baseline"]["name"], plots.figure(metrics["baseline"][metric]["value"])
    difference = metrics["difference"][metric]
    if difference["low"] > 0:
        return f"better than {name}, {kind.baseline} ({reached})"
    if difference["high"] < 0:
        return f"worse than {name}, {kind.baseline} that trains in seconds and reaches {reached}"
    return f"no better than {name}, {kind.baseline} ({reached}), as far as these rows can tell"


def _headline_figure(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The first metric of the kind of evaluation: what is said before all else."""
    kind = load_kind(metrics["task"])
    metric = kind.compared[0]
    title = kind.metrics[metric].title
    return {"title": title[0].upper() + title[1:], "of": kind.rows, **metrics["model"][metric]}


def _energy(evidence: Evidence, candidate: Subject) -> dict[str, float] | None:
    from flows.gates.energy import run_energy

    try:
        return run_energy(evidence, candidate)[0]
    except MissingEvidence:
        return None


def _run_figures(evidence: Evidence, candidate: Subject) -> dict[str, float]:
    """What the run told of its saved model (`ModelFiles.figures`)."""
    from training.run_log import RunLog

    ended = [entry for entry in RunLog(evidence.store, candidate.run).entries() if entry["kind"] == "finished"]
    return dict(ended[-1].get("figures") or {}) if ended else {}


def _notes(metrics: Mapping[str, Any], changes: Mapping[str, Any] | None, figures: Mapping[str, float]) -> list[str]:
    """What a reader must know before believing the figures or the verdict."""
    found = []
    if changes is not None:
        gates = changes["gates"]
        if gates is None:
            found.append("What the champion's gates were is not recorded: whether one was removed cannot be told.")
        else:
            found += [f"Since the champion: {sentence}" for sentence in looser(gates)]
    if metrics.get("split") == "validation":
        found.append(
            "The data has no test split, so the validation split was judged: what was chosen by it during training "
            "flatters these figures."
        )
    if (speed := figures.get("speed_ratio", 1)) < 1:
        found.append(
            f"Where it was made, it answers {speed:.2f} times as fast as the model that it was made of: smaller, and "
            "slower. Measure where it is to answer (gate latency)."
        )
    reads = metrics.get("test_reads", 1)
    if reads > 1:
        found.append(
            f"This model has been evaluated on its {metrics['split']} split {reads} times: whoever trained it may have "
            "known these rows' answers, and the figures flatter it."
        )
    return found


def _facts(subject: Subject) -> dict[str, Any]:
    return {
        "ref": subject.ref,
        "name": subject.name,
        "version": subject.version,
        "run": subject.run,
        "model": subject.model,
        "package_digest": subject.package_digest,
        "dataset": subject.dataset,
        "evaluation": subject.evaluation,
    }


def _mistakes(predictions: Any, evidence: Evidence, candidate: Subject) -> list[dict[str, Any]]:
    """The wrong answers it was surest of, at most two for each pair of classes; personal inputs as hashes."""
    from data_contracts.row_sample import personal_columns

    names = ["row_id", "label", "prediction", "confidence", "baseline_prediction", "text"]
    kinds: Counter[tuple[str, str]] = Counter()
    chosen: list[dict[str, Any]] = []
    rows = predictions.select(names).to_pylist()
    for row in sorted(rows, key=lambda row: (-row["confidence"], row["row_id"])):
        kind = (row["label"], row["prediction"])
        if row["label"] == row["prediction"] or kinds[kind] >= MAX_MISTAKES_OF_A_KIND:
            continue
        kinds[kind] += 1
        chosen.append(row)
        if len(chosen) == MAX_MISTAKES:
            break
    contract = evidence.contract(candidate)
    if chosen and personal_columns(contract) & {*contract.inputs, contract.label}:
        said = evidence.shown_inputs(candidate, [row["row_id"] for row in chosen])
        for row, text in zip(chosen, said, strict=True):
            row["text"] = text
            for place in ("label", "prediction", "baseline_prediction"):
                row[place] = evidence.shown_label(candidate, row[place])
    return chosen


def _samples(evaluation: Evaluation, evidence: Evidence, candidate: Subject) -> list[dict[str, Any]]:
    """Prompts and how the model went on; none where the texts are personal."""
    from data_contracts.row_sample import personal_columns

    contract = evidence.contract(candidate)
    if personal_columns(contract) & set(contract.inputs):
        return []
    rows = evaluation.predictions(["prompt", "prediction"]).to_pylist()
    return [row for row in rows if row["prompt"] is not None][:MAX_SAMPLES]


def _pictures(evaluation: Evaluation, evidence: Evidence, candidate: Subject) -> list[dict[str, str]]:
    """title, file (its key in the store) and sha256 of the PNG files that the evaluation wrote; none where the inputs
    are personal. Titles are in its figures; the name of a file that has none there."""
    from data_contracts.row_sample import personal_columns

    contract = evidence.contract(candidate)
    if personal_columns(contract) & set(contract.inputs):
        return []
    titles = {one["file"]: one["title"] for one in evaluation.metrics.get("pictures") or []}
    drawn = [name for name in evaluation.files if name.endswith(".png")]
    titles |= {name: name.removesuffix(".png").replace("_", " ") for name in drawn if name not in titles}
    cited = {name: evaluation.files[name] for name in titles if name in drawn}
    return [{"title": titles[name], "file": one.key, "sha256": one.digest} for name, one in cited.items()]


def _thinned(points: Sequence[Sequence[float]]) -> list[list[float]]:
    """At most MAX_CURVE_POINTS of the finite points, evenly chosen, first and last among them."""
    finite = [[point[0], point[1]] for point in points if math.isfinite(point[1])]
    if len(finite) <= MAX_CURVE_POINTS:
        return finite
    last = MAX_CURVE_POINTS - 1
    return [finite[position * (len(finite) - 1) // last] for position in range(MAX_CURVE_POINTS)]


def _lists(card: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, Any]]]]:
    """Lineage as titled lists of name and value."""
    lineage, candidate = card["lineage"], card["candidate"]
    run = [
        ("run", candidate["run"]),
        ("author", lineage["author"]),
        ("finished", lineage["created"]),
        ("started from", lineage["base"]),
    ]
    spent = card.get("energy") or {}
    run += [(title, f"{plots.figure(spent[name])} {unit}") for name, title, unit in ENERGY if name in spent]
    told = [(name.replace("_", " "), plots.figure(value)) for name, value in (card.get("figures") or {}).items()]
    bound = [(name, candidate[name]) for name in ("model", "package_digest", "dataset", "contract", "evaluation")]
    return [
        ("Run", run),
        *([("Of the saved model, as its run told", told)] if told else []),
        ("Digests a promotion is bound to", [(name.replace("_", " "), value) for name, value in bound]),
        ("Data", list(lineage["dataset"].items())),
        ("Code", list(lineage["code"].items())),
        ("Libraries", list(lineage["libraries"].items())),
    ]
