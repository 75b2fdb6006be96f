"""What a `node_id` may look like. Pure."""

from __future__ import annotations

import re

MAX_LENGTH = 63
PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z"
HINT = "A letter or digit, then up to 62 letters, digits, dots, underscores or hyphens."
_NODE_ID = re.compile(PATTERN)


def is_node_id(text: str) -> bool:
    """`[A-Za-z0-9][A-Za-z0-9._-]{0,62}`, ASCII only."""
    return _NODE_ID.match(text) is not None
