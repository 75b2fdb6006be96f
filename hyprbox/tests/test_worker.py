"""The worker leaves nothing behind of what it has done."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from asgiref.sync import sync_to_async
from procrastinate.contrib.django.models import ProcrastinateJob

from hyprbox import worker
from jobs import tasks


@pytest.mark.django_db(transaction=True)
async def test_a_task_that_succeeded_is_gone() -> None:
    task_id = await sync_to_async(tasks.forget_old_keys.defer)(timestamp=0)
    assert await ProcrastinateJob.objects.filter(pk=task_id).aexists()
    running = asyncio.create_task(worker._work_until(asyncio.Event()))
    deadline = time.monotonic() + 20
    while await ProcrastinateJob.objects.filter(pk=task_id).aexists() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert not await ProcrastinateJob.objects.filter(pk=task_id).aexists()
