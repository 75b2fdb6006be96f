"""POST /api/presets, PUT /api/presets/{name} and what hangs on them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from accounts.models import User
from presets.tests.helpers import document
from presets.tests.test_custom import SECOND, TEXT, UNQUOTED
from tests.client import ApiClient


def send(api: Any, method: str, path: str, text: str, **headers: str) -> Any:
    return getattr(api, method)(path, text.encode(), content_type="application/yaml", **headers)


@pytest.fixture
def ada_api(api: ApiClient, ada: User) -> Any:
    return api.by(ada)


@pytest.fixture
def motd(ada_api: Any) -> dict[str, Any]:
    answer = send(ada_api, "post", "/api/presets", TEXT)
    assert answer.status_code == 201, answer.content
    body: dict[str, Any] = answer.json()
    return body


def test_yaml_creates_a_preset_that_everyone_reads(motd: dict[str, Any], api: ApiClient, vera: User) -> None:
    body = api.by(vera).get("/api/presets/motd").json()
    assert body == motd
    assert (body["builtin"], body["number"], body["archived"], body["origin"]) == (False, 1, False, None)
    listed = {each["name"]: each for each in api.by(vera).get("/api/presets").json()["results"]}
    assert listed["motd"]["parts"] == ["check", "apply", "verify", "rollback"]
    assert listed["system-report"]["builtin"] is True


def test_json_is_the_same_document(ada_api: Any) -> None:
    answer = ada_api.post(
        "/api/presets", document(variables=[{"name": "A", "type": "int", "default": 3}], apply='echo "$A"\n')
    )
    assert answer.status_code == 201, answer.content
    exported = ada_api.get("/api/presets/sample/export")
    assert exported.headers["Content-Type"] == "application/yaml"
    assert yaml.safe_load(exported.content)["variables"][0]["default"] == 3
    assert "apply: |" in exported.content.decode()


def test_lint_errors_are_400_with_line_and_column(ada_api: Any) -> None:
    answer = send(ada_api, "post", "/api/presets", UNQUOTED)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_input")
    assert error["fields"]["apply"][0].startswith("Line 1, column 6:")
    assert {"line", "column", "document_line", "severity", "code"} <= set(error["detail"]["findings"][0])
    assert send(ada_api, "post", "/api/presets?waive=true", UNQUOTED).status_code == 201


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("name: [", "document"),
        ("- a\n", "document"),
        ("colour: red\n", "colour"),
        (TEXT.replace("safe", "red"), "risk"),
    ],
)
def test_what_is_no_preset_is_400(ada_api: Any, text: str, field: str) -> None:
    answer = send(ada_api, "post", "/api/presets", text)
    assert answer.status_code == 400
    assert field in answer.json()["error"]["fields"]


def test_if_match_keeps_two_editors_apart(ada_api: Any, motd: dict[str, Any]) -> None:
    etag = ada_api.get("/api/presets/motd").headers["ETag"]
    assert etag == f'"{motd["revision"]}"'
    first = send(ada_api, "put", "/api/presets/motd", SECOND, if_match=etag)
    assert (first.status_code, first.json()["number"]) == (200, 2)
    second = send(ada_api, "put", "/api/presets/motd", TEXT.replace("safe", "confirm"), if_match=etag)
    assert (second.status_code, second.json()["error"]["code"]) == (409, "preset_changed")
    assert ada_api.get("/api/presets/motd").json()["risk"] == "safe"


def test_revisions_and_their_difference(ada_api: Any, motd: dict[str, Any]) -> None:
    send(ada_api, "put", "/api/presets/motd?note=better", SECOND)
    listed = ada_api.get("/api/presets/motd/revisions").json()
    assert [(each["number"], each["note"]) for each in listed["results"]] == [(2, "better"), (1, "")]
    one = ada_api.get("/api/presets/motd/revisions/1").json()
    assert (one["revision"], one["source"], one["document"]["title"]) == (motd["revision"], TEXT, motd["title"])
    assert "+title: The message of the day" in ada_api.get("/api/presets/motd/diff?old=1&new=2").json()["diff"]
    assert ada_api.get("/api/presets/motd/diff?old=1").status_code == 400
    assert ada_api.get("/api/presets/motd/revisions/7").status_code == 404
    assert ada_api.get("/api/presets/swap-file/revisions").status_code == 409


def test_duplicate_archive_restore(ada_api: Any) -> None:
    copied = ada_api.post("/api/presets/swap-file/duplicate", {"name": "my-swap"})
    assert (copied.status_code, copied.json()["origin"]) == (201, "swap-file")
    assert ada_api.post("/api/presets/swap-file/duplicate", {"name": "my-swap"}).status_code == 409
    assert ada_api.post("/api/presets/my-swap/archive", {}).json()["archived"] is True
    assert "my-swap" not in [each["name"] for each in ada_api.get("/api/presets").json()["results"]]
    assert "my-swap" in [each["name"] for each in ada_api.get("/api/presets?archived=true").json()["results"]]
    assert ada_api.post("/api/presets/my-swap/render", {}).status_code == 409
    assert ada_api.post("/api/presets/my-swap/restore", {}).json()["archived"] is False


@pytest.mark.parametrize("person", ["vera", "otto"])
def test_only_admins_write(api: ApiClient, person: str, request: pytest.FixtureRequest) -> None:
    by = api.by(request.getfixturevalue(person))
    answers = [send(by, "post", "/api/presets", TEXT), send(by, "put", "/api/presets/swap-file", TEXT)]
    answers += [by.post(f"/api/presets/swap-file/{verb}", {}) for verb in ("archive", "restore")]
    answers.append(by.post("/api/presets/swap-file/duplicate", {"name": "mine"}))
    assert [answer.status_code for answer in answers] == [403] * 5


def test_a_document_over_two_mebibytes_is_413(ada_api: Any) -> None:
    assert send(ada_api, "post", "/api/presets", "#" * (2 * 1024 * 1024 + 1)).status_code == 413
