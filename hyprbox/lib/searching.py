"""Searches by a part of a name read whole tables: they need enough letters, end after 2 s, and are not free."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
from django.db import OperationalError, connection, transaction

from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import InvalidInput, SearchTooSlow
from hyprbox.lib.lanes import TokenBucket

MIN_CHARACTERS = 3
HINT = f"Type at least {MIN_CHARACTERS} characters to search."
SECONDS = 2.0

_per_person = TokenBucket(rate=1.0, burst=60)


def is_too_short(words: str) -> bool:
    """Whether these words are too few letters to search for. Nothing at all is no search."""
    return 0 < len("".join(words.split())) < MIN_CHARACTERS


def require_enough(words: str) -> None:
    """Raises `InvalidInput`."""
    if is_too_short(words):
        raise InvalidInput(fields={"q": [f"At least {MIN_CHARACTERS} characters."]})


@contextlib.contextmanager
def limited(words: str, *, by: Actor) -> Iterator[None]:
    """Run what searches for `words` inside. Raises `RateLimited`, and `SearchTooSlow` after 2 s."""
    if not words.strip():
        yield
        return
    _per_person.take(by.id)
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(round(SECONDS * 1000))])
            yield
    except OperationalError as error:
        if isinstance(error.__cause__, psycopg.errors.QueryCanceled):
            raise SearchTooSlow() from error
        raise
