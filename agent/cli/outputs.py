"""`hyprbox jobs output`: what a job wrote, byte for byte."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import click
import requests

from agent.cli import printing
from agent.cli.api import Api, unreachable
from agent.cli.base import command, current
from agent.cli.exits import Trouble, UsageTrouble
from agent.cli.follow import STREAMS
from agent.cli.options import JOB
from agent.cli.sinks import Sink


@command("output", short_help="What a job wrote, byte for byte.")
@JOB
@click.option("--stream", type=click.Choice(STREAMS), help="Only this one, to stdout.")
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Into this file; with --stream.")
def output(job_id: Any, stream: str | None, output: Path | None) -> None:
    """What the job wrote, byte for byte: its stdout to stdout, its stderr to stderr."""
    if output is not None and stream is None:
        raise UsageTrouble("A file takes one stream: add --stream stdout or --stream stderr.")
    api = Api(current())
    if output is not None and stream is not None:
        _save(api, job_id, stream, output)
        return
    if current().as_json:
        printing.as_json({name: _as_document(api, job_id, name) for name in ([stream] if stream else STREAMS)})
        return
    for name in [stream] if stream else STREAMS:
        _copy(api, job_id, name, "stdout" if stream else name)


def _copy(api: Api, job_id: Any, stream: str, target: str) -> None:
    sink = Sink()
    with api.download(f"/api/jobs/{job_id}/output", {"stream": stream}) as answer:
        first = int(answer.headers.get("X-First-Offset", 0))
        if first:
            sink.gap(stream, first)
        try:
            for piece in answer.iter_content(64 * 1024):
                sink.write(target, piece)
        except requests.exceptions.RequestException as error:
            raise unreachable(api.url, error) from None
    sink.close()


def _as_document(api: Api, job_id: Any, stream: str) -> dict[str, Any]:
    """`text` is for people; `base64` has every byte."""
    answer = api.call("GET", f"/api/jobs/{job_id}/output", params={"stream": stream})
    return {
        "first_offset": int(answer.headers.get("X-First-Offset", 0)),
        "total_bytes": int(answer.headers.get("X-Total-Bytes", len(answer.content))),
        "text": answer.content.decode("utf-8", "replace"),
        "base64": base64.b64encode(answer.content).decode(),
    }


def _save(api: Api, job_id: Any, stream: str, path: Path) -> None:
    content = api.call("GET", f"/api/jobs/{job_id}/output", params={"stream": stream}).content
    try:
        path.write_bytes(content)
    except OSError as error:
        raise Trouble(f"{path} cannot be written: {error.strerror}.", code="not_writable") from None
    if current().as_json:
        printing.as_json({"file": str(path), "stream": stream, "bytes": len(content)})
    else:
        printing.note(f"{len(content):,} bytes in {path}.")
