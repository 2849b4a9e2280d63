"""Monitor: the inference log of a model version, window by window, beside what it was trained and tested on.

A step like every other: it runs when the log, the labels, the champion or the policy changed. Its report is an artifact
of kind `monitors`; an alarm is told once for each window, as the event `slipway.drift.found`, and may start a retrain
(`schedule: {on: [drift]}`).
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts import registry
from flows import references
from flows.code_key import code_of
from flows.inference.log import Log, LogFormat, log_keys, logged_inputs, read_log
from flows.inference.policy import MonitorPolicy, Window, parse_monitor
from flows.inference.windows import Known, judge_window
from flows.judging.evidence import Evidence, MissingEvidence, Subject, find_champion
from flows.models import ModelVersion
from flows.orchestration import events
from flows.promote import todays
from flows.retrain import run_steps
from flows.steps import Outputs, Step, artifact_damage, libraries
from flows.usual_changes import usual_effects
from infra import artifacts
from infra.digests import digest, digest_file
from infra.errors import WrongInput, choices
from infra.progress import Progress
from infra.settings import Settings
from infra.store import Store
from training.evaluation import load_kind
from training.performance import ASSUMPTIONS
from training.recipe import settings_class

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
WINDOWS = 8
"""Without `since`: files written in about so many windows before now."""
LABELS = "labels"
"""`labels/<model>/<any name>.parquet` (or .csv, .jsonl): `id` and the contract's label column."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to look at."""

    version: ModelVersion
    policy: MonitorPolicy
    since: datetime | None = None
    """The first moment; None: what was written in the last WINDOWS windows."""
    labels: Path | None = None
    """A file of labels, beside those in the store."""


def monitor(settings: Settings, asked: Asked) -> dict[str, Any]:
    """Compare, or take the report that is there where nothing changed; a flow run where Prefect keeps the books.

    Returns the report with its digest and page. Raises WrongInput where there is nothing to compare.
    """
    step = monitor_step(settings, asked)
    output = run_steps(settings, [step], asked.version.name, flow="monitor").outputs[step.name]
    report = read_report(settings.object_store, output["report"])
    tell(settings, asked.version, report)
    return report


def asked_of(
    settings: Settings, reference: str, *, window: str = "", since: datetime | None = None, labels: Path | None = None
) -> Asked:
    """The champion, or what the reference says, under today's policy. Raises WrongInput."""
    version = references.resolve(
        settings.object_store, reference if "@" in reference or "/" in reference else f"{reference}@champion"
    )
    section = {**todays(version).monitor, **({"window": window} if window else {})}
    policy = parse_monitor(section, f"experiment {version.name}")
    return Asked(version=version, policy=policy, since=since, labels=labels)


def read_report(store: Store, report: str) -> dict[str, Any]:
    body = json.loads(store.get(f"monitors/{report}/monitor.json"))
    artifacts.check_format(body, FORMAT, f"monitors/{report}/monitor.json")
    return {**body, "report": report, "page": str(store.local_path(f"monitors/{report}/monitor.html"))}


