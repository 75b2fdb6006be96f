"""Running a preset on this very machine, without a server: the agent's own runner does it.

What is missing here is what the server brings: queue, signature, audit and the kept output. `agent.cli.record` notes who ran what.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent import config, processes, secretrefs
from agent.cli import record
from agent.cli.exits import FORBIDDEN, NEVER_RAN, NOT_FOUND, USAGE, Trouble
from agent.cli.sinks import Sink
from agent.delivery import cut_short, start_runner
from agent.journal import JobFolder
from agent.spool import STREAMS, SpoolReader
from agent.wire import OUTPUT_CAP, now_text
from presets import catalogue, params, rendering

NODE = "local"
LOOK_SECONDS = 0.02
GONE_SECONDS = 2.0
READ_BYTES = 256 * 1024


def find(name: str) -> Any:
    """A preset that comes with HyprBox."""
    preset = catalogue.find(name)
    if preset is None:
        known = ", ".join(catalogue.builtin())
        raise Trouble(
            f"There is no built-in preset “{name[:63]}”; there are: {known}.",
            code="unknown_preset",
            exit_code=NOT_FOUND,
        )
    return preset


def render(preset: Any, values: Mapping[str, Any]) -> rendering.Rendered:
    try:
        return rendering.render(preset, values)
    except params.InvalidVariables as error:
        raise Trouble(str(error), code="invalid_input", exit_code=USAGE, fields=error.fields) from None


def prepare(preset: Any, values: Mapping[str, Any], *, mode: str) -> rendering.Rendered:
    """Everything that can be wrong, before anything runs. Raises `Trouble`."""
    rendered = render(preset, values)
    if mode == "check" and "check" not in rendered.parts:
        raise Trouble(f"{preset.name} has no check, so it can only be applied.", code="invalid_input", exit_code=USAGE)
    if not Path("/bin/bash").exists():
        raise Trouble("/bin/bash is missing; presets need it.", code="no_bash")
    # A check that may not read everything would say that things are not as wanted, so root is for that too.
    if preset.risk != "safe" and os.geteuid() != 0:
        raise Trouble(
            f"{preset.name} changes this system and must run as root: sudo hyprbox preset apply ...",
            code="root_needed",
            exit_code=FORBIDDEN,
        )
    return rendered


def run(
    preset: Any,
    rendered: rendering.Rendered,
    *,
    mode: str,
    timeout_seconds: int | None,
    sink: Sink | None,
    allow_background: bool = False,
) -> dict[str, Any]:
    """The job as it ended, in the form of the API. Ctrl-C cancels it, as the agent would.

    When whoever reads the output goes away the job runs to its end all the same, and `BrokenPipeError` is raised then.
    """
    secrets = _secrets(rendered.secrets)
    seconds = timeout_seconds or preset.timeout_seconds
    with _scratch() as folder:
        payload = _payload(folder, preset, rendered, mode, seconds, allow_background)
        folder.write("intent", {"payload": base64.b64encode(payload).decode()})
        begun = {
            "id": folder.job_id,
            "preset": preset.name,
            "revision": rendered.revision,
            "mode": mode,
            "script_sha256": rendered.sha256,
        }
        record.begin(begun)
        try:
            run = _Run(folder, secrets, sink)
            result = run.until_it_ends()
        except Trouble:
            record.end({**begun, "status": "FAILED", "reason": "agent_error"})
            raise
        ended = {key: value for key, value in result.items() if key != "output_detached"}
        job = {**begun, "node_id": NODE, **ended, "status": str(result["status"]).upper()}
        record.end(job)
        if run.reader_is_gone:
            raise BrokenPipeError
        if sink is None:
            job.update({stream: run.kept(index) for index, stream in enumerate(STREAMS)})
        return job


def _secrets(pointers: Mapping[str, str]) -> dict[str, str]:
    if not pointers:
        return {}
    try:
        return secretrefs.resolve(pointers, os.environ, env_file=config.ENV_FILE)
    except (secretrefs.Unresolved, config.BadSetting) as error:
        raise Trouble(f"{error}. Nothing was run.", code="secret_unresolved", exit_code=NEVER_RAN) from None


@contextlib.contextmanager
def _scratch() -> Iterator[JobFolder]:
    """A folder for one job, 0700; nothing of it stays."""
    root = Path(tempfile.mkdtemp(prefix="hyprbox-local-"))
    folder = JobFolder(root / str(uuid.uuid4()))
    try:
        try:
            folder.create()
            folder.reserve()
        except OSError as error:
            raise Trouble(f"{root} has no room for the job: {error.strerror}.", code="no_room") from None
        yield folder
    finally:
        cgroup = (folder.read("exec") or {}).get("cgroup")
        if cgroup:
            processes.remove_cgroup(Path(cgroup))
        shutil.rmtree(root, ignore_errors=True)


def _payload(
    folder: JobFolder, preset: Any, rendered: rendering.Rendered, mode: str, seconds: int, allow_background: bool
) -> bytes:
    """What an agent would get, but for the signature: it comes from this very process."""
    now = now_text()
    document = {
        "v": 1,
        "job_id": folder.job_id,
        "node_id": NODE,
        "mode": mode,
        "script": base64.b64encode(rendered.script).decode(),
        "script_sha256": rendered.sha256,
        "timeout_seconds": seconds,
        "created_at": now,
        "expires_at": now,
        "nonce": "",
        "environment": {},
        "secrets": dict(rendered.secrets),
        "preset": preset.name,
        "revision": rendered.revision,
        "parts": list(rendered.parts),
        "key_id": "",
        "allow_background": allow_background,
    }
    return json.dumps(document).encode()


class _Run:
    reader_is_gone = False

    def __init__(self, folder: JobFolder, secrets: Mapping[str, str], sink: Sink | None) -> None:
        self._folder, self._sink = folder, sink
        self._reader = SpoolReader(folder.path)
        self._at = [0, 0]
        with _cancelling(folder):
            self._runner = start_runner(folder, {"secrets": dict(secrets)})

    def until_it_ends(self) -> dict[str, Any]:
        with _cancelling(self._folder):
            result = self._wait()
        self._take_output()
        with self._if_read():
            if self._sink is not None:
                self._sink.close()
        with contextlib.suppress(Exception):
            self._runner.wait(GONE_SECONDS)
        return result

    def _wait(self) -> dict[str, Any]:
        while True:
            is_over = self._runner.poll() is not None
            result = self._folder.read("result")
            if result is not None:
                return result
            if is_over:
                return self._died()
            if not self._take_output():
                time.sleep(LOOK_SECONDS)

    def _died(self) -> dict[str, Any]:
        if self._folder.may_have_run:
            record = self._folder.read("exec") or {}
            left = processes.with_environment("HYPRBOX_JOB_ID", self._folder.job_id)
            if record.get("cgroup"):
                processes.kill_cgroup(Path(record["cgroup"]))
            processes.signal_all(left, signal.SIGKILL)
            return cut_short(self._folder, "runner_killed")
        with contextlib.suppress(OSError):
            sys.stderr.write((self._folder.path / "runner.log").read_text(errors="replace"))
        raise Trouble("The runner did not start. Nothing was run.", code="agent_error", exit_code=NEVER_RAN)

    def _take_output(self) -> bool:
        """Pass on what is new; whether there was anything."""
        with self._if_read():
            return self._pass_on()
        return False

    @contextlib.contextmanager
    def _if_read(self) -> Iterator[None]:
        """Nothing is passed on any more once nobody reads it: the job is not for the reader, and must not be cut short."""
        try:
            yield
        except BrokenPipeError:
            self._sink, self.reader_is_gone = None, True

    def _pass_on(self) -> bool:
        if self._sink is None:
            return False
        took = False
        for stream, name in enumerate(STREAMS):
            while True:
                at, data = self._reader.read(stream, self._at[stream], READ_BYTES)
                if not data:
                    break
                if at > self._at[stream]:
                    self._sink.gap(name, at - self._at[stream])
                self._sink.write(name, data)
                self._at[stream], took = at + len(data), True
        return took

    def kept(self, stream: int) -> str:
        """What is kept of a stream at the end, as text."""
        total = self._reader.progress()[0][stream]
        return self._reader.read(stream, max(0, total - OUTPUT_CAP), OUTPUT_CAP)[1].decode("utf-8", "replace")


@contextlib.contextmanager
def _cancelling(folder: JobFolder) -> Iterator[None]:
    """Ctrl-C, a hang-up or SIGTERM ask the runner to end the job; we wait for it, so that nothing is left half done."""

    def cancel(_number: int, _frame: Any) -> None:
        folder.request_cancel()

    before = {number: signal.signal(number, cancel) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
