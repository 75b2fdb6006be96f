"""One statement for all who ask the same question at once: however slow the database is, nobody waits for each of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

import structlog

from hyprbox.lib.errors import Unavailable

Key = TypeVar("Key")
Answer = TypeVar("Answer")

log = structlog.get_logger(__name__)


class Asking(Generic[Key, Answer]):
    """`ask` answers many at once. Those who come while it does wait for the next time: what they hear is never older."""

    def __init__(self, ask: Callable[[list[Key]], Awaitable[Mapping[Key, Answer]]]) -> None:
        self._ask = ask
        self._waiting: dict[Key, asyncio.Future[Answer]] = {}
        self._task: asyncio.Task[None] | None = None

    async def one(self, key: Key) -> Answer:
        """The answer for this key. Raises `Unavailable` when the database is away."""
        loop = asyncio.get_running_loop()
        if key not in self._waiting:
            self._waiting[key] = loop.create_future()
        waiting = self._waiting[key]
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run(), name="asking")
        return await asyncio.shield(waiting)

    async def _run(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting, {}
            try:
                found = await self._ask(list(asked))
                for key, waiting in asked.items():
                    waiting.set_result(found[key])
            except Unavailable as error:
                _refuse(asked, error.message)
            except Exception:  # a defect here must not leave everybody waiting for an answer
                log.exception("asking.failed")
                _refuse(asked, None)


def _refuse(asked: Mapping[Key, asyncio.Future[Answer]], message: str | None) -> None:
    for waiting in asked.values():
        if not waiting.done():
            waiting.set_exception(Unavailable(message))
            waiting.exception()  # whoever asked may have gone
