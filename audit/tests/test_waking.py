"""The sequencer of a web process rests until an entry wakes it, whichever process wrote it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from audit import checkpoints, sequencer, services
from audit.actions import Action
from audit.models import Checkpoint, Event
from hyprbox.lib import live
from hyprbox.lib.errors import Unavailable
from hyprbox.lib.threads import in_thread
from tests.factories import SYSTEM

pytestmark = pytest.mark.django_db(transaction=True)


class RolledBack(Exception):
    pass


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks of himself, so that whatever happens was told."""
    monkeypatch.setattr(live, "hub", live.Hub())
    monkeypatch.setattr(live, "listener", live.Listener(live.hub))
    monkeypatch.setattr(sequencer, "loop", sequencer.Loop())
    monkeypatch.setattr(sequencer, "LOOK_SECONDS", 3600.0)


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[sequencer.Round]:
    """What the rounds of the loop did so far."""
    found, sequence = [], sequencer.sequence

    def noting() -> sequencer.Round:
        done = sequence()
        found.append(done)
        return done

    monkeypatch.setattr(sequencer, "sequence", noting)
    return found


@asynccontextmanager
async def web_process(rounds: list[sequencer.Round]) -> AsyncIterator[None]:
    """Its first round is over."""
    loop = sequencer.loop
    loop.start()
    try:
        assert await becomes(lambda: len(rounds) >= 1)
        yield
    finally:
        await loop.stop()
        await live.listener.stop()


