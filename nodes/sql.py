"""The rule of `nodes.status.judge` as a SQL expression, for filters and counts over many nodes."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import (
    Case,
    DurationField,
    ExpressionWrapper,
    F,
    FloatField,
    Func,
    Q,
    TextField,
    Value,
    When,
)
from django.db.models.expressions import Combinable
from django.db.models.functions import Cast, Extract, Now

from nodes.status import CLOCK_WARNING_SECONDS, LATE_BEATS, LATE_SLACK_SECONDS, Rules, Status


def StatusCase(rules: Rules) -> Case:
    """The effective status of a `Node` row, judged by the database's clock."""
    return Case(
        When(last_seen_at__isnull=True, then=Value(Status.UNKNOWN)),
        When(_is_offline(rules), then=Value(Status.OFFLINE)),
        When(_any_metric(rules, "critical") | Q(clone_suspected_at__isnull=False), then=Value(Status.CRITICAL)),
        When(
            _any_metric(rules, "warning") | _is_late() | _is_clock_wrong() | _takes_no_jobs(),
            then=Value(Status.WARNING),
        ),
        default=Value(Status.ONLINE),
    )


def silence() -> Combinable:
    """Seconds since the last heartbeat."""
    elapsed = ExpressionWrapper(Now() - F("last_seen_at"), output_field=DurationField())
    return Cast(Extract(elapsed, "epoch"), FloatField())


class ArrayText(Func):
    """An array of numbers as the text of a JSON list, which is read several times faster than an array."""

    template = "'[' || array_to_string(%(expressions)s, ',', 'null') || ']'"
    output_field = TextField()


def _is_offline(rules: Rules) -> Q:
    silent = Q(last_seen_at__lt=Now() - timedelta(seconds=rules.offline_after_seconds))
    return silent & Q(announced_status=Status.OFFLINE) if rules.is_settling else silent


def _any_metric(rules: Rules, level: str) -> Q:
    condition = Q()
    for metric, limits in rules.limits.items():
        condition |= Q(**{f"{metric}__gte": getattr(limits, level)})
    return condition


def _is_late() -> Q:
    allowed = F("interval_seconds") * Value(timedelta(seconds=LATE_BEATS)) + Value(
        timedelta(seconds=LATE_SLACK_SECONDS)
    )
    return Q(last_seen_at__lt=Now() - ExpressionWrapper(allowed, output_field=DurationField()))


def _is_clock_wrong() -> Q:
    return Q(clock_offset_seconds__gt=CLOCK_WARNING_SECONDS) | Q(clock_offset_seconds__lt=-CLOCK_WARNING_SECONDS)


def _takes_no_jobs() -> Q:
    return Q(metrics__has_key="spool_unwritable")
