"""The headers of every answer, whoever gives it: Django, a lane, a stream, or the gate before them."""

from __future__ import annotations

from django.conf import settings

POLICY = "; ".join(
    f"{directive} {' '.join(sources)}" for directive, sources in settings.CONTENT_SECURITY_POLICY["DIRECTIVES"].items()
)
EVERYWHERE = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
if settings.SECURE_HSTS_SECONDS:  # browsers heed it over TLS only
    EVERYWHERE["Strict-Transport-Security"] = f"max-age={settings.SECURE_HSTS_SECONDS}; includeSubDomains; preload"
# For what is answered before Django.
RAW = [(name.lower().encode(), value.encode()) for name, value in EVERYWHERE.items()]
