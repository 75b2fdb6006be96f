"""What the first start makes and every later one finds: tables, the keys, an admin, the agent's token.

Needs Django set up; `up` imports it only then.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection, connections

from accounts import people
from accounts.models import User
from hyprbox import enrolment
from hyprbox.lib import mackey, secretbox, signing
from hyprbox.lib.actors import Actor, Role
from hyprbox.lib.errors import HyprBoxError
from hyprbox.lib.rowmac import RowTampered
from hyprbox.management.folder import keep_secret
from hyprbox.management.options import CannotStart, setting
from tokens import selectors as tokens
from tokens.errors import BadToken

DEFAULT_EMAIL = "admin@hyprbox.localhost"
_OLDEST_POSTGRESQL = 150000


@dataclass(frozen=True)
class Admin:
    """The first admin as just made; `password` is empty when the person chose it."""

    email: str
    password: str


def migrate() -> None:
    """Bring the tables up to date; of several machines that start at once, one does it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version_num')::int")
        if cursor.fetchone()[0] < _OLDEST_POSTGRESQL:
            raise CannotStart("The database is older than PostgreSQL 15.")
    try:
        call_command("migrate", interactive=False, verbosity=0)
    except CommandError as error:
        raise CannotStart(str(error)) from error


def signing_key() -> bool:
    """Whether it is new. Raises CannotStart."""
    is_new = signing.create_key(settings.HYPRBOX_SIGNING_KEY_FILE)
    try:
        signing.signer()
    except signing.SigningKeyUnusable as error:
        raise CannotStart(str(error)) from error
    return is_new


def mac_key() -> bool:
    """Whether it is new. Raises CannotStart."""
    is_new = mackey.create_key(settings.HYPRBOX_MAC_KEY_FILE)
    try:
        mackey.key()
    except mackey.MacKeyUnusable as error:
        raise CannotStart(str(error)) from error
    return is_new


def secrets_key() -> bool:
    """Whether it is new. Raises CannotStart."""
    is_new = secretbox.create_key(settings.HYPRBOX_SECRETS_KEY_FILE)
    try:
        secretbox.keys()
    except secretbox.SecretsKeyUnusable as error:
        raise CannotStart(str(error)) from error
    return is_new


def first_admin(by: Actor) -> Admin | None:
    """Make the first admin unless there is one. Raises CannotStart when the given password breaks a rule."""
    if User.objects.filter(role=Role.ADMIN, is_active=True).exists():
        return None
    email = os.environ.get("HYPRBOX_ADMIN_EMAIL") or DEFAULT_EMAIL
    given = setting("HYPRBOX_ADMIN_PASSWORD")
    password = given or secrets.token_urlsafe(12)
    try:
        people.create_user(by=by, email=email, password=password, role=Role.ADMIN)
    except HyprBoxError as error:
        raise CannotStart(f"The first admin {email} cannot be made: {sentence(error)}") from error
    return Admin(email, "" if given else password)


def agent_environment(agent_dir: Path, url: str, by: Actor) -> dict[str, str] | None:
    """What the agent of this machine is told; None when its token was revoked, which a restart must not undo."""
    node_id = this_node_id()
    path = agent_dir / "token"
    name = f"{node_id} (this machine)"
    token = keep_secret(path, lambda: enrolment.enrol(by=by, name=name, node_id=node_id).plaintext)
    try:
        tokens.find_presented(token)
    except (BadToken, RowTampered):
        if tokens.list_tokens(by=by).filter(prefix=_prefix(token)).exists():
            return None
        path.unlink()  # of another database, which is gone
        token = keep_secret(path, lambda: enrolment.enrol(by=by, name=name, node_id=node_id).plaintext)
    return {
        "HYPRBOX_API_URL": url,
        "HYPRBOX_NODE_ID": node_id,
        "HYPRBOX_NODE_TOKEN": token,
        "HYPRBOX_KEYS_SHA256": signing.key_set_sha256(),
        "HYPRBOX_INTERVAL": os.environ.get("HYPRBOX_INTERVAL") or "10s",
        "HYPRBOX_STATE_DIR": str(agent_dir),
        "HYPRBOX_STOP_JOBS": "true",  # `up` leaves no process behind
    }


def close_connections() -> None:
    """The supervisor needs no database; the pool's threads must not live in it."""
    connections.close_all()
    connection.close_pool()  # type: ignore[attr-defined]  # of the PostgreSQL backend


def this_node_id() -> str:
    """This machine's name as far as a node may be called so."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", platform.node()).lstrip("._-")[:63]
    return plain or "this-machine"


def sentence(error: HyprBoxError) -> str:
    """The error in words: what is wrong with each field, or else its own message."""
    details = [text for texts in error.fields.values() for text in texts]
    return " ".join(details) or error.message


def _prefix(token: str) -> str:
    return token.removeprefix("hbnt_")[:8]
