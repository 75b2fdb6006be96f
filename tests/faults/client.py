"""People: an API client that writes down what it asked and what it was told."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.faults.witness_preset import NAME, Plan
from tests.house import EMAIL, PASSWORD

logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each poll would hide the rest


@dataclass
class Asked:
    """One order: what was asked, and every answer to it. A job id only when one was told."""

    plan: Plan
    node: str
    job_id: str = ""
    answers: list[int] = field(default_factory=list)  # HTTP status; 0 for none
    other_ids: list[str] = field(default_factory=list)  # a second id under the same key: must stay empty
    cancel_asked: bool = False
    forced: bool = False

    @property
    def was_accepted(self) -> bool:
        return any(status in (200, 201) for status in self.answers)


class People:
    def __init__(self, url: str) -> None:
        self.asked: dict[str, Asked] = {}
        self.errors: list[str] = []  # answers that nobody should get: 5xx but 503
        self._http = httpx.Client(base_url=url, timeout=20)
        self._lock = threading.Lock()

    def close(self) -> None:
        self._http.close()

    def call(self, method: str, path: str, **more: Any) -> httpx.Response | None:
        """The answer, or None when there was none. Logs in when need be."""
        try:
            answer = self._http.request(method, path, **more)
            if answer.status_code == 401 and self._log_in():
                answer = self._http.request(method, path, **more)
        except httpx.HTTPError:
            return None
        if answer.status_code >= 500 and answer.status_code != 503:
            self.errors.append(f"{method} {path}: {answer.status_code}")
        return answer

    def _log_in(self) -> bool:
        self._http.headers.pop("Authorization", None)
        answer = self._http.post("/api/auth/login", json={"email": EMAIL, "password": PASSWORD})
        self._http.cookies.clear()
        if answer.status_code != 200:
            return False
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access']}"
        return True

    def order(self, node: str, plan: Plan, *, timeout_seconds: int = 120) -> Asked:
        """Ask once. The nonce is the idempotency key, so asking again is harmless."""
        with self._lock:
            asked = self.asked.setdefault(plan.nonce, Asked(plan, node))
        body = {"preset": NAME, "node_id": node, "variables": plan.variables(), "timeout_seconds": timeout_seconds}
        answer = self.call("POST", "/api/jobs", json=body, headers={"Idempotency-Key": plan.nonce})
        assert answer is None or answer.status_code not in (400, 403, 404, 422), answer.text
        asked.answers.append(answer.status_code if answer is not None else 0)
        if answer is not None and answer.status_code in (200, 201):
            told = answer.json()["id"]
            if asked.job_id and told != asked.job_id:
                asked.other_ids.append(told)
            asked.job_id = told
        return asked

    def order_until_told(self, node: str, plan: Plan, *, seconds: float = 60, **more: Any) -> Asked:
        deadline = time.monotonic() + seconds
        while not (asked := self.order(node, plan, **more)).job_id:
            assert time.monotonic() < deadline, f"no answer to an order within {seconds} s: {asked.answers}"
            time.sleep(0.3)
        return asked

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as the API shows it; empty when there is no answer."""
        answer = self.call("GET", f"/api/jobs/{job_id}")
        return answer.json() if answer is not None and answer.status_code == 200 else {}

    def cancel(self, asked: Asked, *, force: bool = False) -> int:
        answer = self.call("POST", f"/api/jobs/{asked.job_id}/cancel", json={"force": True} if force else {})
        # No answer: it may have been done all the same.
        asked.cancel_asked = asked.cancel_asked or answer is None or answer.status_code in (200, 202, 503)
        asked.forced = asked.forced or (force and asked.cancel_asked)
        return answer.status_code if answer is not None else 0
