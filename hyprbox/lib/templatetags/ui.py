"""The design's vocabulary for templates: icons, states, times, sizes, small drawings.

Built in (settings), so no template needs `{% load %}`. Nothing here writes a style attribute: the
Content-Security-Policy forbids them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from django import template
from django.conf import settings
from django.http import QueryDict
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from hyprbox.lib import bash, drawing, words

register = template.Library()
NO_DATA = mark_safe('<span class="na"><span aria-hidden="true">–</span><span class="vh">no data</span></span>')


class UnknownIcon(template.TemplateSyntaxError):
    """There is no such file in templates/icons/."""


class UnknownState(template.TemplateSyntaxError):
    """No look is defined for this state."""


class Look(NamedTuple):
    """How a state is shown: always a shape, a word and a colour."""

    tone: str
    icon: str
    word: str


LOOKS: Mapping[str, Look] = {
    # nodes
    "ONLINE": Look("ok", "status-ok", "Online"),
    "WARNING": Look("warn", "status-warn", "Warning"),
    "CRITICAL": Look("crit", "status-crit", "Critical"),
    "OFFLINE": Look("off", "status-off", "Offline"),
    "UNKNOWN": Look("unknown", "status-unknown", "Unknown"),
    # jobs
    "QUEUED": Look("off", "clock", "Queued"),
    "RUNNING": Look("run", "status-run", "Running"),
    "CANCELLING": Look("run", "status-run", "Cancelling"),
    "SUCCEEDED": Look("ok", "status-done", "Succeeded"),
    "FAILED": Look("crit", "status-crit", "Failed"),
    "ROLLED_BACK": Look("warn", "undo", "Rolled back"),
    "CANCELLED": Look("off", "status-off", "Cancelled"),
    "ENDED": Look("ok", "status-done", "Ended"),
    "OUTCOME_UNKNOWN": Look("unknown", "status-unknown", "Unknown"),
    # presets
    "SAFE": Look("ok", "status-done", "Safe"),
    "CONFIRM": Look("warn", "status-warn", "Confirm"),
    "DANGEROUS": Look("crit", "status-crit", "Dangerous"),
    # drift
    "IN_PLACE": Look("ok", "status-done", "As wanted"),
    "DRIFTED": Look("warn", "status-warn", "Drifted"),
    "CHECKING": Look("run", "status-run", "Checking"),
    "WAITING": Look("off", "clock", "Waiting"),
    "UNCHECKED": Look("off", "clock", "Not checked yet"),
    "PAUSED": Look("unknown", "pause", "Paused"),
    # tokens
    "ACTIVE": Look("ok", "status-done", "Active"),
    "UNUSED": Look("off", "clock", "Not used yet"),
    "ENDS_SOON": Look("warn", "status-warn", "Ends soon"),
    "REVOKED": Look("off", "status-off", "Revoked"),
    "EXPIRED": Look("off", "clock", "Ended"),
}


def look_of(state: str) -> Look:
    """Raises `UnknownState`, so that a new state cannot reach a page without a shape."""
    try:
        return LOOKS[str(state).upper()]
    except KeyError:
        raise UnknownState(f"no look for the state {state!r}") from None


@lru_cache(maxsize=256)
def _icon(name: str, classes: str) -> SafeString:
    path = Path(settings.BASE_DIR) / "templates" / "icons" / f"{name}.svg"
    try:
        text = path.read_text().strip()
    except OSError:
        raise UnknownIcon(f"there is no icon {name!r}") from None
    return mark_safe(text.replace('class="ico"', f'class="ico {classes}"', 1) if classes else text)


@register.simple_tag
def icon(name: str, classes: str = "") -> SafeString:
    """`{% icon "server" %}`, `{% icon "search" "s" %}`: the file templates/icons/NAME.svg, inline."""
    if not re.fullmatch(r"[a-z-]+", name) or not re.fullmatch(r"[a-z -]*", classes):
        raise UnknownIcon(f"there is no icon {name!r}")
    return _icon(name, classes)


@register.simple_tag
def badge(state: str, word: str = "") -> SafeString:
    """A pill: `{% badge node.status %}`, `{% badge job.look %}`, `{% badge preset.risk %}`."""
    look = look_of(state)
    spin = "spin" if look.tone == "run" else ""
    return format_html(
        '<span class="pill" data-s="{}">{}{}</span>', look.tone, _icon(look.icon, spin), word or look.word
    )


@register.simple_tag
def status(state: str, word: str = "") -> SafeString:
    """A state without its ground, for dense places: `{% status node.status %}`."""
    look = look_of(state)
    return format_html(
        '<span class="status" data-s="{}">{}{}</span>', look.tone, _icon(look.icon, ""), word or look.word
    )


@register.simple_tag
def state_icon(state: str, classes: str = "") -> SafeString:
    return _icon(look_of(state).icon, classes)


@register.filter
def tone(state: str) -> str:
    """The `data-s` of a state."""
    return look_of(state).tone


@register.filter
def word(state: str) -> str:
    return look_of(state).word


@register.simple_tag
def ago(at: datetime | None, missing: str = "never") -> SafeString | str:
    """`<time>` that the page keeps current: `{% ago node.last_seen_at %}`."""
    if at is None:
        return missing
    return format_html(
        '<time datetime="{}" title="{}" data-rel>{}</time>',
        at.isoformat(),
        f"{at:%Y-%m-%d %H:%M:%S} UTC",
        words.moment(at, timezone.now()),
    )


@register.simple_tag
def clock(at: datetime | None) -> SafeString:
    """The time of day, with its date in the title."""
    if at is None:
        return NO_DATA
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', at.isoformat(), f"{at:%Y-%m-%d %H:%M:%S} UTC", f"{at:%H:%M:%S}"
    )


@register.simple_tag
def running_for(since: datetime | None) -> SafeString:
    """A duration that counts up on the page."""
    if since is None:
        return NO_DATA
    seconds = (timezone.now() - since).total_seconds()
    return format_html('<time datetime="{}" data-for>{}</time>', since.isoformat(), words.duration(seconds))


@register.simple_tag(name="bytes")
def bytes_(count: float | None) -> SafeString | str:
    """`{% bytes job.stdout_bytes %}`."""
    return NO_DATA if count is None else words.size(count)


@register.simple_tag
def duration(seconds: float | None) -> SafeString | str:
    """`{% duration 252 %}` is 4 min 12 s."""
    return NO_DATA if seconds is None else words.duration(seconds)


@register.simple_tag
def percent(value: float | None, digits: int = 0) -> SafeString | str:
    """`{% percent node.cpu_percent %}`; a missing value is a dash that is read as “no data”."""
    return NO_DATA if value is None else f"{value:.{digits}f}{words.NBSP}%"


@register.filter
def whole(value: float | None) -> SafeString | str:
    return NO_DATA if value is None else f"{value:.0f}"


@register.simple_tag
def meter(value: float | None, colour: str = "disk", state: str = "") -> SafeString:
    """A thin bar; `state` (ok, warn, crit) wins over the series' colour."""
    kind = format_html('data-s="{}"', state) if state else format_html('data-c="{}"', colour)
    bar = format_html('<rect width="{}%"/>', f"{min(max(value, 0), 100):.0f}") if value else ""
    return format_html('<svg class="meter" aria-hidden="true" {}>{}</svg>', kind, bar)


