"""What can be wrong with a node token."""

from __future__ import annotations

from hyprbox.lib.errors import Conflict, Forbidden, NotAuthenticated, NotFound


class BadToken(NotAuthenticated):
    """This node token is not valid."""


class OtherNode(Forbidden):
    """This token belongs to another node."""


class UnknownToken(NotFound):
    """There is no token with that id."""


class TokenRevoked(Conflict):
    """This token is revoked already."""
