"""What this control plane is set to, as the audit log knows it: a start with other settings is an entry.

What is secret is not told, only that it is another one: the log has its HMAC, with a key that is outside the database. What
is long is told by its beginning and its SHA-256.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from django.conf import settings
from django.db import Error, connection, transaction

from audit import selectors
from audit import services as audit
from audit.actions import Action
from hyprbox.lib import logs, mackey
from hyprbox.lib.actors import Actor
from hyprbox.lib.postgres import lock_number

_LOCK = lock_number("settings")
_SERVER = Actor.system("server")
_SHOWN = (
    "HYPRBOX_PUBLIC_URL", "HYPRBOX_TRUSTED_PROXIES", "HYPRBOX_OFFLINE_AFTER", "HYPRBOX_ALLOW_REGISTRATION",
    "HYPRBOX_REQUIRE_SECOND_FACTOR", "HYPRBOX_REQUIRE_NODE_TOKEN", "HYPRBOX_CORS_ORIGINS", "HYPRBOX_ENABLE_DOCS",
    "HYPRBOX_ADMIN_PATH", "HYPRBOX_LOG_LEVEL", "HYPRBOX_VAR_DIR", "HYPRBOX_SIGNING_KEY_FILE", "HYPRBOX_MAC_KEY_FILE",
    "HYPRBOX_SECRETS_KEY_FILE", "HYPRBOX_AUDIT_CHECKPOINT_FILE",
)  # fmt: skip
_OURS = ("pool", "connect_timeout", "options", "application_name")  # of a database's options, the same everywhere
_LONG = 200  # characters: the log cuts what has more than 1 KiB

log = structlog.get_logger(__name__)


def note() -> None:
    """Record the settings of this process unless the log's last word on them is the same. Of many that start, one does."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            known = _known()
            shown, secret = _shown(), _secret()
            changed = {name: f"{known.get(name) or '–'} → {shown[name] or '–'}" for name in _others(known, shown)}
            changed |= dict.fromkeys(_other_secrets(known, secret), "another one")
            if changed:
                now = {**shown, **{name: _digest(mackey.key(), name, text) for name, text in secret.items()}}
                told = {"changed": changed} if known else {"why": "the first start that the log knows"}
                detail = {**told, "settings": now}
                audit.record(Action.SETTINGS_CHANGED, by=_SERVER, target="settings", detail=detail)
    except (Error, OSError, mackey.MacKeyUnusable) as error:  # the next start notes it
        log.warning("settings.not_noted", error=str(error))


def _known() -> dict[str, str]:
    last = selectors.newest(Action.SETTINGS_CHANGED)
    found = last.detail.get("settings") if last is not None else None
    return {str(name): str(text) for name, text in found.items()} if isinstance(found, dict) else {}


def _shown() -> dict[str, str]:
    known = {name: _text(getattr(settings, name)) for name in _SHOWN}
    return {
        **known,
        "HYPRBOX_ALLOWED_HOSTS": _text(settings.ALLOWED_HOSTS),
        "HYPRBOX_SESSION_IDLE": _text(int(settings.HYPRBOX_SESSION_IDLE.total_seconds())),
        "HYPRBOX_MAIL_FROM": _text(settings.DEFAULT_FROM_EMAIL),
        "HYPRBOX_DEBUG": _text(settings.DEBUG),
    }


def _secret() -> dict[str, str]:
    def address(database: Mapping[str, Any]) -> str:
        parts = {part: database.get(part) for part in ("HOST", "PORT", "NAME", "USER", "PASSWORD")}
        options = database.get("OPTIONS", {})
        given = {name: value for name, value in options.items() if name not in _OURS}  # such as sslmode
        return json.dumps([parts, given], sort_keys=True, default=str)

    mail = ("BACKEND", "HOST", "PORT", "HOST_USER", "HOST_PASSWORD", "USE_TLS", "USE_SSL")
    return {
        "HYPRBOX_SECRET_KEY": settings.SECRET_KEY,
        "HYPRBOX_METRICS_TOKEN": settings.HYPRBOX_METRICS_TOKEN,
        "EMAIL_URL": "\n".join(str(getattr(settings, f"EMAIL_{part}", "")) for part in mail),
        "DATABASE_URL": address(settings.DATABASES["default"]),
        "HYPRBOX_MIGRATION_DATABASE_URL": address(settings.HYPRBOX_OWNER_DATABASE),
    }


def _text(value: object) -> str:
    if isinstance(value, list | tuple | set | frozenset):
        text = ", ".join(map(str, value if isinstance(value, list | tuple) else sorted(value)))
    else:
        text = str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
    text = "".join(c if c.isprintable() else "?" for c in logs.scrub(text))
    if len(text) <= _LONG:
        return text
    return f"{text[:_LONG]}… (sha256 {hashlib.sha256(text.encode()).hexdigest()})"


def _others(known: Mapping[str, str], now: Mapping[str, str]) -> Iterable[str]:
    return [name for name, text in now.items() if known.get(name) != text]


def _other_secrets(known: Mapping[str, str], now: Mapping[str, str]) -> Iterable[str]:
    """After the key was replaced the old one still tells."""
    keys = mackey.keys()
    usable = (*keys.seals, *keys.codes)
    return [name for name, text in now.items() if known.get(name) not in [_digest(key, name, text) for key in usable]]


def _digest(key: bytes, name: str, text: str) -> str:
    return "hmac:" + hmac.digest(key, f"hyprbox-setting\0{name}\0{text}".encode(), "sha256").hex()[:32]
