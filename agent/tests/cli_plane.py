"""The control plane as the command line sees it, in this process: people's logins, nodes, presets, jobs and their streams."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

ROOT = Path(__file__).resolve().parents[2]
EMAIL, PASSWORD = "otto@example.com", "correct horse battery staple"


def token(kind: str, *, seconds: float = 900) -> str:
    """In the form of a JWT; only its times matter here."""
    now = time.time()
    claims = {"iat": now, "exp": now + seconds, "jti": uuid.uuid4().hex}
    return f"{kind}." + base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode() + ".signature"


def node(node_id: str, **over: Any) -> dict[str, Any]:
    return {
        "node_id": node_id, "display_name": "", "group": "", "tags": [], "notes": "", "region": "", "os": "Debian 12",
        "status": "ONLINE", "reasons": [], "agent_version": "0.1.0", "last_seen_at": "2026-01-01T00:00:00Z",
        "metrics": {"cpu_percent": 3.2, "memory_percent": 40.0, "disk_percent": None}, "inventory": {}, **over,
    }  # fmt: skip


def job(node_id: str = "web-1", **over: Any) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()), "node_id": node_id, "preset": "motd", "revision": "0" * 64, "mode": "apply",
        "status": "SUCCEEDED", "reason": None, "phase": None, "phases": [], "changed": True, "exit_code": 0,
        "signal": None, "outcome_unknown": False, "created_by": EMAIL, "created_at": "2026-01-01T00:00:00Z",
        "started_at": "2026-01-01T00:00:01Z", "finished_at": "2026-01-01T00:00:03Z", "cancel_requested_at": None,
        "stdout_bytes": 0, "stderr_bytes": 0, "stdout_first_offset": 0, "stderr_first_offset": 0, "retry_of": None,
        "batch": None, "variables": {}, "script": "echo hi\n", **over,
    }  # fmt: skip


class Refusal(Exception):
    def __init__(self, status: int, code: str, message: str, *, fields: Any = None, **headers: str) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers
        self.body = {"error": {"code": code, "message": message, "fields": fields or {}, "detail": {}}}


class Cut(Exception):
    """The connection ends here."""


class Plane:
    """`streams` and `outputs` are by job; `cut(sent)` is asked after every piece of a stream whether the line breaks."""

    def __init__(self) -> None:
        self.nodes = {"web-1": node("web-1", tags=["web"]), "db-1": node("db-1", status="OFFLINE", group="acme")}
        self.presets = {"motd": {"name": "motd", "risk": "safe"}}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.streams: dict[str, list[tuple[str, bytes]]] = {}
        self.first: dict[str, int] = {"stdout": 0, "stderr": 0}
        self.cut: Callable[[int], bool] = lambda sent: False
        self.before: Callable[[str, str], None] = lambda method, path: None
        self.access: set[str] = set()
        self.refresh = ""
        self.family_is_dead = False
        self.refreshes = 0
        self.role = "operator"
        self.verdict: Any = {}
        self.log: list[bytes] = []  # pieces of the audit's export
        self.warnings: list[str] = []
        self.stopped: str | None = None  # why batches are cut short
        self.failed = 1  # jobs of each batch
        self.needs_otp = ""  # or the code of the error when it is missing
        self.seen: list[tuple[str, str, Any, dict[str, str]]] = []
        plane = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                plane._serve(self)

            do_POST = do_PATCH = do_DELETE = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add_job(self, pieces: list[tuple[str, bytes]], **over: Any) -> str:
        """A job that wrote these pieces, in this order."""
        made = job(**over)
        self.jobs[made["id"]], self.streams[made["id"]] = made, pieces
        for stream in ("stdout", "stderr"):
            made[f"{stream}_bytes"] = len(self.whole(made["id"], stream))
            made[f"{stream}_first_offset"] = self.first[stream]
        return str(made["id"])

    def whole(self, job_id: str, stream: str) -> bytes:
        return b"".join(data for name, data in self.streams[job_id] if name == stream)

    def bodies(self, method: str, path: str) -> list[Any]:
        return [body for seen_method, seen, body, _ in self.seen if (seen_method, seen) == (method, path)]

    # --- HTTP ---

    def _serve(self, http: BaseHTTPRequestHandler) -> None:
        url = urlsplit(http.path)
        body = json.loads(http.rfile.read(int(http.headers.get("Content-Length") or 0)) or b"{}")
        self.seen.append((http.command, url.path, body, dict(http.headers)))
        query = {name: values for name, values in parse_qs(url.query).items()}
        try:
            self.before(http.command, url.path)
            if not url.path.startswith(("/api/auth/login", "/api/auth/refresh")):
                self._check(http)
            if url.path.endswith("/stream"):
                self._stream(http, url.path.split("/")[3])
            elif url.path == "/api/audit/export":
                self._export(http)
            elif url.path.endswith("/output"):
                self._output(http, url.path.split("/")[3], query["stream"][0])
            else:
                self._answer(http, *self._route(http.command, url.path.split("/")[2:], query, body))
        except Refusal as refusal:
            self._answer(http, refusal.status, refusal.body, refusal.headers)
        except Cut:
            http.close_connection = True

    def _check(self, http: BaseHTTPRequestHandler) -> None:
        if http.headers.get("Authorization", "").partition(" ")[2] not in self.access:
            raise Refusal(401, "not_authenticated", "Log in first, or send a valid token.")

    @staticmethod
    def _answer(http: BaseHTTPRequestHandler, status: int, body: Any, headers: Any = None) -> None:
        raw = b"" if body is None else json.dumps(body).encode()
        http.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), **(headers or {})}.items():
            http.send_header(name.replace("_", "-"), value)
        http.end_headers()
        http.wfile.write(raw)

    def _route(self, method: str, parts: list[str], query: Any, body: Any) -> tuple[int, Any]:
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("POST", "auth"): self._auth, ("GET", "auth"): self._auth, ("GET", "nodes"): self._get_nodes,
            ("PATCH", "nodes"): self._patch_node, ("DELETE", "nodes"): lambda *_: (204, None),
            ("GET", "presets"): self._get_presets, ("POST", "presets"): self._render,
            ("GET", "jobs"): self._get_jobs, ("POST", "jobs"): self._post_jobs,
            ("GET", "audit"): lambda *_: (200, self.verdict),
        }  # fmt: skip
        if (method, parts[0]) not in known:
            raise Refusal(404, "not_found", "There is no such address in this API.")
        return known[method, parts[0]](parts[1:], query, body)  # type: ignore[no-any-return]

    def _pair(self) -> dict[str, str]:
        access = token("access")
        self.access.add(access)
        self.refresh = token("refresh")
        return {"access": access, "refresh": self.refresh}

    def _auth(self, parts: list[str], _query: Any, body: Any) -> tuple[int, Any]:
        user = {"id": "1", "email": EMAIL, "role": self.role}
        if parts[0] == "login":
            if body["password"] != PASSWORD:
                raise Refusal(401, "wrong_credentials", "The e-mail address or the password is not right.")
            if self.needs_otp and body.get("otp") != "123456":
                raise Refusal(401, self.needs_otp, "A one-time code is needed.")
            return 200, {**self._pair(), "user": user}
        if parts[0] == "refresh":
            self.refreshes += 1
            if self.family_is_dead or body["refresh"] != self.refresh:
                self.family_is_dead = True
                raise Refusal(401, "refresh_token_invalid", "This refresh token is not valid any more. Log in again.")
            return 200, self._pair()
        return (200, user) if parts[0] == "me" else (204, None)

    def _get_nodes(self, parts: list[str], query: Any, _body: Any) -> tuple[int, Any]:
        if parts:
            if parts[0] not in self.nodes:
                raise Refusal(404, "unknown_node", "There is no node by that name.")
            return 200, self.nodes[parts[0]]
        found = [each for each in self.nodes.values() if query.get("tag", [None])[0] in (None, *each["tags"])]
        if "status" in query:
            wanted = [part for text in query["status"] for part in text.split(",")]
            found = [each for each in found if each["status"] in wanted]
        return 200, self._page(found, query)

    @staticmethod
    def _page(found: list[Any], query: Any) -> dict[str, Any]:
        page, size = int(query.get("page", ["1"])[0]), int(query.get("page_size", ["50"])[0])
        assert 1 <= size <= 200
        rows = found[(page - 1) * size : page * size]
        more = "yes" if page * size < len(found) else None
        return {"count": len(found), "next": more, "previous": None, "results": rows}

    def _patch_node(self, parts: list[str], _query: Any, body: Any) -> tuple[int, Any]:
        self.nodes[parts[0]].update(body)
        return 200, self.nodes[parts[0]]

    def _get_presets(self, parts: list[str], query: Any, _body: Any) -> tuple[int, Any]:
        if not parts:
            if query:
                raise Refusal(
                    400, "invalid_input", "Unknown field.", fields={name: ["Unknown field."] for name in query}
                )
            return 200, self._page(list(self.presets.values()), query)
        if parts[0] not in self.presets:
            raise Refusal(404, "unknown_preset", f"There is no preset “{parts[0]}”.")
        return 200, self.presets[parts[0]]

    def _render(self, parts: list[str], _query: Any, _body: Any) -> tuple[int, Any]:
        return 200, {"script": "#!/bin/bash\n", "sha256": "0" * 64, "revision": "0" * 64, "warnings": self.warnings}

    def _get_jobs(self, parts: list[str], query: Any, _body: Any) -> tuple[int, Any]:
        if parts and parts[0] == "batches":
            if not any(each["batch"] == parts[1] for each in self.jobs.values()):
                raise Refusal(404, "unknown_batch", "There is no batch with that id.")
            return 200, {
                "id": parts[1],
                "preset": "motd",
                "stopped_because": self.stopped,
                "counts": {"FAILED": self.failed},
            }
        if parts:
            if parts[0] not in self.jobs:
                raise Refusal(404, "unknown_job", "There is no job with that id.")
            return 200, self.jobs[parts[0]]
        batch = query.get("batch", [None])[0]
        found = [each for each in self.jobs.values() if batch in (None, each["batch"])]
        return 200, self._page(found, query)

    def _post_jobs(self, parts: list[str], _query: Any, body: Any) -> tuple[int, Any]:
        if len(parts) == 3:
            return self._post_batch(parts[1], parts[2])
        if len(parts) == 2:
            return 200, self.jobs[parts[0]]
        wanted = body["node_ids"] if parts == ["batches"] else [body["node_id"]]
        unknown = [name for name in wanted if name not in self.nodes]
        if unknown:
            raise Refusal(
                400,
                "invalid_input",
                "Some of it cannot be used.",
                fields={"node_id": [f"There is no node “{unknown[0]}”."]},
            )
        batch = str(uuid.uuid4()) if parts else None
        made = [
            self.jobs[self.add_job([("stdout", f"on {name}\n".encode())], node_id=name, batch=batch)] for name in wanted
        ]
        return (201, {"id": batch, "jobs": made}) if parts else (201, made[0])

    def _post_batch(self, batch: str, verb: str) -> tuple[int, Any]:
        found = [each for each in self.jobs.values() if each["batch"] == batch]
        if not found:
            raise Refusal(404, "unknown_batch", "There is no batch with that id.")
        if verb == "retry":
            made = [self.add_job([], node_id=each["node_id"], batch=str(uuid.uuid4())) for each in found[:1]]
            return 201, {"id": self.jobs[made[0]]["batch"], "jobs": [self.jobs[made[0]]]}
        return 200, {"id": batch, "counts": {"CANCELLED": len(found), "RUNNING": 0}, "stopped_because": None}

    # --- output ---

    def _output(self, http: BaseHTTPRequestHandler, job_id: str, stream: str) -> None:
        first = self.first[stream]
        data, status = self.whole(job_id, stream)[first:], 200
        if http.headers.get("Range"):
            start, end = http.headers["Range"].removeprefix("bytes=").split("-")
            if int(start) >= len(data):
                raise Refusal(416, "range_not_satisfiable", "The requested range begins past the end of the output.")
            data, status = data[int(start) : int(end) + 1], 206
        http.send_response(status)
        for name, value in {
            "Content-Length": len(data),
            "X-First-Offset": first,
            "X-Total-Bytes": first + len(data),
        }.items():
            http.send_header(name, str(value))
        http.end_headers()
        http.wfile.write(data)

    def _export(self, http: BaseHTTPRequestHandler) -> None:
        http.send_response(200)
        http.send_header("Transfer-Encoding", "chunked")
        http.end_headers()
        for number, piece in enumerate(self.log):
            if self.cut(number):
                raise Cut
            http.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        http.wfile.write(b"0\r\n\r\n")

    def _stream(self, http: BaseHTTPRequestHandler, job_id: str) -> None:
        """As the server does: decoded text at true offsets, half a character waits, `done` at the end."""
        at = dict(part.split(":") for part in http.headers.get("Last-Event-ID", "stdout:0,stderr:0").split(","))
        http.send_response(200)
        http.send_header("Transfer-Encoding", "chunked")
        http.end_headers()
        state = {name: self.jobs[job_id][name] for name in _STATE}
        sent = self._put(http, 0, "status", {**state, "status": "RUNNING"})
        passed = {"stdout": 0, "stderr": 0}
        for stream, data in self.streams[job_id]:
            end = passed[stream] + len(data)
            start = max(passed[stream], int(at[stream]), self.first[stream])
            passed[stream] = end
            if start < end:
                text = data[len(data) - (end - start) :].decode("utf-8", "replace")
                sent = self._put(http, sent, stream, {"offset": start, "next_offset": end, "text": text})
        self._put(http, sent, "done", state)
        http.wfile.write(b"0\r\n\r\n")

    def _put(self, http: BaseHTTPRequestHandler, sent: int, name: str, data: Any) -> int:
        raw = f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
        half = len(raw) // 2
        for piece in (raw[:half], raw[half:]):
            if self.cut(sent):
                raise Cut
            http.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            sent += len(piece)
        return sent


_STATE = (
    "id",
    "status",
    "reason",
    "phases",
    "changed",
    "exit_code",
    "signal",
    "outcome_unknown",
    "started_at",
    "finished_at",
)


class Shell:
    """Runs `hyprbox` as somebody with a home of their own."""

    def __init__(self, plane: Plane, home: Path) -> None:
        self.plane, self.home = plane, home
        self.more: dict[str, str] = {}

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"], "HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_CACHE_HOME": str(self.home / "cache"), "LANG": "C.UTF-8",
            "HYPRBOX_STATE_DIR": str(self.home / "state"), **self.more,
        }  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        if (
            signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        ):  # in the background of a shell; the child would inherit it
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return subprocess.Popen(
            [sys.executable, "-m", "agent.cli", *arguments], cwd=ROOT, env=self.environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    @property
    def saved(self) -> Path:
        return self.home / "config" / "hyprbox" / "login.json"

    def save_login(self, *, seconds: float = 900) -> None:
        """As after a login whose access token lasts that long."""
        pair = self.plane._pair()
        entry = {"email": EMAIL, **pair, "access_until": time.time() + seconds}
        self.saved.parent.mkdir(parents=True, exist_ok=True)
        self.saved.write_text(json.dumps({"current": self.plane.url, "logins": {self.plane.url: entry}}))

    def tokens(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError, ValueError):
            entries = json.loads(self.saved.read_text())["logins"].values()
            return [entry[name] for entry in entries for name in ("access", "refresh")]
        return []
