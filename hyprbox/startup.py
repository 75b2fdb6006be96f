"""What a web process does not start with, outside DEBUG. A database that is away now may come later: /readyz tells."""

from __future__ import annotations

from django.conf import settings
from django.core import checks
from django.db import DatabaseError, connection

from hyprbox.lib import mackey, roles, secretbox, signing


def refusals() -> list[str]:
    """A sentence for each thing that is wrong; empty when the process may serve."""
    if settings.DEBUG:
        return []
    return [*_signing_key(), *_mac_key(), *_secrets_key(), *_durability(), *_deployment()]


def _signing_key() -> list[str]:
    try:
        signing.signer()
    except signing.SigningKeyUnusable as error:
        return [str(error)]
    return []


def _mac_key() -> list[str]:
    try:
        mackey.key()
    except mackey.MacKeyUnusable as error:
        return [str(error)]
    return []


def _secrets_key() -> list[str]:
    try:
        secretbox.keys()
    except secretbox.SecretsKeyUnusable as error:
        return [str(error)]
    return []


def _durability() -> list[str]:
    """A job that was answered with 201 must be on disk."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit')")
            found = dict(cursor.fetchall())
    except DatabaseError:
        return []
    finally:
        connection.close()
    return [
        f"PostgreSQL runs with {name} = off: what it confirms may be lost." for name in found if found[name] == "off"
    ]


def weakness() -> str:
    """Why privileges do not protect the audit log from this process; "" when they do, or the database is away."""
    try:
        with connection.cursor() as cursor:
            return roles.weakness(cursor)
    except DatabaseError:
        return ""
    finally:
        connection.close()


def _deployment() -> list[str]:
    found = checks.run_checks(include_deployment_checks=True)
    return [
        f"{problem.id}: {problem.msg}"
        for problem in found
        if problem.level >= checks.ERROR and not problem.is_silenced()
    ]
