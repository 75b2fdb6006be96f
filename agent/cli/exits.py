"""What goes wrong, in one sentence, and the exit code that says so to a script. `docs/use/cli.md` has the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REFUSED = 1
USAGE = 2
NOT_LOGGED_IN = 3
FORBIDDEN = 4
NOT_FOUND = 5
UNREACHABLE = 6
INTERRUPTED = 130
READER_GONE = 141

# What a followed job's end is told with when it has no exit code of its own.
NEVER_RAN = 121
OUTCOME_UNKNOWN = 122
CANCELLED = 123
TIMED_OUT = 124
SIGNAL_BASE = 128

_SAID_IN_FULL = ("node_id", "node_ids", "preset", "otp")  # fields whose sentences say themselves what they are about
_NEVER_RAN_REASONS = frozenset({"expired", "refused", "signature_invalid", "secret_unresolved", "clock_skew"})


class Trouble(Exception):
    """Ends the command. The message is one sentence for a person; `code` is the same for a program."""

    exit_code = REFUSED
    code = "refused"

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        exit_code: int | None = None,
        fields: Mapping[str, list[str]] | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code or self.code
        self.exit_code = self.exit_code if exit_code is None else exit_code
        self.fields, self.detail = dict(fields or {}), dict(detail or {})

    @property
    def sentences(self) -> list[str]:
        """What a person reads: the bad fields by themselves say more than the sentence over them."""
        if not self.fields:
            return [str(self)]
        return [_with_field(name, sentence) for name, found in self.fields.items() for sentence in found]

    def as_dict(self) -> dict[str, Any]:
        return {"code": self.code, "message": str(self), "fields": self.fields, "detail": self.detail}


class UsageTrouble(Trouble):
    exit_code, code = USAGE, "usage"


class LoginNeeded(Trouble):
    exit_code, code = NOT_LOGGED_IN, "not_logged_in"


class Unreachable(Trouble):
    exit_code, code = UNREACHABLE, "unreachable"


class NotThere(Trouble):
    exit_code, code = NOT_FOUND, "not_found"


def _with_field(name: str, sentence: str) -> str:
    """The API's sentences about variables name them already; others need the field's name to be understood."""
    bare = name.rpartition(".")[2]
    return sentence if bare in sentence or name in _SAID_IN_FULL else f"{bare}: {sentence}"


def exit_code_of(job: Mapping[str, Any]) -> int:
    """The exit code of a finished job, as the API or a local run tells it."""
    code, reason, number = job.get("exit_code"), job.get("reason"), job.get("signal")
    if job.get("outcome_unknown"):
        return OUTCOME_UNKNOWN
    if job["status"] == "SUCCEEDED":
        return int(code or 0)
    if job["status"] == "CANCELLED":
        return CANCELLED
    if reason == "timeout":
        return TIMED_OUT
    if reason in _NEVER_RAN_REASONS:
        return NEVER_RAN
    if code:
        return int(code)
    return SIGNAL_BASE + int(number) if number else OUTCOME_UNKNOWN


def exit_code_of_all(jobs: list[dict[str, Any]]) -> int:
    """One job: its own. Several: 0 when every one of them ended with 0, else 1."""
    codes = [exit_code_of(job) for job in jobs]
    return codes[0] if len(codes) == 1 else int(any(codes))
