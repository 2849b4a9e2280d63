"""Who was champion when: the log against a simple model of it."""

import random
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from flows import references
from flows.judging.evidence import Subject, find_champion
from flows.promotion import decisions as promotion
from flows.promotion import log as promotion_log
from flows.promotion.verify import verify


def test_who_was_champion_at_any_time_after_random_promotions_and_rollbacks(world, monkeypatch):
    """20 of either at random moments, asked for 100 random times, some of them the very moments."""
    chance = random.Random(7)
    moment = datetime(2026, 1, 1, tzinfo=UTC)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return moment

    monkeypatch.setattr(promotion_log, "datetime", Clock)
    model: list[tuple[datetime, int]] = []  # when, which version became champion
    while len(model) < 20:
        moment += timedelta(microseconds=chance.choice([0, 1, 1000, 10**9]))
        reached = sorted({version for _, version in model})
        others = [version for version in reached if version != model[-1][1]]
        if others and chance.random() < 0.5:
            wanted = chance.choice([*map(str, others), "previous"])
            before = [version for _, version in model if version != model[-1][1]]
            promotion.rollback(world.store, "animals", wanted, author="mel", reason="chance")
            model.append((moment, before[-1] if wanted == "previous" else int(wanted)))
        else:
            version = world.version()
            card = world.scorecard(Subject.of(version, ""), champion=find_champion(world.store, "animals"))
            promotion.promote(world.store, references.resolve(world.store, version.ref), card, author="mel")
            model.append((moment, version.version))
    assert {entry.kind for entry in promotion_log.read_log(world.store, "animals")} == {"promotion", "rollback"}
    first, last = model[0][0], model[-1][0]
    times = [first + (last - first) * chance.uniform(-0.05, 1.05) for _ in range(60)]
    for _ in range(40):
        at, _version = chance.choice(model)
        times.append(at + timedelta(microseconds=chance.choice([-1, 0, 1])))
    for at in times:
        expected = [version for when, version in model if when <= at]
        entry = promotion_log.champion(world.store, "animals", at)
        assert (entry.version if entry else None) == (expected[-1] if expected else None), at
    assert verify(world.store, "animals") == []


def test_a_time_in_another_zone_is_the_same_moment(world):
    world.promote(world.candidate())
    entry = promotion_log.champion(world.store, "animals")
    assert entry
    then = datetime.fromisoformat(entry.time)
    for zone in (-7, 0, 9):
        local = then.astimezone(timezone(timedelta(hours=zone)))
        assert promotion_log.champion(world.store, "animals", local) == entry
        assert promotion_log.champion(world.store, "animals", local - timedelta(microseconds=1)) is None


def test_time_in_the_log_never_runs_backwards_whatever_the_clock_says(world, monkeypatch):
    class Clock(datetime):
        hour = 12

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            cls.hour -= 1
            return datetime(2026, 1, 1, cls.hour, tzinfo=UTC)

    monkeypatch.setattr(promotion_log, "datetime", Clock)
    for _ in range(3):
        world.promote(world.candidate())
    assert len({entry.time for entry in promotion_log.read_log(world.store, "animals")}) == 1
    entry = promotion_log.champion(world.store, "animals", datetime(2026, 1, 1, 11, tzinfo=UTC))
    assert entry and entry.version == 3, "of equal times the newest entry counts"
