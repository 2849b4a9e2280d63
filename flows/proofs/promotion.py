"""Of many processes that promote at once one wins, the others gate again, and at each instant there is one champion."""

import json
import multiprocessing
import secrets
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from flows import references
from flows.promotion import decisions as promotion
from flows.promotion import log as promotion_log
from flows.prove import Options, Say
from infra import artifacts
from infra.errors import SlipwayError
from infra.settings import load_settings
from infra.store import Store, open_store

MODEL = "rehearsal"
PROCESSES = 50
OVERTAKEN = "champion changed: gate again"
CONTRACT = {
    "apiVersion": "v3.1.0",
    "kind": "DataContract",
    "id": MODEL,
    "name": MODEL,
    "version": "1.0.0",
    "status": "active",
    "servers": [{"server": "here", "type": "local", "path": "rows.csv", "format": "csv"}],
    "schema": [
        {
            "name": "rows",
            "properties": [
                {"name": "text", "logicalType": "string", "required": True},
                {"name": "label", "logicalType": "string", "required": True},
            ],
        }
    ],
    "customProperties": [{"property": "slipway.label", "value": "label"}],
}


def prove(options: Options, say: Say) -> dict[str, Any]:
    """In a scratch folder, or under a prefix of its own where the store is S3; it is removed afterwards."""
    settings = load_settings()
    with tempfile.TemporaryDirectory(prefix="slipway-prove-") as scratch:
        uri = str(Path(scratch) / "store")
        if settings.store_uri.startswith("s3://"):
            uri = f"{settings.store_uri.rstrip('/')}/prove-{secrets.token_hex(8)}"
        try:
            return race(uri, PROCESSES, say)
        finally:
            if uri.startswith("s3://"):
                store = open_store(uri, Path(scratch) / "cache")
                for key in list(store.list("")):
                    store.delete(key)


def race(uri: str, processes: int, say: Say) -> dict[str, Any]:
    """Let so many processes promote a candidate each, all compared with the same champion, while another one reads."""
    with tempfile.TemporaryDirectory(prefix="slipway-prove-") as scratch:
        say(f"making {processes + 1} versions in {uri}")
        store = open_store(uri, Path(scratch) / "cache")
        first, *cards = rehearse(store, processes, Path(scratch))
        promotion.promote(store, references.resolve(store, f"{MODEL}/1"), first, author="prove")
        started = time.monotonic()
        say(f"{processes} processes promote")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["flows.promotion.decisions", "flows.judging.scorecard", "boto3"])
        ready, go, stop = context.Semaphore(0), context.Event(), context.Event()
        watcher = context.Process(target=_watch, args=(uri, scratch, ready, stop))
        writers = [
            context.Process(target=_promote, args=(uri, scratch, number, card, ready, go))
            for number, card in enumerate(cards, start=2)
        ]
        everybody = [watcher, *writers]
        try:
            for process in everybody:
                process.start()
            for _ in everybody:
                ready.acquire(timeout=600)
            go.set()
            for writer in writers:
                writer.join(600)
            stop.set()
            watcher.join(600)
        finally:
            for process in everybody:
                process.kill()
        said = Counter((Path(scratch) / f"said-{number}").read_text() for number in range(2, processes + 2))
        watched = json.loads((Path(scratch) / "watched.json").read_text())
        codes = Counter(str(writer.exitcode) for writer in writers)
        log = promotion_log.read_log(store, MODEL)
        found = {
            "store": store.uri,
            "processes": processes,
            "exit_codes": dict(sorted(codes.items())),
            "overtaken": sum(count for text, count in said.items() if OVERTAKEN in text),
            "entries": len(log),
            "samples": watched["samples"],
            "champions_seen": watched["seen"],
            "problems": [*watched["problems"], *_verified(store)],
            "seconds": round(time.monotonic() - started, 1),
        }
    found["held"] = (
        codes == Counter({"0": 1, "3": processes - 1})
        and found["overtaken"] == processes - 1
        and [entry.sequence for entry in log] == [1, 2]
        and watched["seen"] == [1, 2]
        and not found["problems"]
    )
    return found


