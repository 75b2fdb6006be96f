"""Bad node tokens are counted by their address, in all processes."""

from __future__ import annotations

import asyncio

import pytest

from accounts import gate, rates
from hyprbox.lib.errors import RateLimited
from tokens.guesses import Guesses

ADDRESS = "10.0.0.1"


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the other processes."""
    monkeypatch.setattr(gate.BadBearers, "_schedule", lambda self: None)


@pytest.mark.usefixtures("alone")
def test_the_thirty_first_in_a_minute_waits_for_the_next() -> None:
    guesses = Guesses()
    for _ in range(30):
        guesses.note(ADDRESS)
    with pytest.raises(RateLimited) as refused:
        guesses.note(ADDRESS)
    assert refused.value.retry_after is not None and 58 <= refused.value.retry_after <= 60
    guesses.note("10.0.0.2")


@pytest.mark.usefixtures("alone")
def test_the_lanes_have_one_limit_at_an_address() -> None:
    shared = gate.BadBearers("node")
    heartbeats, polls = Guesses(shared), Guesses(shared)
    for _ in range(15):
        heartbeats.note(ADDRESS)
        polls.note(ADDRESS)
    with pytest.raises(RateLimited):
        heartbeats.note(ADDRESS)


@pytest.mark.django_db(transaction=True)
def test_processes_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "FLUSH_SECONDS", 0.0)
    rates.add({rates.address_key(ADDRESS, "node"): 29})  # by another process
    told: list[object] = []

    async def tell_many(found: list[object]) -> None:
        told.extend(found)

    monkeypatch.setattr(gate.refusals, "tell_many", tell_many)
    guesses = Guesses()

    async def guess() -> None:
        guesses.note(ADDRESS)
        flush = guesses.bad._flush
        assert flush is not None
        await flush
        guesses.note(ADDRESS)

    with pytest.raises(RateLimited):
        asyncio.run(guess())
    assert told == []  # the lane tells of what it refuses itself
