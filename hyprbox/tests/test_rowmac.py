"""Seals over plain values: what they bind, and the file of their key."""

from __future__ import annotations

import datetime as dt
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyprbox import startup
from hyprbox.lib import mackey, rowmac, seals

PK = uuid.UUID(int=7)
FIELDS: dict[str, Any] = {"role": "viewer", "digest": b"\x01\x02", "at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "n": 1}
_leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.binary(), st.uuids())
_values = st.recursive(_leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6)


def mac(table: str = "t", pk: Any = PK, version: int = 1, **over: Any) -> bytes:
    return rowmac.mac_of(table, pk, version, {**FIELDS, **over})


def test_a_seal_binds_table_key_version_and_every_field() -> None:
    others = [
        mac("u"),
        mac(pk=uuid.UUID(int=8)),
        mac(version=2),
        mac(role="admin"),
        mac(digest=b"\x01\x03"),
        mac(at=dt.datetime(2026, 1, 2, 0, 0, 0, 1, tzinfo=dt.UTC)),
        mac(n=2),
        mac(n=True),
        mac(n="1"),
        mac(extra=None),
    ]
    assert len({mac(), *others}) == 1 + len(others)
    assert mac() == mac()


def test_the_same_moment_in_another_zone_is_the_same() -> None:
    east = dt.timezone(dt.timedelta(hours=2))
    assert mac(at=dt.datetime(2026, 1, 2, 2, tzinfo=east)) == mac()
    assert mac(digest=memoryview(b"\x01\x02")) == mac()


def _shape(value: Any) -> Any:
    """The value with the kind of each part, so that 1 and True are two."""
    if isinstance(value, dict):
        return ("dict", frozenset((name, _shape(item)) for name, item in value.items()))
    return ("list", tuple(map(_shape, value))) if isinstance(value, list) else (type(value).__name__, value)


@given(_values, _values)
def test_different_values_give_different_bytes(one: Any, other: Any) -> None:
    bytes_of = [seals.canonical("t", 1, 1, {"x": value}) for value in (one, other)]
    assert (bytes_of[0] == bytes_of[1]) == (_shape(one) == _shape(other))


def test_what_the_database_has_yet_to_compute_cannot_be_sealed() -> None:
    with pytest.raises(TypeError, match="object cannot be sealed"):
        seals.canonical("t", 1, 1, {"x": object()})


def test_the_verdict_names_what_is_wrong() -> None:
    def verdict(mac: bytes, newest: int | None) -> str:
        return rowmac.problem_of("t", PK, 3, FIELDS, mac=mac, newest=newest)

    right = rowmac.mac_of("t", PK, 3, FIELDS)
    assert verdict(right, 3) == ""
    assert verdict(b"", 3) == verdict(right[:-1] + b"\0", 3) == "its seal does not fit"
    assert verdict(right, None) == "the audit log does not know it"
    assert verdict(right, 4) == "it is version 3, and the newest in the audit log is 4"


def test_another_key_makes_other_seals(settings: Any, tmp_path: Path) -> None:
    before = mac()
    settings.HYPRBOX_MAC_KEY_FILE = tmp_path / "mac.key"
    mackey.create_key(settings.HYPRBOX_MAC_KEY_FILE)
    kept = mac()
    mackey.create_key(settings.HYPRBOX_MAC_KEY_FILE)  # one that is there stays
    assert mac() == kept != before


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("text", "mode", "word"),
    [(None, 0, "mac_key create"), ("ab" * 32, 0o440, "mode 0400"), ("ab" * 31, 0o400, "32 bytes"), ("?", 0o400, "hex")],
)
def test_the_web_process_does_not_start_with_a_bad_key(
    settings: Any, tmp_path: Path, text: str | None, mode: int, word: str
) -> None:
    path = settings.HYPRBOX_MAC_KEY_FILE = tmp_path / "mac.key"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    assert any(str(path) in sentence and word in sentence for sentence in startup.refusals())


def test_development_makes_its_key(settings: Any, tmp_path: Path) -> None:
    settings.DEBUG, settings.HYPRBOX_MAC_KEY_FILE = True, tmp_path / "mac.key"
    assert len(mackey.key()) == 32
    assert settings.HYPRBOX_MAC_KEY_FILE.stat().st_mode & 0o777 == 0o400
