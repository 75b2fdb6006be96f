"""What can be wrong with a node or its heartbeat."""

from __future__ import annotations

from hyprbox.lib.errors import BodyTooLarge, Conflict, Forbidden, NotFound


class UnknownNode(NotFound):
    """There is no node by that name."""


class NodeTaken(Forbidden):
    """This node reports with another token already. Create a token for this node, or revoke the other one first."""


class NoCloneSuspected(Conflict):
    """Nothing suggests that two machines report as this node."""


class InventoryTooLarge(BodyTooLarge):
    """The inventory is larger than 256 KiB."""
