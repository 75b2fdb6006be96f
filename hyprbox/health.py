"""/healthz, /readyz and /metrics."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import NamedTuple

import structlog
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from audit import selectors as audit
from audit.actions import Action
from hyprbox.lib import live, mackey, signing
from hyprbox.lib.errors import NotFound
from jobs import deadlines
from nodes import selectors as nodes

_NO_TOKEN = "Send the token of HYPRBOX_METRICS_TOKEN as a bearer.\n"
_migrated = False
_told: dict[str, str] = {}
log = structlog.get_logger(__name__)


@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """The process is up; says nothing of the database."""
    return HttpResponse("ok\n", content_type="text/plain")


class Failing(NamedTuple):
    """`word` is for everybody who asks, `detail` for the log: it may name a file of this machine."""

    word: str
    detail: str


_UNREACHABLE = Failing("unreachable", "The database does not answer.")


def _database() -> Failing | None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return _UNREACHABLE
    return None


def _migrations() -> Failing | None:
    global _migrated
    if _migrated:
        return None
    try:
        executor = MigrationExecutor(connection)
        pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError:
        return _UNREACHABLE
    if pending:
        return Failing("pending", f"{len(pending)} migrations are pending: run manage.py migrate.")
    _migrated = True
    return None


def _listener() -> Failing | None:
    return None if live.listener.is_connected else Failing("disconnected", "The live listener is not connected.")


def _signing_key() -> Failing | None:
    try:
        signing.signer()
    except signing.SigningKeyUnusable as error:
        return Failing("unusable", str(error))
    return None


def _mac_key() -> Failing | None:
    try:
        mackey.key()
    except mackey.MacKeyUnusable as error:
        return Failing("unusable", str(error))
    return None


CHECKS: dict[str, Callable[[], Failing | None]] = {
    "database": _database,
    "migrations": _migrations,
    "listener": _listener,
    "signing_key": _signing_key,
    "mac_key": _mac_key,
}


@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """200 when this process can serve, else 503 with a word for each part that cannot."""
    failing = {name: found for name, check in CHECKS.items() if (found := check())}
    _tell({name: found.detail for name, found in failing.items()})
    body = {"ready": not failing, "failing": {name: found.word for name, found in failing.items()}}
    return JsonResponse(body, status=503 if failing else 200, headers={"Retry-After": "2"} if failing else {})


def _tell(details: dict[str, str]) -> None:
    """Once for each change, as anybody may ask as often as he likes."""
    global _told
    if details == _told:
        return
    _told = details
    if details:
        log.warning("ready.not", failing=details)
    else:
        log.info("ready.again")


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus text. Off unless HYPRBOX_METRICS_TOKEN is set or DEBUG is on."""
    token = settings.HYPRBOX_METRICS_TOKEN
    if not token and not settings.DEBUG:
        raise NotFound()
    given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
    if token and not hmac.compare_digest(given.encode(), token.encode()):
        return HttpResponse(_NO_TOKEN, status=401, content_type="text/plain", headers={"WWW-Authenticate": "Bearer"})
    registry = CollectorRegistry()
    gauges = deadlines.gauges()
    _gauge(registry, "hyprbox_jobs_past_deadline", "Jobs that outlived their deadline; always 0.", gauges.past_deadline)
    _gauge(
        registry, "hyprbox_jobs_queued_oldest_seconds", "Age of the oldest queued job.", gauges.queued_oldest_seconds
    )
    _gauge(registry, "hyprbox_jobs_contact_lost", "Running jobs whose agent is silent.", gauges.contact_lost)
    _gauge(registry, "hyprbox_nodes_clone_suspected", "Nodes that are two machines, it seems.", nodes.count_clones())
    forks, reused = audit.count(Action.AUDIT_FORKED), audit.count(Action.REFRESH_REUSED)
    _gauge(registry, "hyprbox_audit_forks", "Contradictions in the audit log that agents told of.", forks)
    _gauge(registry, "hyprbox_refresh_reused", "Logins that ended because an old token of theirs came again.", reused)
    _last_look(registry)
    by_status = Gauge("hyprbox_nodes", "Nodes by effective status.", ["status"], registry=registry)
    for status, count in nodes.count_by_status().items():
        by_status.labels(status=str(status).lower()).set(count)
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def _last_look(registry: CollectorRegistry) -> None:
    """What the last look at all seals and signatures has found. Before the first one there is nothing to tell."""
    look = audit.newest(Action.INTEGRITY_VERIFIED)
    if look is None:
        return
    found = look.detail
    _gauge(registry, "hyprbox_tampered_rows", "Rows that are not as HyprBox left them, at the last look.", found["bad"])
    text = "Ended jobs whose key is not known any more, at the last look."
    _gauge(registry, "hyprbox_unverifiable_jobs", text, found.get("unknown", 0))
    _gauge(registry, "hyprbox_integrity_looked_at_seconds", "When that look was, in Unix time.", look.at.timestamp())


def _gauge(registry: CollectorRegistry, name: str, text: str, value: float) -> None:
    Gauge(name, text, registry=registry).set(value)
