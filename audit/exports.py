"""The log as CSV and as lines of JSON, a row at a time, however long it is."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import Any

from django.db.models import QuerySet

from audit.models import Event

COLUMNS = ("n", "at", "action", "actor_kind", "actor_id", "actor_name", "target", "detail", "ip", "request_id", "hash")
FORMATS = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson; charset=utf-8"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class _Line:
    """A file that csv writes one line to, which is then taken."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text = text
        return len(text)


def lines(events: QuerySet[Event], kind: str) -> Iterator[str]:
    """The rows as text, `kind` being one of `FORMATS`."""
    return _csv(events) if kind == "csv" else _jsonl(events)


def _rows(events: QuerySet[Event]) -> Iterator[dict[str, Any]]:
    for event in events.iterator(chunk_size=1000):
        row = {name: getattr(event, name) for name in COLUMNS}
        row["at"] = f"{event.at:%Y-%m-%dT%H:%M:%S.%fZ}"
        row["hash"] = bytes(event.hash).hex() if event.hash is not None else None
        yield row


def _csv(events: QuerySet[Event]) -> Iterator[str]:
    line = _Line()
    writer = csv.writer(line, quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    yield line.text
    for row in _rows(events):
        row["detail"] = json.dumps(row["detail"], sort_keys=True, ensure_ascii=False)
        writer.writerow([harmless(value) for value in row.values()])
        yield line.text


def _jsonl(events: QuerySet[Event]) -> Iterator[str]:
    for row in _rows(events):
        yield json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"


def harmless(value: Any) -> str:
    """A cell that no spreadsheet takes for a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
