"""Values that look like secrets where none belong: whatever is no `secret_ref` is stored with the job and shown. Pure.

A guess, and so never more than a warning; the value itself is in no message.
"""

from __future__ import annotations

import re

from presets.params import Variable

# What only a credential looks like, by who issues it.
_SHAPES = (
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY")),
    ("an age key", re.compile(r"AGE-SECRET-KEY-1[0-9A-Z]{10}")),
    ("an AWS access key", re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("a GitHub token", re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{20}|github_pat_[A-Za-z0-9_]{20})")),
    ("a GitLab token", re.compile(r"\bglpat-[A-Za-z0-9_-]{16}")),
    ("a Slack token", re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10}")),
    ("a Stripe key", re.compile(r"\b[rs]k_(live|test)_[A-Za-z0-9]{10}")),
    ("a token of HyprBox", re.compile(r"\bhb(nt|ak)_[A-Za-z0-9_-]{20}")),
    ("a signed web token", re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.")),
    ("an address with a password", re.compile(r"\b[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@")),
    ("a setting with a password", re.compile(r"(?i)\b(password|passwd|passphrase|secret|api_?key)\s*[=:]\s*\S{6}")),
)
_NAME = re.compile(r"(^|_)(PASSWORD|PASSWD|PASSPHRASE|PASS|PWD|SECRET|CREDENTIALS?|TOKEN|API_?KEY|PRIVATE_KEY)$")
_FREE_TEXT = frozenset({"string", "identifier"})


def is_named_like_one(variable: Variable) -> bool:
    """Whether its name promises a secret, and its type takes the secret itself."""
    return variable.type in _FREE_TEXT and not variable.choices and bool(_NAME.search(variable.name))


def looks_like(variable: Variable, value: str) -> str | None:
    """What kind of secret this value of a variable looks like; None for an innocent one, and for pointers."""
    if not value or variable.type == "secret_ref":
        return None
    for kind, shape in _SHAPES:
        if shape.search(value):
            return kind
    # The default is in the preset for everybody to read.
    return "a secret" if is_named_like_one(variable) and value != variable.default else None
