"""Finding people."""

from __future__ import annotations

import uuid

from accounts.models import User
from hyprbox.lib.actors import Actor


def find_active(user_id: str) -> User | None:
    """The user, unless there is none or it was disabled."""
    try:
        return User.objects.filter(pk=uuid.UUID(user_id), is_active=True).first()
    except ValueError:
        return None


def actor_for(user: User, *, ip: str = "", request_id: str = "") -> Actor:
    return Actor.user(id=str(user.pk), name=user.email, role=user.role, ip=ip, request_id=request_id)
