from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.http import HttpResponse

from hyprbox.lib import downloads

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("motd.yaml", 'attachment; filename="motd.yaml"'),
        ('a"b.yaml', 'attachment; filename="a\\"b.yaml"'),
        ("größe.log", "attachment; filename*=utf-8''gr%C3%B6%C3%9Fe.log"),
    ],
)
def test_a_name_arrives_whole(name: str, header: str) -> None:
    response = downloads.offer(HttpResponse(), name)
    assert response.headers["Content-Disposition"] == header
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("name", ["../motd.yaml", "a\r\nSet-Cookie: b", "a\0b"])
def test_what_is_no_file_name_is_a_defect(name: str) -> None:
    with pytest.raises(ValueError, match="no file name"):
        downloads.offer(HttpResponse(), name)


def test_nobody_writes_this_header_by_hand() -> None:
    folders = ("accounts", "audit", "hyprbox", "jobs", "nodes", "presets", "tokens")
    sources = (path for folder in folders for path in (ROOT / folder).rglob("*.py") if "tests" not in path.parts)
    # As a header of its own. One of a list, as CORS names those a page may read, writes nothing.
    header = re.compile(r"""b?(["'])content-disposition\1""", re.IGNORECASE)
    told = [path.name for path in sources if header.search(path.read_text())]
    assert told == ["downloads.py"]
