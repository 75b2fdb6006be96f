"""A test client that speaks the API: JSON in and out, as a person, an agent or nobody."""

from __future__ import annotations

import json
from typing import Any

from django.test import Client

from accounts import jwt
from accounts.models import User


class ApiClient:
    def __init__(self, authorization: str = "") -> None:
        self._http = Client(enforce_csrf_checks=True)
        self._headers = {"authorization": authorization} if authorization else {}

    def by(self, user: User) -> ApiClient:
        return ApiClient(f"Bearer {jwt.access_token(user)}")

    def agent(self, token: str) -> ApiClient:
        return ApiClient(f"Bearer {token}")

    def get(self, path: str, **headers: str) -> Any:
        return self._http.get(path, headers={**self._headers, **_dashed(headers)})

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self._send("post", path, body, headers)

    def put(self, path: str, body: Any = None, **headers: str) -> Any:
        return self._send("put", path, body, headers)

    def patch(self, path: str, body: Any = None, **headers: str) -> Any:
        return self._send("patch", path, body, headers)

    def delete(self, path: str, **headers: str) -> Any:
        return self._http.delete(path, headers={**self._headers, **_dashed(headers)})

    def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        data = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
        send = getattr(self._http, method)
        sent = {**self._headers, **_dashed(headers)}
        return send(path, data=data, content_type=sent.pop("content-type", "application/json"), headers=sent)


def _dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
