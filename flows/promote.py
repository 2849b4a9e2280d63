"""Gate and promote: the verdicts on a candidate, its scorecard, and its entry in the promotion log."""

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from data_contracts import registry
from flows import models, references
from flows.code_key import code_of
from flows.config import load_config
from flows.evaluate import evaluation_code
from flows.judging.evidence import Evidence, Subject, find_champion
from flows.judging.gate import Gate, parse_gates, passed, run_gates
from flows.models import ModelVersion
from flows.orchestration import events
from flows.promotion import decisions as promotion
from flows.promotion.alias import mirror
from flows.promotion.approvals import Unapproved
from flows.promotion.binding import package_files
from flows.steps import Outputs, Step, artifact_damage, libraries, record
from infra import artifacts
from infra.errors import SlipwayError, WrongInput
from infra.progress import Progress
from infra.settings import Settings
from infra.store import Store
from training.experiment import Experiment, experiment_path, validate_experiment
from training.recipe import settings_class
from training.run_log import RunLog, read_state


def gate_step(settings: Settings, experiment: Experiment, needs: tuple[str, ...]) -> Step:
    store = settings.object_store
    name = experiment.name

    def candidate(outputs: Outputs) -> ModelVersion:
        return references.resolve(store, f"{name}/{outputs[f'train {name}']['version']}")

    def ingredients(outputs: Outputs) -> dict[str, Any]:
        version = candidate(outputs)
        return {
            "version": version.version,
            "package": version.package_digest,
            "evaluation": outputs[f"evaluate {name}"]["evaluation"],
            "compared_with": compared_with(settings, version),
            "gates": experiment.gates,
            "code": code_of(
                [
                    "flows.judging.gate",
                    "flows.judging.scorecard",
                    *evaluation_code(experiment.recipe),
                    *(f"flows.gates.{gate}" for gate in experiment.gates),
                ]
            ),
            "libraries": libraries("numpy", "scipy", "mlflow"),
        }

    def run(outputs: Outputs, progress: Progress, key: str) -> dict[str, Any]:
        evaluation = outputs[f"evaluate {name}"]["evaluation"]
        card, whole = gate(settings, candidate(outputs), experiment, evaluation, progress)
        return {"scorecard": card, "passed": whole}

    def damage(output: dict[str, Any]) -> str | None:
        return artifact_damage(settings, "scorecards", output["scorecard"])

    return Step(
        kind="gate",
        subject=name,
        needs=(*needs, f"train {name}", f"evaluate {name}"),
        ingredients=ingredients,
        run=run,
        damage=damage,
    )


def promote_step(settings: Settings, experiment: Experiment, needs: tuple[str, ...]) -> Step:
    store = settings.object_store
    name = experiment.name

    def ingredients(outputs: Outputs) -> dict[str, Any]:
        version, card = outputs[f"train {name}"]["version"], outputs[f"gate {name}"]["scorecard"]
        return {
            "version": version,
            "scorecard": card,
            "policy": experiment.promotion,
            "approvals": [
                entry.sequence
                for entry in promotion.read_log(store, name)
                if entry.kind == "approval" and (entry.version, entry.scorecard) == (version, card)
            ],
        }

    def run(outputs: Outputs, progress: Progress, key: str) -> dict[str, Any]:
        version = references.resolve(store, f"{name}/{outputs[f'train {name}']['version']}")
        card = outputs[f"gate {name}"]
        if not card["passed"]:
            done = promotion.reject(store, version, card["scorecard"], author=settings.author_name,
                                    reason="the gates said no", policy=experiment.promotion)  # fmt: skip
            return {"entry": done.entry.sequence, "promoted": False}
        before = _promotion_of(store, version, card["scorecard"])
        if before:  # what was rolled back since is not put back by a schedule
            mirror(store, settings, name)
            return {"entry": before.sequence, "promoted": True}
        progress.say("checking the package")
        try:
            done = promote_version(settings, version, card["scorecard"], policy=experiment.promotion)
        except Unapproved as error:
            progress.say("waits for a reviewer")
            told = {"model": version.ref, "scorecard": card["scorecard"], "reason": str(error)}
            events.emit(settings, events.WAITING, name, told)
            return {"entry": None, "promoted": False, "waits": str(error)}
        return {"entry": done.entry.sequence, "promoted": True}

    def damage(output: dict[str, Any]) -> str | None:
        if output["entry"] is None:
            return None
        key = promotion.entry_key(name, output["entry"])
        return None if store.exists(key) else f"{key} is missing"

    return Step(
        kind="promote",
        subject=name,
        needs=(*needs, f"train {name}", f"gate {name}"),
        ingredients=ingredients,
        run=run,
        damage=damage,
    )


