"""The drift gate follows the contract."""


def test_drift_follows_the_contracts_policy(world, monkeypatch):
    from data_contracts.contract import Contract

    first = world.promote(world.candidate())
    candidate = world.candidate(dataset="drifted")
    verdict = world.judge("drift", {}, candidate, first)
    assert (verdict.passed, verdict.severity) == (False, "block")
    assert "label" in verdict.sentence and "text" in verdict.sentence
    policy = world.evidence.contract(candidate).drift
    monkeypatch.setattr(Contract, "__getattribute__", lambda self, name: (
        {**policy, "block": False} if name == "drift" else object.__getattribute__(self, name)
    ))  # fmt: skip
    verdict = world.judge("drift", {}, candidate, first)
    assert (verdict.passed, verdict.severity) == (False, "warn")