async def becomes(is_so: Callable[[], bool], seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while not is_so() and time.monotonic() < until:
        await asyncio.sleep(0.01)
    return is_so()


def record(*, undone: bool = False) -> None:
    try:
        with transaction.atomic():
            services.record(Action.NODE_CHANGED, by=SYSTEM, target="node:web-1")
            if undone:
                raise RolledBack
    except RolledBack:
        pass


def record_elsewhere(monkeypatch: pytest.MonkeyPatch, **over: Any) -> None:
    """In a process that does not run the loop."""
    with monkeypatch.context() as patch:
        patch.setattr(sequencer, "loop", sequencer.Loop())
        record(**over)


def insert_untold() -> None:
    """As by a process that died after the COMMIT."""
    Event.objects.create(action=Action.NODE_CHANGED, actor_kind="system", actor_name="test", target="node:web-1")


def placed() -> list[int | None]:
    return list(Event.objects.order_by("id").values_list("n", flat=True))


async def test_an_act_wakes_its_own_process(rounds: list[sequencer.Round]) -> None:
    async with web_process(rounds):  # which hears nothing: it does not listen
        await in_thread(record)
        assert await becomes(lambda: len(rounds) == 2)
        assert await in_thread(placed) == [1]
        await asyncio.sleep(2 * sequencer.PAUSE_SECONDS)
        assert len(rounds) == 2


async def test_acts_that_come_together_share_a_round(rounds: list[sequencer.Round]) -> None:
    async with web_process(rounds):
        await asyncio.gather(*(in_thread(record) for _ in range(5)))
        assert await becomes(lambda: sum(done.placed for done in rounds) == 5)
        assert len(rounds) <= 3


async def test_a_process_without_the_loop_tells_those_with_it(
    rounds: list[sequencer.Round], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with web_process(rounds):
        await live.listener.ensure()
        await in_thread(record_elsewhere, monkeypatch)
        assert await becomes(lambda: len(rounds) == 2)
        assert await in_thread(placed) == [1]


async def test_what_is_rolled_back_wakes_nobody(rounds: list[sequencer.Round], monkeypatch: pytest.MonkeyPatch) -> None:
    def undone_within() -> None:
        with transaction.atomic():
            record(undone=True)

    async with web_process(rounds):
        await live.listener.ensure()
        await in_thread(record, undone=True)
        await in_thread(undone_within)
        await in_thread(record_elsewhere, monkeypatch, undone=True)
        await asyncio.sleep(2 * sequencer.PAUSE_SECONDS)
        assert len(rounds) == 1
        await in_thread(record)
        assert await becomes(lambda: len(rounds) == 2)


async def test_the_slow_look_finds_what_nobody_told_of(
    rounds: list[sequencer.Round], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequencer, "LOOK_SECONDS", 0.2)
    async with web_process(rounds):
        await in_thread(insert_untold)
        assert await becomes(lambda: any(done.placed for done in rounds), 2)
        assert await in_thread(placed) == [1]


async def test_who_did_not_listen_for_a_while_looks(rounds: list[sequencer.Round]) -> None:
    async with web_process(rounds):
        await in_thread(insert_untold)
        live.hub.deliver(live.Event(live.RESYNC))
        assert await becomes(lambda: len(rounds) == 2)
        assert await in_thread(placed) == [1]


async def test_an_entry_that_commits_during_a_round_gets_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[sequencer.Round] = []
    sequence = sequencer.sequence

    def slow() -> sequencer.Round:
        done = sequence()
        if len(found) == 1:
            record()  # too late for the round that is still at it
        found.append(done)
        return done

    monkeypatch.setattr(sequencer, "sequence", slow)
    async with web_process(found):
        await in_thread(record)
        assert await becomes(lambda: len(found) == 3, 1.5)
        assert [done.placed for done in found] == [0, 1, 1]


async def test_who_finds_another_process_at_it_looks_again(rounds: list[sequencer.Round]) -> None:
    held, let_go = asyncio.Event(), asyncio.Event()
    here = asyncio.get_running_loop()

    def hold() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [sequencer.LOCK])
            here.call_soon_threadsafe(held.set)
            asyncio.run_coroutine_threadsafe(let_go.wait(), here).result()

    async with web_process(rounds):
        other = asyncio.create_task(in_thread(hold))
        await held.wait()
        await in_thread(record)
        assert await becomes(lambda: len(rounds) == 2)
        assert rounds[1] == (0, False)
        let_go.set()
        await other
        assert await becomes(lambda: rounds[-1] == (1, True))


@pytest.mark.parametrize("error", [Unavailable(), OperationalError("gone"), ValueError("a defect")])
async def test_a_round_that_fails_is_tried_again_after_a_while(
    rounds: list[sequencer.Round], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(sequencer, "RETRY_SECONDS", 0.8)
    good, failed = sequencer.sequence, []

    def failing() -> sequencer.Round:
        if not failed:
            failed.append(time.monotonic())
            raise error
        return good()

    async with web_process(rounds):
        monkeypatch.setattr(sequencer, "sequence", failing)
        await in_thread(record)
        assert await becomes(lambda: len(rounds) == 2, 3)
        assert time.monotonic() - failed[0] >= 0.8 * 0.75
        assert await in_thread(placed) == [1]


async def test_what_was_recorded_last_gets_its_place_before_the_process_ends(rounds: list[sequencer.Round]) -> None:
    async with web_process(rounds):
        await in_thread(record)
        await sequencer.loop.stop()
        assert await in_thread(placed) == [1]
        assert not sequencer.loop.is_running
        await in_thread(record)  # by then it tells the others
        sequencer.loop.wake()
        await asyncio.sleep(2 * sequencer.PAUSE_SECONDS)
        assert len(rounds) == 2


def test_an_idle_look_is_one_statement() -> None:
    record()
    assert sequencer.sequence() == (1, True)
    with CaptureQueriesContext(connections["default"]) as asked:
        assert sequencer.sequence() == (0, True)
    assert len(asked) == 1


def test_a_look_signs_what_is_due_and_takes_what_another_process_signed() -> None:
    record()
    sequencer.sequence()
    record()
    sequencer.sequence()
    assert checkpoints.newest.n == 1  # the second one is not due yet
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE audit_checkpoint DISABLE TRIGGER USER")
        Checkpoint.objects.update(at=Checkpoint.objects.get().at - timedelta(seconds=61))
        cursor.execute("ALTER TABLE audit_checkpoint ENABLE TRIGGER USER")
    assert sequencer.sequence() == (0, True)
    assert checkpoints.newest.n == 2
    checkpoints.newest = checkpoints.Newest()  # another process
    assert sequencer.sequence() == (0, True)
    assert checkpoints.newest.n == 2