def monitor_step(settings: Settings, asked: Asked) -> Step:
    store, version = settings.object_store, asked.version
    kind = settings_class(version.experiment["recipe"]).evaluates
    if kind and not load_kind(kind).needs_label:
        raise WrongInput(f"model {version.ref}: is evaluated by {kind}; monitor compares labels, and there are none")
    since = asked.since or Window.parse(asked.policy.window).back(datetime.now(UTC), WINDOWS)
    keys = log_keys(store, version.name, since)
    if not keys:
        raise WrongInput(
            f"model {version.ref}: nothing is in its inference log since {since:%Y-%m-%d}; slipway predict and serve "
            "write it, other servers may (docs/inference.md); --since looks further back"
        )
    subject = _subject(store, version)
    labelled = list(store.list(f"{LABELS}/{version.name}/"))

    def ingredients(outputs: Outputs) -> dict[str, Any]:
        return {
            "model": version.model,
            "dataset": version.dataset,
            "evaluation": subject.evaluation,
            "policy": asked.policy.model_dump(mode="json"),
            "since": asked.since.isoformat() if asked.since else "",
            "log": {"files": len(keys), "names": digest(keys)},
            "labels": {"files": digest(labelled), "given": digest_file(asked.labels) if asked.labels else ""},
            "code": code_of(["flows.monitor", "flows.inference.windows", "flows.inference.page"]),
            "libraries": libraries("numpy", "scipy", "scikit-learn"),
        }

    def run(outputs: Outputs, progress: Progress, key: str) -> dict[str, Any]:
        from flows.inference.page import render

        report = compare(settings, asked, subject, keys, labelled, progress)
        with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
            text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
            (Path(scratch) / "monitor.json").write_text(text, encoding="utf-8")
            (Path(scratch) / "monitor.html").write_text(render(json.loads(text)), encoding="utf-8")
            written = artifacts.commit_folder(store, "monitors", Path(scratch))
        return {"report": written.digest, "alarm": report["alarm"]}

    def damage(output: dict[str, Any]) -> str | None:
        return artifact_damage(settings, "monitors", output["report"])

    return Step(kind="monitor", subject=version.name, ingredients=ingredients, run=run, damage=damage)


def compare(
    settings: Settings,
    asked: Asked,
    subject: Subject,
    keys: Sequence[str],
    labelled: Sequence[str],
    progress: Progress,
) -> dict[str, Any]:
    """The report: every window of these files, judged."""
    store, version = settings.object_store, asked.version
    known = _known(Evidence(store, settings), subject, asked.policy)
    contract = known.contract
    progress.say("reading the log")
    form = LogFormat(version, contract)
    log = read_log(store, keys, form)
    labels, misfits = _labels(store, form, labelled, asked.labels)
    windows = []
    for start, end, rows in _windows(log, Window.parse(asked.policy.window), asked.since):
        progress.say(f"window from {start:%Y-%m-%d}")
        windows.append(judge_window(start, end, rows, labels, known, asked.policy))
    alarms = [one for one in windows if one["alarms"]]
    return {
        "format": FORMAT,
        "model": version.ref,
        "digest": version.model,
        "dataset": version.dataset,
        "contract": contract.name,
        "policy": asked.policy.model_dump(mode="json"),
        "effect": contract.drift["effect"],
        "tested": {"rows": known.tested.num_rows, "accuracy": known.accuracy.to_json()},
        "estimate": _about_the_estimate(known),
        "alarm": bool(alarms),
        "windows": windows,
        "files": log.files,
        "misfits": [*log.misfits, *misfits],
        "other_versions": {str(number): count for number, count in sorted(log.others.items())},
    }


def _about_the_estimate(known: Known) -> dict[str, Any]:
    """How well calibrated confidence is where the labels are known, and what an estimate from it rests on."""
    from training.calibration import expected_calibration_error

    if known.calibration is None:
        return {"method": None, "why": known.uncalibrated}
    import numpy as np

    confidence = known.tested["confidence"].to_numpy()
    right = np.array(known.tested["label"].to_pylist()) == np.array(known.tested["prediction"].to_pylist())
    calibrated = known.calibration.chance_right(confidence)
    return {
        "method": "mean calibrated confidence (CBPE)",
        "assumptions": list(ASSUMPTIONS),
        "ece": {
            "as_said": expected_calibration_error(confidence, right).to_json(),
            "calibrated": expected_calibration_error(calibrated, right).to_json(),
        },
    }


def _subject(store: Store, version: ModelVersion) -> Subject:
    """The version with the evaluation that made it champion, else its newest. Raises MissingEvidence."""
    champion = find_champion(store, version.name)
    if champion and champion.version == version.version and champion.evaluation:
        return champion
    records = [json.loads(store.get(key)) for key in store.list(f"steps/evaluate/{version.name}/")]
    own = [one for one in records if one["ingredients"]["model"] == version.model]
    if not own:
        raise MissingEvidence(f"model {version.ref}: was never evaluated; slipway evaluate {version.ref}")
    return Subject.of(version, max(own, key=lambda one: one["ended"])["output"]["evaluation"])