def promote_version(
    settings: Settings,
    version: ModelVersion,
    scorecard: str,
    *,
    reason: str = "",
    policy: dict[str, Any] | None = None,
    statements: Sequence[dict[str, Any]] = (),
) -> promotion.Outcome:
    """Promote as `decisions.promote` does, with the package's files hashed again and MLflow's alias following."""
    store = settings.object_store
    files = package_files(settings, version)
    done = promotion.promote(store, version, scorecard, author=settings.author_name, reason=reason, policy=policy,
                             statements=statements, package_files=files)  # fmt: skip
    mirror(store, settings, version.name)
    return done


def todays(version: ModelVersion) -> Experiment:
    """The experiment of a version with the gates and the policies of today's file, where there is one: they may have
    changed since the training. Raises WrongInput for a file that is wrong."""
    experiment = validate_experiment(version.experiment, f"experiment of {version.ref}")
    try:
        experiment_path(version.name)
    except WrongInput:
        return experiment
    today = load_config(version.name)
    return experiment.model_copy(update={"gates": today.gates, "promotion": today.promotion, "monitor": today.monitor})


def record_promotion(settings: Settings, version: ModelVersion, scorecard: str, entry: promotion.Entry) -> None:
    """Let plans know of a promotion made by hand."""
    step = promote_step(settings, todays(version), ())
    outputs: dict[str, dict[str, Any]] = {
        f"train {version.name}": {"version": version.version},
        f"gate {version.name}": {"scorecard": scorecard},
    }
    output = {"entry": entry.sequence, "promoted": True}
    record(settings.object_store, step, step.ingredients(outputs), output, time.time(), [])


def _promotion_of(store: Store, version: ModelVersion, scorecard: str) -> promotion.Entry | None:
    about = ("promotion", version.version, scorecard)
    log = promotion.read_log(store, version.name)
    return next((entry for entry in reversed(log) if (entry.kind, entry.version, entry.scorecard) == about), None)


def compared_with(settings: Settings, version: ModelVersion) -> int | None:
    """The log entry a candidate is judged against. A version that has been champion keeps what it was judged against
    when it first became that: its own promotions, be they repeated on other evidence, are no news to it, and one that
    was replaced is not put back by a schedule."""
    for entry in promotion.read_log(settings.object_store, version.name):
        if entry.kind == "promotion" and entry.version == version.version:
            return entry.compared_with
    reigning = promotion.champion(settings.object_store, version.name)
    return reigning.sequence if reigning else None


def gate(
    settings: Settings, version: ModelVersion, experiment: Experiment, evaluation: str, progress: Progress
) -> tuple[str, bool]:
    """Run the experiment's gates on a version. Returns the scorecard artifact's digest and whether it passed."""
    from flows.judging import changes
    from flows.judging.scorecard import build_scorecard
    from infra.tracking import log_card

    store = settings.object_store
    gates = parse_gates(experiment.gates, f"experiment {experiment.name}")
    candidate, champion = Subject.of(version, evaluation), find_champion(store, version.name)
    evidence = Evidence(store, settings)
    verdicts = run_gates(gates, candidate, champion, evidence, progress.update)
    progress.update(len(gates), len(gates), "scorecard")
    with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
        build_scorecard(
            Path(scratch),
            candidate=candidate,
            champion=champion,
            verdicts=verdicts,
            evidence=evidence,
            curves=learning_curves(settings, version),
            lineage=lineage(settings, version),
            policy=experiment.promotion.get("policy", "automatic"),
            gates=gates,
            changes=changes_since(settings, version, champion, gates),
            notes=changes.refused_before(
                store, version.name, version.version, {one.name: one.model_dump(mode="json") for one in gates}
            ),
            champion_curves=learning_curves(settings, _version_of(store, champion)) if champion else None,
        )
        written = artifacts.commit_folder(store, "scorecards", Path(scratch))
        log_card(settings, read_state(RunLog(store, version.run)).mlflow_run, Path(scratch) / "README.md")
    return written.digest, passed(verdicts)


def _version_of(store: Store, champion: Subject) -> ModelVersion:
    return references.resolve(store, champion.ref)


