"""Bad node tokens are counted by their address, in all processes and together with people's bad tokens."""

from __future__ import annotations

import asyncio

import pytest

from accounts import gate, rates
from hyprbox.lib.errors import RateLimited
from tokens.errors import BadToken
from tokens.guesses import Found, Guesses

ADDRESS = "10.0.0.1"


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the other processes."""
    monkeypatch.setattr(gate.BadBearers, "_schedule", lambda self: None)


async def bad() -> Found:
    return BadToken()


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
def test_past_the_limit_two_a_second_are_looked_up() -> None:
    guesses, asked = Guesses(), []

    async def ask() -> Found:
        asked.append(1)
        return BadToken()

    async def guess() -> None:
        for _ in range(200):
            with pytest.raises((RateLimited, BadToken)):
                found = await guesses.look_up(ADDRESS, ask)
                assert isinstance(found, BadToken)
                guesses.note(ADDRESS)
                raise found

    asyncio.run(guess())
    assert 90 <= len(asked) <= 100


@pytest.mark.usefixtures("alone")
def test_nodes_and_people_have_one_limit_at_an_address() -> None:
    shared = gate.BadBearers()
    guesses = Guesses(shared)
    for _ in range(29):
        guesses.note(ADDRESS)
    assert shared.note(ADDRESS) == 0
    with pytest.raises(RateLimited):
        guesses.note(ADDRESS)


@pytest.mark.django_db(transaction=True)
def test_processes_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "FLUSH_SECONDS", 0.0)
    rates.add({rates.address_key(ADDRESS, "bearer"): 29})  # by another process
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
