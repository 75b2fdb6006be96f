"""Which servers a preset is for: named ones, or all that have a tag, a group or a status of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent.cli.api import Api
from agent.cli.exits import NotThere, UsageTrouble
from agent.cli.options import without_empty
from agent.cli.printing import warn

LOCAL = "local"
MAX_TARGETS = 1000


@dataclass(frozen=True)
class Targets:
    """`node_ids` are named; of the other kinds one of each has to fit, as in the API."""

    node_ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises `UsageTrouble` for none, and for more than one way to say it."""
        if bool(self.node_ids) == bool(self.tags or self.groups or self.statuses):
            raise UsageTrouble("Say where: either --target NODE, or --tag, --group or --status.")
        if self.is_here and len(set(self.node_ids)) > 1:
            raise UsageTrouble("--target=local runs here, without a control plane: it goes with no other target.")

    @property
    def is_here(self) -> bool:
        return LOCAL in self.node_ids

    def find(self, api: Api) -> list[str]:
        """The node_ids: what a person is asked about is what then runs. Raises `NotThere`, `UsageTrouble`."""
        if self.node_ids:
            return list(dict.fromkeys(self.node_ids))
        query = without_empty(
            status=self.statuses,
            tag=self.tags[0] if len(self.tags) == 1 else "",
            group=self.groups[0] if len(self.groups) == 1 else "",
        )
        fitting = [node for node in api.pages("/api/nodes", query) if self._fits(node)]
        found = [node["node_id"] for node in fitting if node["last_seen_at"]]
        if not fitting:
            raise NotThere(f"No server has {self._words()}.", code="no_target")
        if not found:
            raise NotThere(f"No server with {self._words()} has ever reported.", code="no_target")
        if awaited := len(fitting) - len(found):
            some = "1 server has" if awaited == 1 else f"{awaited:,} servers have"
            warn(f"{some} never reported and will not get a job.")
        if len(found) > MAX_TARGETS:
            raise UsageTrouble(
                f"{len(found):,} servers have {self._words()}; at most {MAX_TARGETS:,} are possible at once."
            )
        return found

    def _fits(self, node: dict[str, Any]) -> bool:
        has_tag = not self.tags or bool(set(self.tags) & set(node["tags"]))
        return has_tag and (not self.groups or node["group"] in self.groups)

    def _words(self) -> str:
        statuses = [part.lower() for status in self.statuses for part in status.split(",")]
        kinds = (("tag", self.tags), ("group", self.groups), ("status", tuple(statuses)))
        return " and ".join(
            f"the {kind} " + " or ".join(f"“{name}”" for name in given) for kind, given in kinds if given
        )


def named(node_ids: list[str]) -> str:
    """The servers in a question: all of a few, else how many."""
    if len(node_ids) <= 5:
        return ", ".join(node_ids)
    return f"{len(node_ids):,} servers ({', '.join(node_ids[:3])}, ...)"
