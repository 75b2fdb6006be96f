"""Where the streams live. Channels routes and authenticates them; `hyprbox.lib.sse` does the rest."""

from __future__ import annotations

from typing import Any

from hyprbox.dashboard import Dashboard
from jobs.streams import JobStream
from nodes.streams import NodeStream

STREAMS: dict[str, Any] = {
    "api/stream/nodes": NodeStream.as_asgi(),
    "api/jobs/<uuid:job_id>/stream": JobStream.as_asgi(),
    "events/": Dashboard.as_asgi(),
}
