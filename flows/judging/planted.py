"""Pairs of models whose true difference is known exactly, made from the stored predictions of one. Nothing is trained.

The stored rows are taken for the whole population, and the true difference is computed on it, not estimated. The
second model is the first with some of its answers changed: so often that the two disagree as model and baseline do,
and so that the metric differs by exactly what was asked for. A trial draws test rows from that population.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from flows.models import ModelVersion
from infra import artifacts
from infra.settings import Settings
from infra.store import NotFound, Store
from training.intervals import macro_f1_of

MAX_CLASSES = 10
"""The most frequent classes are kept: a pair of models has classes^3 kinds of rows."""
SHARED = 0.2
"""Of the rows whose losses the second model of a pair has in another order."""


@dataclass(frozen=True)
class Population:
    """One model's stored results: every test row, taken for the whole world."""

    source: str
    truth: np.ndarray
    """(N,) class indices."""
    answers: np.ndarray
    """(N,)"""
    confidence: np.ndarray
    """(N,) from 0 to 1."""
    losses: np.ndarray
    """(N,) log loss in nats."""
    discordant: float
    """Share of the rows that only one of two compared models has right."""

    @property
    def classes(self) -> int:
        return int(max(self.truth.max(), self.answers.max())) + 1


@dataclass(frozen=True)
class Cells:
    """Kinds of rows of a pair and how probable each is."""

    kinds: np.ndarray
    """(M, 3) label, candidate's answer, champion's answer."""
    shares: np.ndarray
    """(M,)"""
    classes: int

    @property
    def gain(self) -> np.ndarray:
        """(M,) 1 where only the candidate is right, -1 where only the champion is."""
        label, candidate, champion = self.kinds.T
        return (label == candidate).astype(float) - (label == champion)


def pair(population: Population, metric: str, difference: float) -> Cells:
    """A candidate that is better than the stored model by exactly `difference` of accuracy or macro-F1 (negative:
    worse). Raises ValueError for a difference that no change of answers gives."""
    from scipy.optimize import brentq

    classes = population.classes
    joint = np.bincount(population.truth * classes + population.answers, minlength=classes**2).reshape(classes, -1)
    share = joint / joint.sum()
    off = joint + 1.0  # a class without errors errs evenly
    off[np.diag_indices(classes)] = 0
    wrong = off / off.sum(1, keepdims=True)
    label, champion = np.divmod(np.arange(classes**2), classes)
    right = float(np.trace(share))

    def cells(lost: float, gained: float) -> np.ndarray:
        """(classes, classes, classes) label, candidate, champion: of the champion's right answers `lost` go wrong,
        of its wrong ones `gained` come right."""
        table = np.zeros((classes, classes, classes))
        table[label, champion, champion] = share.ravel()
        for one in range(classes):
            moved = lost * table[one, one, one]
            table[one, :, one] += moved * wrong[one]
            table[one, one, one] -= moved
            for other in range(classes):
                if other != one:
                    moved = gained * table[one, other, other]
                    table[one, other, other] -= moved
                    table[one, one, other] += moved
        return table.ravel()

    kinds = np.stack(np.unravel_index(np.arange(classes**3), (classes,) * 3), 1)

    def off_by(lost: float, gained: float) -> float:
        return true_difference(Cells(kinds, cells(lost, gained), classes), metric) - difference

    lost = min(1.0, population.discordant / 2 / max(right, 1e-9))
    if off_by(lost, 1.0) >= 0 >= off_by(lost, 0.0):
        gained = brentq(lambda value: off_by(lost, value), 0, 1, xtol=1e-14)
    else:
        gained = 1.0 if off_by(lost, 1.0) < 0 else 0.0
        if off_by(0.0, gained) * off_by(1.0, gained) > 0:
            raise ValueError(f"no change of {population.source} makes it {difference:+g} of {metric} better")
        lost = brentq(lambda value: off_by(value, gained), 0, 1, xtol=1e-14)
    shares = np.maximum(cells(lost, gained), 0)
    there = shares > 0
    return Cells(kinds[there], shares[there] / shares.sum(), classes)


