"""That a key was made, in the audit log. A key is a file, and may be made before there is a database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError, transaction

from audit import services as audit
from audit.actions import Action
from hyprbox.lib import signing
from hyprbox.lib.actors import Actor

NOT_RECORDED = "The audit log does not tell of it, because the database cannot be written to."


def record_made(action: Action, by: Actor, **detail: Any) -> bool:
    """Whether it could be recorded."""
    if action in (Action.SIGNING_KEY_CREATED, Action.SIGNING_KEY_ROTATED):
        detail["key_id"] = signing.signer().key_id
    try:
        with transaction.atomic():
            audit.record(action, by=by, target=f"file:{_path(action)}", detail=detail)
    except DatabaseError:
        return False
    return True


def _path(action: Action) -> Path:
    """Of the key that `action` is about."""
    match action:
        case Action.SIGNING_KEY_CREATED | Action.SIGNING_KEY_ROTATED:
            found = settings.HYPRBOX_SIGNING_KEY_FILE
        case Action.MAC_KEY_CREATED | Action.MAC_KEY_ROTATED:
            found = settings.HYPRBOX_MAC_KEY_FILE
        case _:
            found = settings.HYPRBOX_SECRETS_KEY_FILE
    return Path(found)
