"""What the lanes keep of tokens in memory: bounded, and what is made up pushes out nothing that is good."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from accounts import gate
from hyprbox.lib.errors import RateLimited, Unavailable
from tests import factories
from tokens import cache, secrets
from tokens.cache import TokenCache, VerifiedToken, _Entry
from tokens.errors import BadToken
from tokens.guesses import Guesses
from tokens.secrets import Presented

HERE, NEXT_DOOR = "192.0.2.1", "192.0.2.2"


def entry(prefix: str, used_at: float) -> tuple[str, _Entry]:
    token = VerifiedToken(uuid.uuid4(), prefix.encode() * 4, "web-1", uuid.uuid4(), None, None)
    return prefix, _Entry((token,), fresh_until=1e12, used_at=used_at)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> TokenCache:
    monkeypatch.setattr(cache, "MAX_PREFIXES", 20)
    monkeypatch.setattr(cache, "MAX_ABSENT", 10)
    return TokenCache()


def test_what_was_not_used_for_longest_goes_first_and_the_rest_stays(small: TokenCache) -> None:
    for n in range(20):
        small._keep(*entry(f"good{n:04}", used_at=float(n)))
    assert small.peek(Presented("good0000", b"good0000" * 4))  # used again
    small._keep(*entry("good9999", used_at=1e12))
    left = set(small._entries)
    assert {"good0000", "good9999", "good0019"} <= left
    assert "good0001" not in left and 17 <= len(left) <= 20
    for n in range(200):
        small._keep(*entry(f"more{n:04}", used_at=2e12 + n))
        assert len(small._entries) <= 20
    assert "more0199" in small._entries


def test_what_is_not_there_has_a_place_of_its_own(small: TokenCache) -> None:
    for n in range(20):
        small._keep(*entry(f"good{n:04}", used_at=float(n)))
    for n in range(100):
        small._keep(f"made{n:04}", _Entry((), 1e12, 0.0))
    assert len(small._entries) == 20
    assert list(small._absent) == [f"made{n:04}" for n in range(90, 100)]
    assert isinstance(small.peek(Presented("made0099", b"x")), BadToken)
    small._keep(*entry("made0099", used_at=1.0))  # somebody was given this one
    assert isinstance(small.peek(Presented("made0099", b"made0099" * 4)), VerifiedToken)
    assert "made0099" not in small._absent
    small.drop("made0098")
    assert "made0098" not in small._absent


def test_only_the_token_itself_is_remembered(small: TokenCache) -> None:
    small._keep(*entry("good0001", used_at=1.0))
    small._entries["good0001"].fresh_until = 0.0
    assert small.remembers(Presented("good0001", b"good0001" * 4))
    assert not small.remembers(Presented("good0001", b"other000" * 4))
    assert not small.remembers(Presented("made0001", b"made0001" * 4))


@pytest.mark.django_db(transaction=True)
def test_a_flood_of_made_up_prefixes_leaves_the_good_ones_in_memory(
    small: TokenCache, web_1: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hyprbox.lib import db

    good = secrets.parse(factories.make_token(web_1))

    async def work() -> list[str]:
        conn = await db.async_connect(application_name="test")
        asked: list[str] = []
        try:
            assert isinstance((await small.resolve(conn, [good]))[0], VerifiedToken)
            load = TokenCache._load

            async def loading(self: TokenCache, conn: Any, wanted: list[str]) -> None:
                asked.extend(wanted)
                await load(self, conn, wanted)

            monkeypatch.setattr(TokenCache, "_load", loading)
            for at in range(0, 300, 5):
                flood = [Presented(f"made{n:04}", b"x" * 32) for n in range(at, at + 5)]
                found = await small.resolve(conn, [*flood, good])
                assert [isinstance(one, VerifiedToken) for one in found] == [False] * 5 + [True]
        finally:
            await conn.close()
        return asked

    asked = asyncio.run(work())
    assert len(asked) == 300 and good.prefix not in asked


# --- guesses ---


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the other processes, of which `test_guesses` tells."""
    monkeypatch.setattr(gate.BadBearers, "_schedule", lambda self: None)


class Database:
    def __init__(self) -> None:
        self.asked = 0
        self.found: Any = BadToken()

    async def ask(self) -> Any:
        self.asked += 1
        if isinstance(self.found, Unavailable):
            raise self.found
        return self.found


async def guess(guesses: Guesses, database: Database, address: str = HERE) -> str:
    try:
        found = await guesses.look_up(address, database.ask)
        if isinstance(found, BadToken):
            guesses.note(address)
    except RateLimited as error:
        return f"wait {error.retry_after}"
    except Unavailable:
        return "away"
    return "bad" if isinstance(found, BadToken) else "good"


async def test_the_limit_comes_before_the_database() -> None:
    guesses, database = Guesses(), Database()
    said = [await guess(guesses, database) for _ in range(1000)]
    assert said[:30] == ["bad"] * 30 and set(said[30:]) <= {"wait 1", "wait 2", "wait 59", "wait 60"}
    assert 90 <= database.asked <= 100  # 30 that were refused, then the look-ups of an address that guesses
    assert await guess(guesses, database, NEXT_DOOR) == "bad"


async def test_good_tokens_of_a_neighbour_get_through_and_cost_nothing() -> None:
    guesses, database = Guesses(), Database()
    for _ in range(31):
        await guess(guesses, database)
    good, away = Database(), Database()
    good.found, away.found = object(), Unavailable()
    assert {await guess(guesses, good) for _ in range(1000)} == {"good"}
    assert {await guess(guesses, away) for _ in range(1000)} == {"away"}


async def test_a_fleet_that_is_not_known_yet_is_not_held_up() -> None:
    guesses, good = Guesses(), Database()
    good.found = object()
    assert {await guess(guesses, good) for _ in range(1000)} == {"good"}
