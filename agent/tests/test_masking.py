"""Secrets in output: masked wherever a read ends, and nothing else is touched."""

import random

import pytest

from agent.masking import MASK, Masker, needles

SECRETS = [
    "hunter2hunter2", "a", "aa", "abab", "0", "s3cr3t with spaces", "tab\tand\\backslash", "quote'\"`$(x)", "ünïcödé-🔑",
    "x" * 4096, "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0B\n-----END KEY-----", "***", "*", "ab", "abc", "bca", "%s%n",
    "p@ss:w0rd/", "CORRECT-horse", "correct", "horse", "A" * 63, "zz", "1234", "0000", "\u202e", "end\r\nline-two-is-long",
    " leading", "trailing ", "=base64==",
]  # fmt: skip


def masked(secrets, pieces):
    masker = Masker(secrets)
    return b"".join([*(masker.feed(piece) for piece in pieces), masker.finish()])


def plainly(secrets, text):
    """The same by marking each byte: slow and obvious."""
    marks = bytearray(len(text))
    for needle in needles(secrets):
        for at in range(len(text) - len(needle) + 1):
            if text[at : at + len(needle)] == needle:
                marks[at : at + len(needle)] = b"\1" * len(needle)
    out, before = [], 0
    for byte, mark in zip(text, marks):
        if not mark:
            out.append(bytes([byte]))
        elif not before:
            out.append(MASK)
        before = mark
    return b"".join(out)


@pytest.mark.parametrize("secret", SECRETS)
def test_every_split_of_a_secret_is_found(secret):
    assert len(SECRETS) == 30
    raw = secret.encode()
    text = b"[" + raw + b"]\n"
    whole = masked([secret], [text])
    assert raw not in whole or raw in MASK
    assert whole == plainly([secret], text)
    step = max(1, len(raw) // 50)
    for cut in range(0, len(text), step):
        assert masked([secret], [text[:cut], text[cut:]]) == whole, cut
    if len(raw) < 100:
        assert masked([secret], [bytes([byte]) for byte in text]) == whole


def test_any_secrets_in_any_pieces():
    dice = random.Random(7)
    for _ in range(3000):
        letters = "ab" if dice.random() < 0.7 else "abc\n"
        secrets = ["".join(dice.choices(letters, k=dice.randint(1, 6))) for _ in range(dice.randint(1, 4))]
        text = "".join(dice.choices(letters + "-", k=dice.randint(0, 40))).encode()
        pieces, at = [], 0
        while at < len(text):
            size = dice.randint(1, 7)
            pieces.append(text[at : at + size])
            at += size
        assert masked(secrets, pieces) == plainly(secrets, text), (secrets, pieces)


def test_what_is_no_secret_is_shown_at_once_and_as_it_is():
    masker = Masker(["secret-value"])
    every = bytes(range(256))
    assert masker.feed(every) == every
    assert masker.feed(b"a line\n") == b"a line\n"
    assert masker.feed(b"almost secret-val") == b"almost "
    assert masker.feed(b"ve\n") == b"secret-valve\n"
    assert masker.finish() == b""


def test_without_secrets_nothing_is_held():
    masker = Masker([])
    assert masker.feed(b"anything") == b"anything"
    assert Masker([""]).feed(b"anything") == b"anything"
