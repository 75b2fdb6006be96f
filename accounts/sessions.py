"""Where page sessions are kept: one row each, found by the SHA-256 of its key, with its owner and its two ends.

`SESSION_ENGINE`. A session ends 12 hours after the login and when it was idle for too long; its row goes when it ends.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from accounts.models import PageSession
from accounts.selectors import live_page_sessions
from hyprbox.lib.opaque import digest_of

TOUCH_SECONDS = 60
ABSOLUTE_SECONDS = 12 * 3600
CLIENT = "_client"  # where the login came from: [address, user agent]
FRESH = "_fresh_until"  # a moment in ISO 8601: until when the session is good for sensitive acts


class SessionStore(SessionBase):
    """Django's session interface over `PageSession`."""

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        self.row: PageSession | None = None

    @property
    def key_salt(self) -> str:
        """The data is signed for its key: copied into another row, to come with another key, it says nothing."""
        return f"accounts.sessions.{digest_of(self.session_key or '').hex()}"

    @property
    def fresh_until(self) -> datetime | None:
        """As the signed data has it: the column beside it is for lists, and anybody's who can write there."""
        return parse_datetime(self[FRESH]) if FRESH in self else None

    def load(self) -> dict[str, Any]:
        key = self.session_key
        self.row = live_page_sessions().filter(key_digest=digest_of(key)).first() if key else None
        if self.row is None:
            self._session_key = None
            return {}
        return self.decode(self.row.data)

    def exists(self, session_key: str) -> bool:
        return live_page_sessions().filter(key_digest=digest_of(session_key)).exists()

    def create(self) -> None:
        """A new key; the row comes with the data, at the end of the request."""
        self._session_key = self._get_new_session_key()  # type: ignore[attr-defined]
        self._get_session(no_load=True)  # type: ignore[attr-defined] # there is nothing to load, and a miss would drop the key
        self.row = None
        self.modified = True

    def save(self, must_create: bool = False) -> None:
        """Raises `UpdateError` when the session was ended meanwhile."""
        if self.session_key is None:
            self.create()
        data = self._get_session(no_load=must_create)  # type: ignore[attr-defined]
        ip, user_agent = data.get(CLIENT) or ("", "")
        values = {
            "data": self.encode(data),
            "user_id": data.get(SESSION_KEY),
            "ip": ip,
            "user_agent": user_agent,
            "fresh_until": self.fresh_until,
        }
        if self.row is not None:
            if not PageSession.objects.filter(pk=self.row.pk).update(**values):
                raise UpdateError
            return
        ends = timezone.now() + timedelta(seconds=ABSOLUTE_SECONDS)
        self.row = PageSession.objects.create(
            key_digest=digest_of(str(self.session_key)), last_used_at=Now(), expires_at=ends, **values
        )

    def delete(self, session_key: str | None = None) -> None:
        key = session_key or self.session_key
        if key:
            PageSession.objects.filter(key_digest=digest_of(key)).delete()

    def touch(self) -> None:
        """The person did something; written at most once a minute."""
        row = self.row
        if row is not None and (timezone.now() - row.last_used_at).total_seconds() >= TOUCH_SECONDS:
            PageSession.objects.filter(pk=row.pk).update(last_used_at=Now())

    @classmethod
    def clear_expired(cls) -> None:
        PageSession.objects.filter(expires_at__lte=Now()).delete()
        PageSession.objects.filter(last_used_at__lte=Now() - settings.HYPRBOX_SESSION_IDLE).delete()
