"""Sealed rows together with what the audit log knows of them. `hyprbox.lib.rowmac` tells how a verb uses this.

The log's newest version of a row is the highest that any entry names, not that of the last entry: whoever can insert
entries can then make a row invalid, but never make an old one valid again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from django.db import transaction
from django.db.models import Max, Model, OuterRef, QuerySet, Subquery, TextField, Value
from django.db.models.functions import Cast, Concat

from audit.models import Event
from hyprbox.lib import rowmac
from hyprbox.lib.rowmac import RowTampered, Sealed

__all__ = [
    "NEWEST",
    "RowTampered",
    "check",
    "check_all",
    "create",
    "end",
    "first",
    "lock",
    "newest_of",
    "overrule",
    "reseal",
    "reseal_existing",
    "save",
    "seal_existing",
    "with_newest",
]

M = TypeVar("M", bound=Sealed)

# The newest version for `table_pk`, an SQL expression of type text with qualified names, in statements that are not the ORM's.
NEWEST = "(SELECT max(subject_version) FROM audit_event WHERE subject_version IS NOT NULL AND subject = {table_pk})"


def with_newest(rows: QuerySet[M]) -> QuerySet[M]:
    """The same rows, each with `newest_version`, in the same query: `check` needs no other."""
    annotated: Any = rows.annotate(newest_version=newest_of(rows.model))
    found: QuerySet[M] = annotated
    return found


def newest_of(model: type[Sealed], path: str = "pk") -> Subquery:
    """The newest version of the row that `path`, its primary key in another query, leads to.

    Put it on the row itself as `newest_version` before `check`.
    """
    subject = Concat(Value(f"{model._meta.db_table}:"), Cast(OuterRef(path), TextField()))
    known = Event.objects.filter(subject=subject, subject_version__isnull=False).order_by("-subject_version")
    return Subquery(known.values("subject_version")[:1])


def check(row: Sealed) -> None:
    """Raises `RowTampered` for a row that HyprBox did not leave so. The row is locked, or comes from `with_newest`."""
    rowmac.check(row, _newest(row))


def problem(row: Sealed) -> str:
    """What is wrong with a row, or ""."""
    return rowmac.problem(row, _newest(row))


def first(rows: QuerySet[M]) -> M | None:
    """The first of these rows, checked, or None. Raises `RowTampered`."""
    row = with_newest(rows).first()
    if row is not None:
        check(row)
    return row


def lock(rows: QuerySet[M]) -> M | None:
    """The first of these rows, locked until the transaction ends and checked, or None. Raises `RowTampered`.

    The version is looked up after the lock is held: what another verb did meanwhile counts.
    """
    row = rows.select_for_update(of=("self",)).first()
    if row is not None:
        check(row)
    return row


def create(row: M) -> M:
    """Seal a new row and insert it. Its audit entry has to follow in the same transaction, with `row=`."""
    rowmac.seal(row)
    row.save(force_insert=True)
    return row


def save(row: Sealed, *fields: str) -> None:
    """Seal a row's next version and write these fields of it. Its audit entry follows in the same transaction."""
    rowmac.seal(row)
    row.save(update_fields=[*fields, "mac", "row_version"])
    row.__dict__.pop("newest_version", None)


def overrule(row: Sealed) -> None:
    """Of a locked row whose seal was not asked: count on from the newest version that the log knows.

    What is saved then is newer than every row that was ever there, also when someone had put an old one back.
    """
    row.row_version = max(row.row_version, _newest(row) or 0)


def end(row: M) -> M:
    """A row that is about to be deleted, with a version that no row has. Its audit entry names it as `row`.

    So a copy of it that someone puts back later is older than what the log knows, and opens nothing.
    """
    overrule(row)
    row.row_version += 1
    return row


def check_all(model: type[Sealed]) -> Iterator[tuple[str, str]]:
    """`(table:pk, what is wrong or "")` for every row of a model."""
    for row in with_newest(model._default_manager.all()).iterator(chunk_size=1000):
        yield rowmac.subject_of(row), problem(row)


def reseal(model: type[M]) -> tuple[int, list[tuple[str, str]]]:
    """Seal every row under the key that makes seals now; its version stays. Run it after a new key was put first.

    Returns how many were sealed anew, and `(table:pk, what is wrong)` of those that do not fit and stay as they are.
    """
    count, bad = 0, []
    for pk in list(model._default_manager.values_list("pk", flat=True)):
        with transaction.atomic():
            row = model._default_manager.select_for_update(of=("self",)).filter(pk=pk).first()
            if row is None:
                continue
            if why := problem(row):
                bad.append((rowmac.subject_of(row), why))
            elif not rowmac.is_under_first_key(row):
                row.row_version -= 1
                rowmac.seal(row)
                row.save(update_fields=["mac"])
                count += 1
    return count, bad


def seal_existing(model: type[Model], sealed: tuple[str, ...], event: type[Model]) -> int:
    """For migrations, with their historical models: seal the rows that have no seal yet. Returns how many."""
    count = 0
    with transaction.atomic():
        for row in model._default_manager.filter(row_version=0).select_for_update():
            fields: dict[str, Any] = {name: getattr(row, name) for name in sealed}
            mac = rowmac.mac_of(model._meta.db_table, row.pk, 1, fields)
            model._default_manager.filter(pk=row.pk).update(mac=mac, row_version=1)
            subject = rowmac.subject_of(row)
            event._default_manager.create(
                action="row.sealed", actor_kind="system", actor_name="migrate", target=subject,
                subject=subject, subject_version=1,
            )  # fmt: skip
            count += 1
    return count


def reseal_existing(model: type[Any], before: tuple[str, ...], after: tuple[str, ...], event: type[Model]) -> int:
    """For migrations that change what is sealed: rows whose seal over `before` fits get one over `after`.

    A row that was tampered with stays so, and is found as before. Returns how many were sealed anew.
    """
    count = 0
    with transaction.atomic():
        for row in model._default_manager.select_for_update():
            subject, version = rowmac.subject_of(row), row.row_version
            known = event._default_manager.filter(subject=subject, subject_version__isnull=False)
            newest = known.aggregate(newest=Max("subject_version"))["newest"]
            was: dict[str, Any] = {name: getattr(row, name) for name in before}
            table = model._meta.db_table
            if rowmac.problem_of(table, row.pk, version, was, mac=bytes(row.mac), newest=newest):
                continue
            now: dict[str, Any] = {name: getattr(row, name) for name in after}
            mac = rowmac.mac_of(table, row.pk, version + 1, now)
            model._default_manager.filter(pk=row.pk).update(mac=mac, row_version=version + 1)
            event._default_manager.create(
                action="row.sealed", actor_kind="system", actor_name="migrate", target=subject,
                subject=subject, subject_version=version + 1,
            )  # fmt: skip
            count += 1
    return count


def _newest(row: Sealed) -> int | None:
    if hasattr(row, "newest_version"):
        known: int | None = row.newest_version
        return known
    found: int | None = Event.objects.filter(subject=rowmac.subject_of(row), subject_version__isnull=False).aggregate(
        newest=Max("subject_version")
    )["newest"]
    return found
