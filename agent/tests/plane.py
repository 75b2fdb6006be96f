"""A small control plane in this process: the agent's contract over real HTTP, with faults on demand. No Django."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from nacl.signing import SigningKey

from agent.tests.ports import free_port

CAP = 4 * 1024 * 1024
STREAMS = ("stdout", "stderr")
TOKEN = "hbnt_" + "a1b2c3d4" + "x" * 43


def iso(at: datetime) -> str:
    return at.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def render(parts: dict[str, str]) -> bytes:
    """The form of a rendered script: functions, and a `case` on the first argument."""
    lines = ["# a job", "set -euo pipefail"]
    for name, body in parts.items():
        lines += [f"hb_{name}() {{", body, "}"]
    lines += ['case "${1:-}" in', *(f"  {name}) hb_{name} ;;" for name in parts), "  *) exit 64 ;;", "esac", ""]
    return "\n".join(lines).encode()


def canonical(version: int, keys: list[dict[str, Any]]) -> bytes:
    ordered = sorted(keys, key=lambda key: key["key_id"])
    return json.dumps({"keys": ordered, "version": version}, sort_keys=True, separators=(",", ":")).encode()


class Signer:
    def __init__(self) -> None:
        self.key = SigningKey.generate()
        public = bytes(self.key.verify_key)
        self.key_id = hashlib.sha256(public).hexdigest()[:16]
        self.public_key = base64.b64encode(public).decode()

    def sign(self, message: bytes) -> str:
        return base64.b64encode(self.key.sign(message).signature).decode()

    def entry(self, retired: bool = False) -> dict[str, Any]:
        return {"key_id": self.key_id, "public_key": self.public_key, "retired": retired}


def key_set(version: int, keys: list[dict[str, Any]], signer: Signer) -> dict[str, Any]:
    signature = signer.sign(b"hyprbox-keys-v1\0" + canonical(version, keys))
    return {"version": version, "keys": keys, "signed_by": signer.key_id, "signature": signature}


def make_payload(node_id: str, key_id: str, script: bytes, parts: list[str], **over: Any) -> dict[str, Any]:
    now = datetime.now(timezone.utc)
    return {
        "v": 1,
        "job_id": str(uuid.uuid4()),
        "node_id": node_id,
        "mode": "apply",
        "script": base64.b64encode(script).decode(),
        "script_sha256": hashlib.sha256(script).hexdigest(),
        "timeout_seconds": 60,
        "created_at": iso(now),
        "expires_at": iso(now + timedelta(hours=1)),
        "nonce": "0" * 32,
        "environment": {},
        "secrets": {},
        "preset": "test",
        "revision": "r1",
        "parts": parts,
        "key_id": key_id,
        **over,
    }


def encode(payload: dict[str, Any]) -> bytes:
    return json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()


@dataclass
class Stored:
    """One stream as the server keeps it."""

    data: bytearray = field(default_factory=bytearray)
    first: int = 0

    @property
    def total(self) -> int:
        return self.first + len(self.data)

    def trim(self) -> None:
        over = len(self.data) - CAP
        if over > 0:
            del self.data[:over]
            self.first += over


@dataclass
class Job:
    id: str
    payload: bytes
    signature: str
    key_id: str
    status: str = "QUEUED"
    claim_id: str | None = None
    request_id: str | None = None
    lease_until: float = 0.0
    cancel_requested: bool = False
    streams: dict[str, Stored] = field(default_factory=lambda: {name: Stored() for name in STREAMS})
    result: dict[str, Any] | None = None
    first_output_at: float = 0.0
    queued_at: float = 0.0
    phases_seen: list[str] = field(default_factory=list)
    output_calls: int = 0
    offer_over: dict[str, Any] = field(default_factory=dict)  # what its offer says instead of what it should

    @property
    def is_over(self) -> bool:
        return self.status in ("SUCCEEDED", "FAILED", "CANCELLED")


class Refusal(Exception):
    def __init__(self, status: int, code: str, **detail: Any) -> None:
        super().__init__(code)
        self.status, self.code, self.detail = status, code, detail


class Plane:
    """`fault(verb)` may answer drop_before, drop_after, twice, a status such as "503", or None.

    Or "page 404": what a proxy says for itself, of which we hear nothing.
    """

    def __init__(self, node_id: str = "web-1") -> None:
        self.node_id = node_id
        self.token = TOKEN
        self.signer = Signer()
        self.keys = key_set(1, [self.signer.entry()], self.signer)
        self.jobs: dict[str, Job] = {}
        self.heartbeats: list[dict[str, Any]] = []
        self.calls: list[tuple[str, int]] = []
        self.fault: Callable[[str], str | None] = lambda verb: None
        self.extra: dict[str, Any] = {}
        self.unknown_fields: set[str] = set()  # of heartbeats, for an older control plane
        self.clock_shift = timedelta()
        self.claim_lease = 30.0
        self.send_after_ms = 1500
        self.changed = threading.Condition()
        self.server: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    # -- life

    def start(self) -> None:
        plane = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                plane.handle(self)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: Any) -> None:
                pass  # an agent that was killed

        self.server = Server(("127.0.0.1", self.port or free_port()), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        assert self.server is not None
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def keys_sha256(self) -> str:
        return hashlib.sha256(canonical(self.keys["version"], self.keys["keys"])).hexdigest()

    # -- what tests do

    def queue(
        self, parts: dict[str, str], *, node_id: str | None = None, script: bytes | None = None, **over: Any
    ) -> Job:
        body = render(parts) if script is None else script
        payload = make_payload(node_id or self.node_id, self.signer.key_id, body, list(parts), **over)
        return self.queue_payload(payload)

    def queue_payload(self, payload: dict[str, Any], *, signer: Signer | None = None, job_id: str = "") -> Job:
        signer = signer or self.signer
        raw = encode(payload)
        job = Job(job_id or payload["job_id"], raw, signer.sign(b"hyprbox-job-v1\0" + raw), signer.key_id)
        return self.put(job)

    def put(self, job: Job) -> Job:
        with self.changed:
            job.queued_at = time.monotonic()
            self.jobs[job.id] = job
            self.changed.notify_all()
        return job

    def cancel(self, job: Job) -> None:
        with self.changed:
            job.cancel_requested = True
            self.changed.notify_all()

    def wait(self, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        """The condition's value once it is true; fails after `seconds`."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while not (value := condition()):
                left = deadline - time.monotonic()
                assert left > 0, f"waited {seconds} s in vain; calls so far: {self.calls[-20:]}"
                self.changed.wait(min(left, 0.1))
        return value

    def finished(self, job: Job, seconds: float = 20.0) -> Job:
        self.wait(lambda: job.is_over, seconds)
        return job

    # -- HTTP

    def handle(self, http: BaseHTTPRequestHandler) -> None:
        length = int(http.headers.get("Content-Length") or 0)
        raw = http.rfile.read(length)
        url = urlsplit(http.path)
        verb = url.path.rsplit("/", 1)[-1]
        fault = self.fault(verb)
        if fault == "drop_before":
            http.close_connection = True
            return
        if fault and fault.isdigit():
            self._send(
                http, int(fault), {"error": {"code": "unavailable", "message": "no", "fields": {}, "detail": {}}}
            )
            return
        if fault and fault.startswith("page "):
            self._send_raw(http, int(fault[5:]), b"<html>not here</html>" if fault != "page 200" else b"", "text/html")
            return
        for _ in range(2 if fault == "twice" else 1):
            try:
                status, body = self.route(http, url.path, parse_qs(url.query), json.loads(raw) if raw else {})
            except Refusal as error:
                status = error.status
                body = {"error": {"code": error.code, "message": error.code, "fields": {}, "detail": error.detail}}
        with self.changed:
            self.calls.append((verb, status))
            self.changed.notify_all()
        if fault == "drop_after":
            http.close_connection = True
            return
        self._send(http, status, body)

    def _send(self, http: BaseHTTPRequestHandler, status: int, body: dict[str, Any]) -> None:
        self._send_raw(http, status, json.dumps(body).encode())

    def _send_raw(self, http: BaseHTTPRequestHandler, status: int, raw: bytes, kind: str = "application/json") -> None:
        http.send_response(status)
        http.send_header("Content-Type", kind)
        http.send_header("Content-Length", str(len(raw)))
        for name, value in self.extra.get("headers", {}).items():
            http.send_header(name, value)
        http.end_headers()
        http.wfile.write(raw)

    def route(
        self, http: Any, path: str, query: dict[str, list[str]], body: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        if path == "/api/agent/keys":
            return 200, self.keys
        if http.headers.get("Authorization") != f"Bearer {self.token}":
            raise Refusal(401, "not_authenticated")
        if path == "/api/nodes/heartbeat":
            if self.unknown_fields & set(body):
                raise Refusal(400, "invalid_input")
            with self.changed:
                self.heartbeats.append(body)
            return 202, {
                "server_time": iso(datetime.now(timezone.utc) + self.clock_shift),
                "work_waiting": False,
                **self.extra.get("heartbeat", {}),
            }
        if path == "/api/jobs/pending":
            return 200, self._pending({name: values[0] for name, values in query.items()}, http)
        _, _, _, job_id, verb = path.split("/")
        with self.changed:
            return 200, getattr(self, f"_{verb}")(self._own(job_id, body["claim_id"]), body)

    def _pending(self, query: dict[str, str], http: Any) -> dict[str, Any]:
        deadline = time.monotonic() + float(query["wait"])
        with self.changed:
            while True:
                claimed = self._claim(query["request_id"])
                cancels = [job.id for job in self.jobs.values() if job.status == "RUNNING" and job.cancel_requested]
                left = deadline - time.monotonic()
                if claimed or cancels or left <= 0 or query["reconcile"] == "1":
                    break
                self.changed.wait(min(left, 0.2))
            body: dict[str, Any] = {"job": claimed, "cancel": cancels, "poll_after_ms": 500 if cancels else 0}
            if query["reconcile"] == "1":
                body["holding"] = [
                    {
                        "id": job.id,
                        "claim_id": job.claim_id,
                        "status": job.status,
                        "cancel_requested": job.cancel_requested,
                    }
                    for job in self.jobs.values()
                    if job.claim_id and not job.is_over
                ]
            return body

    def _claim(self, request_id: str) -> dict[str, Any] | None:
        running = any(job.status == "RUNNING" for job in self.jobs.values())
        for job in self.jobs.values():
            if job.request_id == request_id and not job.is_over:
                return self._offer(job)
        for job in self.jobs.values():
            is_free = job.claim_id is None or job.lease_until < time.monotonic()
            if job.status == "QUEUED" and is_free and not running:
                job.claim_id, job.request_id = str(uuid.uuid4()), request_id
                job.lease_until = time.monotonic() + self.claim_lease
                return self._offer(job)
        return None

    def _offer(self, job: Job) -> dict[str, Any]:
        return {
            "id": job.id,
            "claim_id": job.claim_id,
            "payload": base64.b64encode(job.payload).decode(),
            "signature": job.signature,
            "key_id": job.key_id,
            "lease_seconds": self.claim_lease,
            **job.offer_over,
        }

    def _own(self, job_id: str, claim_id: str) -> Job:
        job = self.jobs.get(job_id)
        if job is None:
            raise Refusal(404, "unknown_job")
        if job.claim_id != claim_id:
            raise Refusal(409, "stale_claim")
        return job

    def _start(self, job: Job, body: dict[str, Any]) -> dict[str, Any]:
        if job.is_over:
            raise Refusal(409, "job_finished")
        job.status = "RUNNING"
        return {"lease_seconds": 60}

    def _output(self, job: Job, body: dict[str, Any]) -> dict[str, Any]:
        if job.is_over:
            raise Refusal(409, "job_finished")
        if job.status == "QUEUED":
            raise Refusal(409, "job_not_started")
        job.output_calls += 1
        if body["phase"] and body["phase"] not in job.phases_seen:
            job.phases_seen.append(body["phase"])
        offsets = {name: stored.total for name, stored in job.streams.items()}
        for chunk in body["chunks"]:
            assert set(chunk) <= {"stream", "offset", "data", "skipped"}
            data = base64.b64decode(chunk["data"], validate=True)
            assert len(data) <= 256 * 1024
            self._append(job, job.streams[chunk["stream"]], chunk, data, offsets)
        if body["chunks"] and not job.first_output_at:
            job.first_output_at = time.monotonic()
        return {
            "next_offset": {name: stored.total for name, stored in job.streams.items()},
            "cancel_requested": job.cancel_requested,
            "lease_seconds": 60,
            "send_after_ms": self.send_after_ms,
        }

    def _append(self, job: Job, stored: Stored, chunk: dict[str, Any], data: bytes, before: dict[str, int]) -> None:
        offset = chunk["offset"]
        if offset > stored.total:
            if not chunk.get("skipped"):
                raise Refusal(416, "output_gap", next_offset=before)
            stored.data, stored.first = bytearray(), offset
        overlap = stored.total - offset
        start = max(offset, stored.first)
        known = bytes(stored.data[start - stored.first : offset - stored.first + len(data)])
        if known != data[start - offset : start - offset + len(known)]:
            raise Refusal(409, "output_conflict", stream=chunk["stream"], offset=offset)
        stored.data += data[max(0, overlap) :]
        stored.trim()

    def _complete(self, job: Job, body: dict[str, Any]) -> dict[str, Any]:
        result = {name: value for name, value in body.items() if name != "claim_id"}
        if job.result is not None:
            if job.result != result:
                raise Refusal(409, "completion_differs")
            return {"id": job.id}
        if job.status == "QUEUED" and result["reason"] not in (
            "signature_invalid",
            "refused",
            "secret_unresolved",
            "clock_skew",
        ):
            raise Refusal(409, "job_not_started")
        for name, stored in job.streams.items():
            total = result[f"{name}_bytes"]
            if stored.total != total or stored.first > max(0, total - CAP):
                raise Refusal(409, "missing_output", next_offset={n: s.total for n, s in job.streams.items()})
            assert len(result[f"{name}_sha256"]) == 64
        job.result = result
        job.status = result["status"].upper()
        return {"id": job.id}