def rehearse(store: Store, candidates: int, scratch: Path) -> list[str]:
    """Versions 1 to `candidates` + 1 of a model that nobody trained, on data of thirty rows. Returns the digests of
    their scorecards, all of which say yes; the first was compared with no champion, the others with log entry 1."""
    from data_contracts.contract import load_contract
    from data_contracts.registry import register
    from flows import models
    from flows.judging.evidence import Evidence, Subject
    from flows.judging.gate import Verdict
    from flows.judging.scorecard import Lineage, build_scorecard

    rows = "".join(f"row number {number},{'odd' if number % 2 else 'even'}\n" for number in range(30))
    (scratch / "rows.csv").write_text(f"text,label\n{rows}")
    (scratch / "contract.odcs.yaml").write_text(json.dumps(CONTRACT))  # JSON is YAML
    data, _ = register(store, load_contract(str(scratch / "contract.odcs.yaml")), cache=scratch / "cache")
    yes = Verdict(
        gate=MODEL, severity="block", passed=True, measure="", observed=None, threshold=None, interval=None,
        evidence=data.key("manifest.json"), evidence_digest=data.digest, sentence="Nothing is measured.",
    )  # fmt: skip
    lineage = Lineage(contract=data.contract_digest, dataset={"ref": data.ref}, experiment="", code={}, base="none",
                      libraries={}, author="prove", created="")  # fmt: skip
    cards, champion = [], None
    for number in range(1, candidates + 2):
        weights = scratch / "weights"
        weights.write_text(f"weights of version {number}")
        version = models.add_version(
            store,
            name=MODEL,
            run=f"{MODEL}-{number}",
            experiment={},
            model=artifacts.commit(store, "models", {"weights": weights}).digest,
            package="",
            package_digest=f"{number:064x}",
            dataset=data.ref,
            author="prove",
            created="",
        )
        subject = Subject.of(version, "")
        page = scratch / f"card-{number}"
        build_scorecard(page, candidate=subject, champion=champion, verdicts=[yes], curves={}, lineage=lineage,
                        evidence=Evidence(store, load_settings()))  # fmt: skip
        cards.append(artifacts.commit_folder(store, "scorecards", page).digest)
        if champion is None:
            champion = Subject(**{**vars(subject), "sequence": 1})
    return cards


def _promote(uri: str, scratch: str, number: int, card: str, ready: Any, go: Event) -> None:
    """One process: exits as `slipway promote` does."""
    store = open_store(uri, Path(scratch) / "cache")
    version = references.resolve(store, f"{MODEL}/{number}")
    ready.release()
    go.wait(600)
    try:
        said, code = promotion.promote(store, version, card, author=f"process {number}").sentence, 0
    except SlipwayError as error:
        said, code = str(error), error.exit_code
    (Path(scratch) / f"said-{number}").write_text(said)
    sys.exit(code)


def _watch(uri: str, scratch: str, ready: Any, stop: Event) -> None:
    """Ask who is champion as often as it goes; what was seen, without repeats in a row."""
    store = open_store(uri, Path(scratch) / "cache")
    samples = 0
    seen: list[int] = []
    problems: list[str] = []
    begun = last = False
    while not last:
        last = stop.is_set()  # one look before anybody promotes, and one after all have
        samples += 1
        try:
            reigning = promotion_log.champion(store, MODEL)
        except SlipwayError as error:
            problems.append(str(error))
            continue
        if reigning is None:
            problems.append("there was no champion")
        elif not seen or seen[-1] != reigning.sequence:
            seen.append(reigning.sequence)
        if not begun:
            ready.release()
            begun = True
    (Path(scratch) / "watched.json").write_text(json.dumps({"samples": samples, "seen": seen, "problems": problems}))


def _verified(store: Store) -> list[str]:
    from flows.promotion.verify import verify

    return verify(store, MODEL)
