"""The web process: two lanes and the streams before Django, then a gate and Django.

uvicorn --http hyprbox.lib.protocol:Protocol --ws none hyprbox.asgi:application
"""

from __future__ import annotations

import gc
import os
from typing import Any, cast

import structlog
from django.core.asgi import get_asgi_application

from hyprbox.lib import logs

logs.take_over_tracebacks()
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hyprbox.settings")
_django: Any = get_asgi_application()

# Only now: these import models.
from channels.routing import URLRouter
from django.conf import settings
from django.urls import path, re_path

from accounts.gate import BearerGate
from audit import sequencer
from hyprbox import known_settings, startup
from hyprbox.gate.door import Gate, StreamGate
from hyprbox.gate.origins import Origins
from hyprbox.lib import lanes, live
from hyprbox.lib.errors import HeadersTooLarge, defect
from hyprbox.lib.threads import in_thread
from hyprbox.live_routes import STREAMS
from jobs.queue import board
from jobs.together import together
from jobs.waiting import recheck_tokens, waiting_lane
from nodes import ingest

log = structlog.get_logger(__name__)

LANES = {"/api/nodes/heartbeat": ingest.heartbeat_lane, "/api/jobs/pending": waiting_lane}
ingest.work_waiting = board.has_work
board.chore = recheck_tokens
lanes.direct["/api/nodes/heartbeat"] = ingest.take_directly

_gate = Gate(_django, size=settings.DATABASES["default"]["OPTIONS"]["pool"]["max_size"])
_streams: dict[str, Any] = {route: StreamGate(app, _gate.strangers) for route, app in STREAMS.items()}
_paths = URLRouter([*(path(route, app) for route, app in _streams.items()), re_path(r"", cast("Any", _gate))])
_routes = Origins(BearerGate(_paths))


async def application(scope: dict[str, Any], receive: lanes.Receive, send: lanes.Send) -> None:
    if scope["type"] == "http":
        await _http(scope, receive, send)
    elif scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "websocket":  # there are none; with `--ws none` it is an ordinary request
        await receive()
        await send({"type": "websocket.close", "code": 4404})


async def _http(scope: dict[str, Any], receive: lanes.Receive, send: lanes.Send) -> None:
    has_begun = False

    async def noting(message: dict[str, Any]) -> None:
        nonlocal has_begun
        has_begun = True
        await send(message)

    try:
        lanes.require_small_headers(scope)
        lane = LANES.get(scope["path"])
        await (lane or _routes)(scope, receive, noting)
    except HeadersTooLarge as error:
        await lanes.answer_error(send, error, lanes.request_id_of(scope))
    except Exception as error:
        # Django answers its own defects; one of a lane or a stream must not leave as a bare 500 of the server's.
        if has_begun:
            raise
        request_id = lanes.request_id_of(scope)
        log.error("lane.failed", path=scope["path"], request_id=request_id, exc_info=error)
        await lanes.answer_error(send, defect(), request_id)


async def _lifespan(receive: lanes.Receive, send: lanes.Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            if problems := await in_thread(startup.refusals):
                await send(
                    {"type": "lifespan.startup.failed", "message": "HyprBox cannot start. " + " ".join(problems)}
                )
                return
            if why := await in_thread(startup.weakness):
                log.warning("startup.weakness", why=why)
            await in_thread(known_settings.note)
            await live.listener.ensure()
            together.attach()
            sequencer.loop.start()
            gc.freeze()  # what was imported stays; without this every full collection walks through all of it
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await ingest.drain()
            await together.stop()
            await sequencer.loop.stop()
            await live.listener.stop()
            await send({"type": "lifespan.shutdown.complete"})
            return
