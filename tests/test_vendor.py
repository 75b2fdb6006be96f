"""What is vendored is what `static/vendor/README.md` says, to the byte."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

STATIC = Path(__file__).resolve().parent.parent / "static"
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \| `([0-9a-f]{64})` \|$", re.MULTILINE)


def test_every_vendored_file_has_its_line_and_its_hash() -> None:
    listed = {match[1]: match[5] for match in ROW.finditer((STATIC / "vendor" / "README.md").read_text())}
    files = [*(STATIC / "vendor").glob("*.min.*"), *(STATIC / "fonts").glob("*.woff2")]
    present = {str(path.relative_to(STATIC)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert present == listed


def test_pages_ask_nobody_else() -> None:
    for path in [*STATIC.glob("css/*.css"), *STATIC.glob("js/*.js")]:
        assert not re.search(r"https?://(?!www\.w3\.org)", path.read_text()), path
