"""GET /api/presets, GET /api/presets/{name}, POST /api/presets/{name}/render."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.models import User
from presets import catalogue, rendering
from tests.client import ApiClient

REPORT = "/api/presets/system-report"


def test_the_list_has_every_preset_without_its_bash(api: ApiClient, vera: User) -> None:
    answer = api.by(vera).get("/api/presets")
    assert answer.status_code == 200
    body = answer.json()
    assert body["count"] == len(body["results"]) == len(catalogue.builtin())
    by_name = {preset["name"]: preset for preset in body["results"]}
    site = by_name["nginx-static-site"]
    assert site["risk"] == "confirm"
    assert site["parts"] == ["check", "apply", "verify", "rollback"]
    assert "apply" not in site
    port = next(variable for variable in site["variables"] if variable["name"] == "PORT")
    assert (port["type"], port["default"], port["required"]) == ("port", 80, True)
    assert port["help"]


def test_one_preset_comes_whole(api: ApiClient, vera: User) -> None:
    preset = catalogue.builtin()["system-report"]
    body = api.by(vera).get(REPORT).json()
    assert body["apply"] == preset.apply
    assert body["parts"] == ["apply"]
    assert body["revision"] == preset.revision


def test_rendering_gives_the_bytes_that_a_job_would_freeze(api: ApiClient, otto: User) -> None:
    answer = api.by(otto).post(f"{REPORT}/render", {"variables": {"DETAIL": "full"}})
    assert answer.status_code == 200
    rendered = rendering.render(catalogue.builtin()["system-report"], {"DETAIL": "full"})
    assert answer.json() == {
        "script": rendered.text,
        "sha256": rendered.sha256,
        "revision": rendered.revision,
        "warnings": [],
    }


def test_viewers_see_presets_but_render_none(api: ApiClient, vera: User) -> None:
    answer = api.by(vera).post(f"{REPORT}/render", {"variables": {}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


def test_rendering_warns_of_what_looks_like_a_secret_without_repeating_it(api: ApiClient, otto: User) -> None:
    token = "ghp_" + "x1Y2" * 9
    answer = api.by(otto).post("/api/presets/ufw-baseline/render", {"variables": {"OPEN_PORTS": "80/tcp"}})
    assert answer.json()["warnings"] == []
    values = {"DOMAINS": "a.example", "EMAIL": f"{token}@a.example"}
    body = api.by(otto).post("/api/presets/certificate-renewal/render", {"variables": values}).json()
    [warning] = body["warnings"]
    assert "EMAIL looks like a GitHub token" in warning and token not in warning


def test_rendering_names_every_bad_variable(api: ApiClient, otto: User) -> None:
    variables = {"DETAIL": "some", "SHOW_UPDATES": 1, "DISK_WARN_PERCENT": 101, "COLOUR": "red"}
    answer = api.by(otto).post(f"{REPORT}/render", {"variables": variables})
    assert answer.status_code == 400
    assert answer.json()["error"]["fields"] == {
        "variables.COLOUR": ["This preset has no variable COLOUR."],
        "variables.DETAIL": ['DETAIL cannot be "some": one of brief, full.'],
        "variables.SHOW_UPDATES": ["SHOW_UPDATES cannot be a value of type number: write true or false."],
        "variables.DISK_WARN_PERCENT": ["DISK_WARN_PERCENT cannot be 101: at most 100."],
    }


@pytest.mark.parametrize(
    "body",
    [
        {"variables": []},
        {"variables": "x"},
        {"variables": None},
        {"variables": {"DETAIL": {"a": 1}}},
        {"variables": {"DETAIL": ["brief"]}},
        {"variables": {"DETAIL": "a\0b"}},
        {"variables": {"DISK_WARN_PERCENT": 10**400}},
        {"variables": {"DISK_WARN_PERCENT": 1.5}},
        {"variables": {"\u202e": "x", "": "y"}},
        {"values": {}},
        b'{"variables": {"DETAIL": "\\ud800"}}',
        b'{"variables": {"DISK_WARN_PERCENT": NaN}}',
        b"not json",
        b"[]",
    ],
)
def test_bad_bodies_are_400(api: ApiClient, otto: User, body: Any) -> None:
    answer = api.by(otto).post(f"{REPORT}/render", body)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"code", "message", "fields", "detail"}


@pytest.mark.parametrize("path", ["/api/presets/nothing", "/api/presets/%00", "/api/presets/..%2f..%2fetc%2fpasswd"])
def test_an_unknown_preset_is_404(api: ApiClient, vera: User, path: str) -> None:
    answer = api.by(vera).get(path)
    assert answer.status_code == 404
    assert "error" in answer.json()


def test_rendering_an_unknown_preset_is_404(api: ApiClient, otto: User) -> None:
    answer = api.by(otto).post("/api/presets/nothing/render", {"variables": {}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_preset")


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/api/presets", REPORT])
def test_nobody_reads_without_logging_in(api: ApiClient, path: str) -> None:
    assert api.get(path).status_code == 401


@pytest.mark.django_db
def test_nobody_renders_without_logging_in(api: ApiClient) -> None:
    assert api.post(f"{REPORT}/render", {"variables": {}}).status_code == 401
