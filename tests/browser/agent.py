"""An agent made of single calls, so that a test decides when each line of output arrives."""

from __future__ import annotations

import base64
import hashlib
import uuid
from datetime import UTC, datetime
from typing import Any

import httpx


class Agent:
    def __init__(self, client: httpx.Client, node_id: str) -> None:
        self.client = client
        self.node_id = node_id

    def post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self.client.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def beat(self, **metrics: float) -> None:
        figures = {"cpu_percent": 12.0, "memory_percent": 34.0, "disk_percent": 56.0, **metrics}
        body = {"node_id": self.node_id, "agent_version": "0.1.0", "interval_seconds": 60, "metrics": figures}
        self.post("/api/nodes/heartbeat", body)

    def take(self) -> Held:
        """Claim and start the next job of this node."""
        query = {"node_id": self.node_id, "request_id": str(uuid.uuid4()), "wait": 20, "reconcile": 0}
        answer = self.client.get("/api/jobs/pending", params=query)
        job = answer.json()["job"]
        assert job is not None, answer.text
        held = Held(self, job["id"], job["claim_id"])
        held.call("start")
        return held


class Held:
    """A job that this agent runs."""

    def __init__(self, agent: Agent, job_id: str, claim_id: str) -> None:
        self.agent, self.id, self.claim_id = agent, job_id, claim_id
        self.written = {"stdout": b"", "stderr": b""}
        self.started_at = _now()

    def call(self, verb: str, **body: Any) -> Any:
        return self.agent.post(f"/api/jobs/{self.id}/{verb}", {"claim_id": self.claim_id, **body})

    def write(self, text: str, stream: str = "stdout", phase: str = "apply") -> None:
        data = text.encode()
        chunk = {"stream": stream, "offset": len(self.written[stream]), "data": base64.b64encode(data).decode()}
        self.call("output", phase=phase, chunks=[chunk])
        self.written[stream] += data

    def end(self, exit_code: int = 0) -> None:
        passed = exit_code == 0
        self.call(
            "complete",
            status="succeeded" if passed else "failed",
            **({} if passed else {"reason": "exit"}),
            exit_code=exit_code,
            phases=[{"name": "apply", "exit_code": exit_code, "signal": None, "duration_ms": 1200, "skipped": False}],
            changed=passed,
            stdout_bytes=len(self.written["stdout"]),
            stderr_bytes=len(self.written["stderr"]),
            stdout_sha256=hashlib.sha256(self.written["stdout"]).hexdigest(),
            stderr_sha256=hashlib.sha256(self.written["stderr"]).hexdigest(),
            started_at=self.started_at,
            finished_at=_now(),
        )


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
