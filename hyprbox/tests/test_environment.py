"""What settings may be. What cannot be meant is refused, with the name of the setting and what would be right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from hyprbox.lib import environment
from hyprbox.lib.ids import client_ip


def port(name: str, text: str) -> int:
    return environment.whole(name, text, default=8000, least=1, most=65535)


def admin_path(name: str, text: str) -> str:
    return environment.path(name, text, taken=["api"])


def needed(name: str, text: str) -> bool:
    return environment.truth(name, text, default=True)


def debug_hosts(name: str, text: str) -> list[str]:
    return environment.hosts(name, text, is_debug=True)


def reached(name: str, text: str) -> str | None:
    return environment.public_address(name, text).hostname


@pytest.mark.parametrize(
    ("read", "text", "found"),
    [
        (environment.truth, "TRUE ", True),
        (environment.truth, "0", False),
        (environment.truth, "", False),
        (needed, " ", True),
        (needed, "no", False),
        (port, "1", 1),
        (port, " 65535 ", 65535),
        (port, "", 8000),
        (environment.proxies, "", []),
        (environment.proxies, " 10.0.0.1, 10.0.0.0/24 ,,2001:db8::/64", ["10.0.0.1", "10.0.0.0/24", "2001:db8::/64"]),
        (environment.proxies, "10.0.0.7/24", ["10.0.0.7/24"]),
        (environment.hosts, "hyprbox.example, 192.0.2.1,[::1]", ["hyprbox.example", "192.0.2.1", "[::1]"]),
        (debug_hosts, "*,.example.com", ["*", ".example.com"]),
        (reached, "https://hyprbox.example:8443", "hyprbox.example"),
        (reached, "http://127.0.0.1:8000", "127.0.0.1"),
        (
            environment.origins,
            "https://a.example, http://localhost:3000",
            ["https://a.example", "http://localhost:3000"],
        ),
        (environment.roles, "admin, operator", ["admin", "operator"]),
        (admin_path, "/behind/the-curtain/", "behind/the-curtain"),
        (environment.level, "debug", "DEBUG"),
        (environment.sender, "a@example.com", "a@example.com"),
        (environment.sender, "HyprBox <a@example.com>", "HyprBox <a@example.com>"),
    ],
)
def test_what_is_taken(read: Callable[[str, str], Any], text: str, found: Any) -> None:
    assert read("SETTING", text) == found


@pytest.mark.parametrize(
    ("read", "text", "named"),
    [
        (environment.truth, "maybe", "maybe"),
        (needed, "ture", "ture"),
        (port, "0", "0"),
        (port, "65536", "65536"),
        (port, "8e3", "8e3"),
        (port, "-1", "-1"),
        (port, "٣", "٣"),
        (port, "9" * 5000, "9"),
        (environment.proxies, "10.0.0.1,proxy", "proxy"),
        (environment.proxies, "10.0.0.0/33", "10.0.0.0/33"),
        (environment.proxies, "10.0.0.1:8000", "10.0.0.1:8000"),
        (environment.proxies, "10.0.0.1 10.0.0.2", "10.0.0.1 10.0.0.2"),
        (environment.proxies, "0.0.0.0/0", "0.0.0.0/0"),
        (environment.proxies, "::/0", "::/0"),
        (environment.hosts, "https://hyprbox.example", "https://hyprbox.example"),
        (environment.hosts, "hyprbox.example:443", "hyprbox.example:443"),
        (environment.hosts, "a_b", "a_b"),
        (environment.hosts, "*.example.com", "*.example.com"),
        (reached, "hyprbox.example", ""),
        (reached, "https://hyprbox.example:99999", ""),
        (reached, "https://ada:secret@hyprbox.example", ""),
        (environment.origins, "https://a.example/", "https://a.example/"),
        (environment.roles, "admin,root", "root"),
        (admin_path, "", ""),
        (admin_path, "/", "/"),
        (admin_path, "api/x", "api/x"),
        (admin_path, "<str:x>", "<str:x>"),
        (admin_path, "a//b", "a//b"),
        (admin_path, "../x", "../x"),
        (environment.level, "LOUD", "LOUD"),
        (environment.sender, "nobody", "nobody"),
        (environment.sender, "a@example.com\nBcc: b@example.com", "Bcc"),
    ],
)
def test_what_is_refused(read: Callable[[str, str], Any], text: str, named: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        read("SETTING", text)
    said = str(caught.value)
    assert said.startswith("SETTING") and named in said and ("such as" in said or "it would be" in said)


def test_what_is_taken_for_proxies_is_what_addresses_are_compared_with() -> None:
    trusted = environment.proxies("SETTING", "10.0.0.7/24, 2001:db8::/64")
    assert client_ip("10.0.0.9", "192.0.2.7", trusted) == "192.0.2.7"
    assert client_ip("2001:db8::9", "192.0.2.7", trusted) == "192.0.2.7"
    assert client_ip("10.0.1.9", "192.0.2.7", trusted) == "10.0.1.9"


def test_without_https_only_loopback_is_reached_and_called() -> None:
    for read in (reached, environment.origins):
        with pytest.raises(ImproperlyConfigured, match="https://"):
            read("SETTING", "http://hyprbox.example")
    assert environment.public_address("SETTING", "http://hyprbox.example", is_debug=True).port is None
    with pytest.raises(ImproperlyConfigured) as caught:
        reached("SETTING", "https://ada:secret@hyprbox.example")
    assert "secret" not in str(caught.value)