def changes_since(
    settings: Settings, version: ModelVersion, champion: Subject | None, gates: Sequence[Gate]
) -> dict[str, Any] | None:
    """{"gates", "experiment", "code", "data"}: what `judging.changes` finds between the champion and a version."""
    from flows.judging import changes

    store = settings.object_store
    reigning = promotion.champion(store, version.name)
    if champion is None or reigning is None:
        return None
    before = _version_of(store, champion)
    had = changes.champion_gates(store, reigning.scorecard)
    now = {gate.name: gate.model_dump(mode="json") for gate in gates}
    try:
        data = changes.data_changes(
            store, registry.resolve(store, before.dataset), registry.resolve(store, version.dataset)
        )
    except SlipwayError:
        data = None  # a gate says why; the page says that it cannot be read
    return {
        "gates": None if had is None else changes.gate_changes(had, now),
        "experiment": changes.experiment_changes(before.experiment, version.experiment),
        "code": changes.code_changes(_train_record(settings, before), _train_record(settings, version)),
        "data": data,
    }


def bases(settings: Settings, version: ModelVersion) -> dict[str, ModelVersion]:
    """The model versions a version was built from, by title, nearest first, as far as they were trained here."""
    by_model = {
        one.model: one for name in models.names(settings.object_store)
        for one in models.versions(settings.object_store, name)
    }  # fmt: skip
    found: dict[str, ModelVersion] = {}
    record = _train_record(settings, version)
    for role, digest in (record or {}).get("ingredients", {}).get("from", {}).items():
        if digest in by_model and by_model[digest].name not in found:
            found[f"{role}: {by_model[digest].ref}"] = by_model[digest]
            found |= bases(settings, by_model[digest])
    return found


def learning_curves(settings: Settings, version: ModelVersion) -> dict[str, list[list[float]]]:
    """Curve title -> [[step, value], ...] of the version's run and of those it was built from."""
    curves: dict[str, list[list[float]]] = {}
    runs = {"fine-tuning": version, **bases(settings, version)}
    if len(runs) == 1:
        runs = {"training": version}
    for title, one in runs.items():
        for name, points in read_state(RunLog(settings.object_store, one.run)).curves().items():
            if name not in ("learning_rate", "gradient_norm") and not name.startswith("system/"):
                label = name if title in ("fine-tuning", "training") else f"{one.name}: {name}"
                curves[label] = [[step, value] for step, value in points]
    return curves


def lineage(settings: Settings, version: ModelVersion) -> Any:
    from flows.judging.scorecard import Lineage

    store = settings.object_store
    data = registry.resolve(store, version.dataset)
    record = _train_record(settings, version) or {"ingredients": {}, "accepted": []}
    ingredients = record["ingredients"]
    built_from = bases(settings, version)
    experiment = {key: value for key, value in version.experiment.items() if value not in ({}, None)}
    if not settings_class(version.experiment["recipe"]).trains:
        experiment = {**experiment, "training": {"seed": experiment["training"]["seed"]}}
        experiment.pop("scaling", None)
    return Lineage(
        contract=data.contract_digest,
        dataset={"ref": data.ref, "rows digest": data.rows, **data.counts},
        experiment=yaml.safe_dump(experiment, sort_keys=False, allow_unicode=True),
        code={module: _code_digest(parts) for module, parts in ingredients.get("code", {}).items()},
        base=", ".join(built_from) or ", ".join(f"{k}: {v}" for k, v in version.experiment["from"].items()) or "none",
        libraries=ingredients.get("libraries", {}),
        accepted=[f"{note['who']}: {note['why']} ({'; '.join(note['what'])})" for note in record["accepted"]],
        author=version.author,
        created=version.created,
    )


def _code_digest(parts: dict[str, str]) -> str:
    from infra.digests import digest

    return digest(parts)[:12]


def _train_record(settings: Settings, version: ModelVersion) -> dict[str, Any] | None:
    """The newest step record whose output is this version."""
    store = settings.object_store
    found = None
    for key in store.list(f"steps/train/{version.name}/"):
        body = json.loads(store.get(key))
        if body["output"].get("version") == version.version and (found is None or body["ended"] > found["ended"]):
            found = body
    return found


def newest_scorecard(settings: Settings, version: ModelVersion) -> str | None:
    """Digest of the scorecard of the version's last gating; None when it was never gated."""
    store = settings.object_store
    found = None
    for key in store.list(f"steps/gate/{version.name}/"):
        body = json.loads(store.get(key))
        if body["ingredients"]["version"] == version.version and (found is None or body["ended"] > found["ended"]):
            found = body
    return found["output"]["scorecard"] if found else None
