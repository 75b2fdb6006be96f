from __future__ import annotations

import asyncio

import pytest

from hyprbox.lib.asking import Asking
from hyprbox.lib.errors import Unavailable


async def test_those_who_come_meanwhile_share_the_next_question() -> None:
    asked: list[list[str]] = []

    async def ask(keys: list[str]) -> dict[str, int]:
        asked.append(keys)
        await asyncio.sleep(0.02)
        return {key: len(asked) for key in keys}

    asking = Asking(ask)
    first = asyncio.create_task(asking.one("a"))
    await asyncio.sleep(0.01)
    later = await asyncio.gather(asking.one("a"), asking.one("b"), asking.one("b"))
    assert (await first, later) == (1, [2, 2, 2])  # nobody hears what was found before they asked
    assert asked == [["a"], ["a", "b"]]


async def test_one_who_goes_does_not_take_the_answer_of_the_others() -> None:
    async def ask(keys: list[str]) -> dict[str, str]:
        await asyncio.sleep(0.02)
        return {key: key for key in keys}

    asking = Asking(ask)
    gone, stays = (asyncio.create_task(asking.one("a")) for _ in range(2))
    await asyncio.sleep(0.01)
    gone.cancel()
    assert await stays == "a"


@pytest.mark.parametrize("error", [Unavailable("Away."), KeyError("a")])
async def test_all_hear_that_there_is_no_answer_and_the_next_may_ask_again(error: Exception) -> None:
    errors = [error]

    async def ask(keys: list[str]) -> dict[str, str]:
        if errors:
            raise errors.pop()
        return {key: key for key in keys}

    asking = Asking(ask)
    heard = await asyncio.gather(asking.one("a"), asking.one("b"), return_exceptions=True)
    assert [type(each) for each in heard] == [Unavailable, Unavailable]
    assert await asking.one("a") == "a"