@register.simple_tag
def sparkline(values: Sequence[float | None] | None, colour: str = "cpu", classes: str = "") -> SafeString:
    """A line over evenly spaced percentages; nothing when there are none."""
    line = drawing.spark_path(values) if values else ""
    if not line:
        return mark_safe("")
    area = (
        ""
        if "inline" in classes
        else format_html('<path class="a" d="{}"/>', drawing.spark_path(values or [], area=True))
    )
    return format_html(
        '<svg class="spark {}" data-c="{}" viewBox="0 0 120 32" preserveAspectRatio="none" aria-hidden="true">{}'
        '<path d="{}"/></svg>',
        classes,
        colour,
        area,
        line,
    )


@register.filter
def middle(text: str, limit: int = 28) -> str:
    return words.middle(text, limit)


@register.filter
def heat(value: float | None) -> int:
    """The step, 0 to 4, of a heat cell."""
    return 0 if value is None else min(4, int(value // 20))


@register.filter
def counted(count: int, noun: str) -> str:
    """`{{ 3|counted:"node" }}` is “3 nodes”; `{{ 1|counted:"query,queries" }}` names the plural."""
    one, _, many = noun.partition(",")
    return words.plural(int(count), one, many)


@register.filter
def fact(value: Any) -> str:
    """A value out of JSON, in words: `{{ value|fact }}`."""
    return words.fact(value)


@register.filter
def number(count: int) -> str:
    """1,042"""
    return f"{count:,}"


@register.filter
def initials(name: str) -> str:
    parts = [part for part in name.replace("@", " ").replace(".", " ").split() if part]
    return ((parts[0][0] + (parts[1][0] if len(parts) > 1 else "")) if parts else "?").upper()


@register.filter
def short_id(value: object) -> str:
    """The first eight characters of a UUID or a hash; links carry it whole."""
    return str(value)[:8]


@register.simple_tag(takes_context=True)
def with_query(context: template.Context, **changes: Any) -> str:
    """This page's address with some parameters changed (an empty value takes one out): for filters and pages."""
    query: QueryDict = context["request"].GET.copy()
    for name, value in changes.items():
        if value in ("", None):
            query.pop(name, None)
        else:
            query[name] = str(value)
    query.pop("page", None) if "page" not in changes else None
    return f"?{query.urlencode()}" if query else "?"


@register.simple_tag
def json_data(value: object) -> SafeString:
    """JSON that is safe inside `<script type="application/json">`."""
    text = json.dumps(value, separators=(",", ":"))
    return mark_safe(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


@register.simple_tag
def bash_lines(source: str, bad: Sequence[int] = (), marked: Sequence[int] = ()) -> SafeString:
    """Highlighted lines of bash; `bad` and `marked` are line numbers from 1."""
    return bash.highlight(source, bad=bad, marked=marked)


@register.filter
def get(mapping: Mapping[Any, Any] | None, key: Any) -> Any:
    """`{{ errors|get:name }}`."""
    return None if mapping is None else mapping.get(key)