def _known(evidence: Evidence, subject: Subject, policy: MonitorPolicy) -> Known:
    """Raises WrongInput for a policy that names columns which are not there, MissingEvidence."""
    contract = evidence.contract(subject)
    inputs = logged_inputs(contract)
    dates = [column.name for column in contract.columns if column.type in ("date", "timestamp")]
    for name, value, there in (("within", policy.within, inputs), ("time", policy.time, dates)):
        if value and value not in there:
            kind = "input" if name == "within" else "date"
            raise WrongInput(f"monitor.{name}: '{value}' is no {kind} column; {choices(value, there)}")

    @cache
    def rows() -> "pa.Table":
        import pyarrow as pa

        from data_contracts.splits import SPLITS

        data = registry.resolve(evidence.store, subject.dataset)
        wanted = list(dict.fromkeys([*inputs, str(contract.label), *([policy.time] if policy.time else [])]))
        return pa.concat_tables([registry.read_split(evidence.store, data, split, wanted) for split in SPLITS])

    tested = evidence.evaluation(subject).predictions(["row_id", "label", "prediction", "confidence"])
    known = Known.of(contract, evidence.profile(subject)[0], tested, rows)
    if not policy.time:
        return known
    columns = tuple(contract.column(name) for name in [*inputs, str(contract.label)])
    return replace(known, usual=usual_effects(rows(), replace(contract, columns=columns), policy))


def _windows(log: Log, window: Window, since: datetime | None) -> "list[tuple[datetime, datetime, pa.Table]]":
    """(start, end, rows) of each window that has rows, the oldest first."""
    import numpy as np
    import pyarrow as pa

    times = log.table["time"].to_numpy().astype("datetime64[s]")
    starts = window.starts(times)
    seen = np.ones(len(times), bool)
    if since is not None:
        seen = times >= np.datetime64(since.astimezone(UTC).replace(tzinfo=None), "s")
    found = []
    for start in np.unique(starts[seen]):
        moment = start.astype(datetime).replace(tzinfo=UTC)
        found.append((moment, window.end(moment), log.table.filter(pa.array(seen & (starts == start)))))
    return found


def _labels(store: Store, form: LogFormat, keys: Sequence[str], given: Path | None) -> tuple[dict[str, str], list[str]]:
    """id -> label as the model would say it, the last one said counting; and a line for each file that does not fit.

    What the user gives is refused where it does not fit.
    """
    from data_contracts.asked_file import read_asked

    found: dict[str, str] = {}
    misfits = []
    contract, label = form.contract, str(form.contract.label)
    places = [(key, store.local_path(key)) for key in keys] + ([("", given)] if given else [])
    for key, path in places:
        try:
            for asked in read_asked(contract, path, [label], {"id": "string"}):
                for name, value in zip(asked.batch["id"].to_pylist(), asked.batch[label].to_pylist(), strict=True):
                    if name is not None and value is not None:
                        found[name] = form.shown(str(value))
        except WrongInput as error:
            if not key:
                raise
            misfits.append(f"{key}: {error}")
    return found, misfits


def tell(settings: Settings, version: ModelVersion, report: dict[str, Any]) -> None:
    """Emit what is alarming, once for each window of a version: its mark in the store is set when a server has heard.
    Where none has, the next monitoring tries again, also if it finds nothing new to compare."""
    store, window = settings.object_store, report["policy"]["window"]
    fresh = []
    for one in report["windows"]:
        mark = f"alarms/{version.name}/{version.version}/{one['start'][:13]}-{window}.json"
        if one["alarms"] and not store.exists(mark):
            fresh.append((mark, one))
    if not fresh:
        return
    payload = {
        "model": version.ref,
        "report": f"monitors/{report['report']}",
        "windows": [{"start": one["start"], "alarms": [said["kind"] for said in one["alarms"]]} for _, one in fresh],
        "because": fresh[-1][1]["alarms"][0]["sentence"],
    }
    if events.emit(settings, events.DRIFT_FOUND, version.name, payload):
        for mark, one in fresh:
            body = {"format": FORMAT, "model": version.ref, "window": one["start"], "report": report["report"]}
            store.create(mark, json.dumps(body, sort_keys=True).encode())
