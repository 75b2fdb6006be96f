"""Rows about people that are over and say nothing any more; the audit log keeps what happened."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Q
from django.db.models.functions import Now

from accounts.models import Invitation, PasswordReset, RefreshFamily
from accounts.sessions import SessionStore

KEPT = timedelta(days=30)


def forget_old() -> None:
    """Sessions at once; families, invitations and links after a month, so that a late use is still recognised."""
    SessionStore.clear_expired()
    long_ago = Now() - KEPT
    RefreshFamily.objects.filter(Q(expires_at__lt=long_ago) | Q(revoked_at__lt=long_ago)).delete()
    Invitation.objects.filter(expires_at__lt=long_ago).delete()
    PasswordReset.objects.filter(expires_at__lt=long_ago).delete()
