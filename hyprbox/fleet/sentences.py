"""The sentences of the fleet pages. Pure: figures in, words out."""

from __future__ import annotations

from collections.abc import Sequence

from hyprbox.lib.words import NBSP, plural
from nodes.selectors import Counts, NodeCard
from nodes.status import Status

NAMED = 2
_SMALL = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def number(count: int) -> str:
    """Small numbers in words, as in a sentence."""
    return _SMALL[count] if count < len(_SMALL) else f"{count:,}"


def headline(counts: Counts) -> str:
    """The one sentence that answers whether all is well."""
    critical, offline = counts.by_status[Status.CRITICAL], counts.by_status[Status.OFFLINE]
    warning, unknown = counts.by_status[Status.WARNING], counts.by_status[Status.UNKNOWN]
    if critical:
        return f"{_of_all(critical, counts.total)} critical"
    if offline:
        return f"{_of_all(offline, counts.total)} offline"
    if warning:
        return f"{_of_all(warning, counts.total)} in need of a look"
    if unknown == counts.total:
        return "Waiting for the first heartbeat"
    return "All nodes are well" if counts.total > 1 else "The node is well"


def _of_all(count: int, total: int) -> str:
    verb = "is" if count == 1 else "are"
    return f"{count:,} of {plural(total, 'node')} {verb}" if total > 200 else f"{plural(count, 'node')} {verb}"


def lead(counts: Counts, worst: Sequence[NodeCard]) -> str:
    """What stands below it: the worst by name, then the rest in figures."""
    parts = [_names(worst)] if worst and counts.total <= 200 else []
    named = len(worst[:NAMED]) if parts else 0
    more = counts.needing_attention - named
    if more > 0:
        parts.append(
            f"{number(more).capitalize()} {'more' if named else ''} need{'s' if more == 1 else ''} a look.".replace(
                "  ", " "
            )
        )
    if unknown := counts.by_status[Status.UNKNOWN]:
        parts.append(f"{number(unknown).capitalize()} {'has' if unknown == 1 else 'have'} not reported yet.")
    healthy = counts.by_status[Status.ONLINE]
    if healthy and (counts.needing_attention or unknown):
        parts.append(f"The other {f'{healthy:,} are' if healthy > 1 else 'one is'} healthy.")
    if not parts:
        parts.append(
            f"{number(healthy).capitalize()} {'node reports' if healthy == 1 else 'nodes report'}, none above a limit."
        )
    return " ".join(parts)


def _names(worst: Sequence[NodeCard]) -> str:
    facts = [f"{card.label}: {_reason(card)}" for card in worst[:NAMED]]
    return " ".join(facts)


def _reason(card: NodeCard) -> str:
    return card.reasons[0].message if card.reasons else f"{card.status.label}."


def node_lead(card: NodeCard) -> str:
    """Below a node's name: its reasons, or that there are none."""
    if card.reasons:
        return " ".join(reason.message for reason in card.reasons)
    return "Everything is below its limits."


def boxes_label(counts: Counts) -> str:
    """The strip of boxes, for whoever cannot see it."""
    present = [f"{count} {status.label.lower()}" for status, count in counts.by_status.items() if count]
    return ", ".join(present).replace(" ", NBSP, 1)
