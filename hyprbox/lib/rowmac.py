"""Seals on rows that lead to execution or access: whoever can write into the database cannot make one.

A seal is an HMAC-SHA-256 with a key outside the database (`HYPRBOX_MAC_KEY_FILE`), over the table, the primary key, the
row's version and the fields that its model names. So an edited field, a copied row and a swapped row do not verify. An
older row that was valid once does verify; it is found out by its version, which is not the newest one that the audit log
has for it. Hence two halves: this module makes and checks seals, `audit.sealed` adds what the log knows, and verbs use
that one.

A model declares what is sealed, and gets the columns `mac` and `row_version`:

    class Pin(Sealed):
        node = models.ForeignKey(...)
        preset = models.CharField(...)
        checked_at = models.DateTimeField(null=True)      # not sealed: a task may write it without more ado

        SEALED = ("node_id", "preset")                    # attribute names: foreign keys with _id, no primary key

A verb then makes, changes and reads rows so (all in the transaction of the act; nothing happens on `save()`):

    pin = sealed.create(Pin(node=node, preset=name))      # seals version 1 and inserts
    audit.record(Action.PIN_CREATED, by=by, target=..., row=pin)        # `row` notes the version: without it no check passes

    pin = sealed.lock(Pin.objects.filter(pk=pk))          # SELECT ... FOR UPDATE and checked, or None; raises RowTampered
    pin.preset = other
    sealed.save(pin, "preset")                            # seals the next version and writes these columns
    audit.record(Action.PIN_CHANGED, by=by, target=..., row=pin)

    pin = sealed.first(Pin.objects.filter(node=node))     # a checked row for use, or None; raises RowTampered

Rows that existed before their model was sealed are sealed by a migration that calls `audit.sealed.seal_existing`.
`manage.py integrity_verify` checks every model that derives from `Sealed`.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from django.apps import apps
from django.db import models

from hyprbox.lib import mackey, seals
from hyprbox.lib.errors import HyprBoxError


class RowTampered(HyprBoxError):
    """This row was changed by something else than HyprBox, so it is not used."""

    status = 409
    is_refusal = True

    def __init__(self, subject: str = "", why: str = "") -> None:
        super().__init__(detail={"row": subject, "why": why})
        self.subject, self.why = subject, why


class Sealed(models.Model):
    """A row with a seal. `row_version` counts its seals from 1."""

    mac = models.BinaryField(max_length=32, default=b"", editable=False)
    row_version = models.PositiveIntegerField(default=0, editable=False)

    SEALED: ClassVar[tuple[str, ...]] = ()

    class Meta:
        abstract = True


def mac_of(table: str, pk: Any, version: int, fields: Mapping[str, Any]) -> bytes:
    """The seal over plain values, for those who read rows without the ORM. 32 bytes."""
    return seals.mac(mackey.key(), table, pk, version, fields)


def is_under_first_key(row: Sealed) -> bool:
    """Whether the row's seal is right, and of the key that makes seals now."""
    return hmac.compare_digest(bytes(row.mac), _mac(row))


def subject_of(row: models.Model) -> str:
    """How the audit log calls a row: `tokens_nodetoken:0b2c...`."""
    return f"{row._meta.db_table}:{row.pk}"


def seal(row: Sealed) -> None:
    """Give a row its next version and the seal for its present fields. Writes nothing to the database."""
    row.row_version += 1
    row.mac = _mac(row)


def check(row: Sealed, newest: int | None) -> None:
    """Raises `RowTampered` unless the seal is right and `newest`, the version of which the audit log knows, is the row's."""
    if why := problem(row, newest):
        raise RowTampered(subject_of(row), why)


def problem(row: Sealed, newest: int | None) -> str:
    """What is wrong with a row, or ""."""
    fields = dict(_fields(row))
    return problem_of(row._meta.db_table, row.pk, row.row_version, fields, mac=bytes(row.mac), newest=newest)


def problem_of(table: str, pk: Any, version: int, fields: Mapping[str, Any], *, mac: bytes, newest: int | None) -> str:
    """`problem` for plain values."""
    content = seals.canonical(table, pk, version, fields)
    if not any(hmac.compare_digest(mac, seals.over(key, content)) for key in mackey.keys().seals):
        return "its seal does not fit"
    if newest is None:
        return "the audit log does not know it"
    if version != newest:
        return f"it is version {version}, and the newest in the audit log is {newest}"
    return ""


def models_with_seals() -> list[type[Sealed]]:
    return [model for model in apps.get_models() if issubclass(model, Sealed)]


def _mac(row: Sealed) -> bytes:
    return mac_of(row._meta.db_table, row.pk, row.row_version, dict(_fields(row)))


def _fields(row: Sealed) -> Iterator[tuple[str, Any]]:
    """Values as the database will give them back: a UUID that was assigned as text is one all the same."""
    for name in row.SEALED:
        field = row._meta.get_field(name)
        assert isinstance(field, models.Field), name
        yield name, field.to_python(getattr(row, name))