def true_difference(cells: Cells, metric: str) -> float:
    """The candidate's metric minus the champion's in the whole population."""
    if metric == "accuracy":
        return float(cells.shares @ cells.gain)
    label, candidate, champion = cells.kinds.T
    first, second = (macro_f1_of(cells.shares[None], label, one, cells.classes)[0] for one in (candidate, champion))
    return float(first - second)


def loss_gains(population: Population, difference: float) -> np.ndarray:
    """(N,) the champion's loss minus the candidate's on each row; their mean is exactly `difference`.

    The candidate has the champion's own losses, those of a share of the rows in another order.
    """
    rng = np.random.default_rng(0)
    other = np.arange(len(population.losses))
    moved = rng.permutation(len(other))[: max(2, round(SHARED * len(other)))]
    other[moved] = rng.permutation(moved)
    return population.losses - population.losses[other] + difference


def generated(rows: int = 2000, classes: int = 4) -> Population:
    """Predictions of no model: logits that point at the label with noise, right on about 85 % of the rows."""
    from scipy.special import softmax

    rng = np.random.default_rng(0)
    truth = rng.choice(classes, rows, p=np.arange(classes, 0, -1) / np.arange(1, classes + 1).sum())
    logits = rng.normal(size=(rows, classes)) * 1.2
    logits[np.arange(rows), truth] += 3.0
    shares = softmax(logits, axis=1)
    answers = shares.argmax(1)
    source = f"generated predictions ({rows:,} rows of {classes} classes, {(answers == truth).mean():.1%} right)"
    return Population(source, truth, answers, shares.max(1), -np.log(shares[np.arange(rows), truth]), 0.1)


def stored(store: Store, version: ModelVersion) -> Population | None:
    """The version's newest evaluation, read whole; None when it has none."""
    from pyarrow import parquet

    found: dict[str, Any] | None = None
    for key in store.list(f"steps/evaluate/{version.name}/"):
        body = json.loads(store.get(key))
        if body["ingredients"]["model"] == version.model and (found is None or body["ended"] > found["ended"]):
            found = body
    if found is None:
        return None
    try:
        artifact = artifacts.load(store, "evaluations", found["output"]["evaluation"])
    except NotFound:
        return None
    table = parquet.read_table(artifacts.fetch(store, artifact) / "predictions.parquet")
    if "baseline_prediction" not in table.column_names:
        return None  # pairs of classifiers are made, not of models of another kind
    labels, answers, baseline = (
        np.array(table[name].to_pylist(), dtype=object).astype(str)
        for name in ("label", "prediction", "baseline_prediction")
    )
    kinds, counts = np.unique(labels, return_counts=True)
    kept = kinds[np.argsort(-counts, kind="stable")][:MAX_CLASSES]
    rows = np.isin(labels, kept) & np.isin(answers, kept)
    names = np.sort(kept)
    confidence = table["confidence"].to_numpy().astype(float)
    right = labels == answers
    # Of an evaluation without probabilities: what the answer's confidence says of the label, the rest spread evenly.
    spread = np.where(right, confidence, (1 - confidence) / max(len(kinds) - 1, 1))
    losses = table["log_loss"].to_numpy() if "log_loss" in table.column_names else -np.log(np.maximum(spread, 1e-9))
    left = f", the {len(kept)} most frequent of {len(kinds)} classes" if len(kept) < len(kinds) else ""
    return Population(
        f"the predictions of {version.ref} ({int(rows.sum()):,} test rows{left})",
        np.searchsorted(names, labels[rows]),
        np.searchsorted(names, answers[rows]),
        confidence[rows],
        losses[rows],
        float(np.clip((right != (labels == baseline)).mean(), 0.02, 0.3)),
    )


def newest(settings: Settings, reference: str | None) -> Population:
    """The population of a model, or of the one evaluated last, or generated where there is none. Raises WrongInput."""
    from flows import models, references
    from infra.errors import WrongInput

    store = settings.object_store
    if reference is not None:
        version = references.resolve(store, reference)
        population = stored(store, version)
        if population is None:
            raise WrongInput(f"model {version.ref}: has no evaluation; run slipway evaluate {version.ref} first")
        return population
    versions = [version for name in models.names(store) for version in models.versions(store, name)]
    for version in sorted(versions, key=lambda one: one.created, reverse=True):
        population = stored(store, version)
        if population is not None:
            return population
    return generated()
