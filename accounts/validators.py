"""Password rules that Django has not: an upper length, and words that this place suggests."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError

MAX_LENGTH = 128


class MaximumLengthValidator:
    def validate(self, password: str, user: Any = None) -> None:
        if len(password) > MAX_LENGTH:
            raise ValidationError(f"This password is longer than {MAX_LENGTH} characters.", code="password_too_long")

    def get_help_text(self) -> str:
        return f"Your password can have at most {MAX_LENGTH} characters."


class ContextWordsValidator:
    """The product's name and this host's are the first guesses: what is left without them must be long enough."""

    MIN_REST = 8

    def validate(self, password: str, user: Any = None) -> None:
        rest = password.casefold()
        for word in self._words():
            rest = rest.replace(word, "")
        if len(rest) < self.MIN_REST and rest != password.casefold():
            raise ValidationError("This password is little more than the name of this place.", code="password_context")

    def _words(self) -> list[str]:
        host = urlsplit(settings.HYPRBOX_PUBLIC_URL).hostname or ""
        words = {"hyprbox", "hyprnode", *(part for part in re.split(r"[^a-z0-9]+", host) if len(part) >= 4)}
        return sorted(words, key=len, reverse=True)

    def get_help_text(self) -> str:
        return "Your password cannot be little more than the name of this place."
