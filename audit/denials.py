"""Refused callers in the log: one entry for each actor and route, or stranger's address, and minute.

The first refusal of a minute is the entry, the further ones are counted; the next entry of the same kind says how many
there were. Of strangers only so many addresses get entries of their own: whoever has a thousand does not fill the log.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction

from audit import services
from audit.actions import Action
from audit.counting import Count, count_minute
from hyprbox.lib.actors import Actor
from hyprbox.lib.refusals import Refusal
from hyprbox.lib.rowmac import RowTampered

STRANGERS_A_MINUTE = 30
_STRANGERS, _OTHERS = "strangers", "other strangers"


def note(refusals: Sequence[Refusal]) -> None:
    """Record what is the first of its kind in this minute, count the rest; in a transaction of its own."""
    with transaction.atomic():
        for refusal in refusals:
            if isinstance(refusal.error, RowTampered):
                services.note_tampered(refusal.error, by=refusal.by)
        rest = {refusal.key: refusal for refusal in refusals if not isinstance(refusal.error, RowTampered)}
        if rest:
            _note(rest)


def _note(by_key: dict[str, Refusal]) -> None:
    counts = count_minute({key: refusal.times for key, refusal in by_key.items()})
    firsts = [key for key, refusal in by_key.items() if counts[key].now == refusal.times]
    strangers = [key for key in firsts if not by_key[key].by.is_known]
    crowd = _beyond_limit(strangers) if strangers else []
    for key in firsts:
        if key not in crowd:
            _record(by_key[key], counts[key])
    if crowd:
        times = sum(by_key[key].times for key in crowd)
        count = count_minute({_OTHERS: times})[_OTHERS]
        if count.now == times:
            detail = {"addresses": f"more than {STRANGERS_A_MINUTE} in this minute", **count.before()}
            services.record(Action.ACCESS_DENIED, by=Actor.anonymous(), target="address:others", detail=detail)


def _beyond_limit(strangers: list[str]) -> list[str]:
    """Those for which there is no entry of their own left in this minute."""
    seen = count_minute({_STRANGERS: len(strangers)})[_STRANGERS].now - len(strangers)
    return strangers[max(0, STRANGERS_A_MINUTE - seen) :]


def _record(refusal: Refusal, count: Count) -> None:
    detail = {"route": refusal.route, "method": refusal.method, "error": refusal.error.code, **count.before()}
    target = f"route:{refusal.route}" if refusal.by.is_known else f"address:{refusal.by.ip}"
    services.record(Action.ACCESS_DENIED, by=refusal.by, target=target, detail=detail)
