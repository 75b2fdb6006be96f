"""Custom presets: every verb, every revision, and rows that were edited behind HyprBox's back."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from accounts.models import User
from audit.models import Event
from hyprbox.lib.errors import Forbidden, InvalidInput
from hyprbox.lib.rowmac import RowTampered
from presets import selectors, services
from presets.errors import (
    PresetArchived,
    PresetChanged,
    PresetIsBuiltIn,
    PresetNameTaken,
    UnknownPreset,
    UnknownRevision,
)
from presets.models import CustomPreset, PresetRevision
from tests.factories import as_actor

TEXT = """\
# why this is here: a comment that outlives saving
name: motd
title: Message of the day
description: Writes what people read when they log in.
category: baseline
risk: safe
variables:
  - name: TEXT
    type: string
    required: true
    help: What they read.
check: |
  [[ "$(cat /etc/motd)" == "$TEXT" ]]
apply: |
  printf '%s\\n' "$TEXT" > /etc/motd
verify: |
  [[ "$(cat /etc/motd)" == "$TEXT" ]]
rollback: |
  : > /etc/motd
"""
SECOND = TEXT.replace("Message of the day", "The message of the day")
UNQUOTED = TEXT.replace("printf '%s\\n' \"$TEXT\"", "echo $TEXT")


@pytest.fixture
def motd(ada: User) -> PresetRevision:
    return services.create_preset(by=as_actor(ada), text=TEXT, note="the first")


def tamper(table: str, column: str, value: Any) -> None:
    """What someone with the database's password can do: triggers off, one UPDATE."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute(f"UPDATE {table} SET {column} = %s", [value])
        assert cursor.rowcount == 1
        cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


def audited(action: str) -> Event:
    return Event.objects.filter(action=action).latest("id")


def test_a_created_preset_is_found_listed_and_audited(motd: PresetRevision, ada: User) -> None:
    entry = selectors.find_entry("motd")
    assert (entry.is_builtin, entry.number, entry.saved_by, entry.source) == (False, 1, ada.email, TEXT)
    assert selectors.find_preset("motd").revision == motd.sha256 == entry.preset.revision
    assert "motd" in [preset.name for preset in selectors.list_presets()]
    assert audited("preset.created").target == audited("preset.revised").target == "preset:motd"
    assert audited("preset.revised").detail == {"number": 1, "revision": motd.sha256, "note": "the first"}


@pytest.mark.parametrize("role", ["otto", "vera"])
def test_only_admins_write(motd: PresetRevision, role: str, request: pytest.FixtureRequest) -> None:
    by = as_actor(request.getfixturevalue(role))
    for verb in (
        lambda: services.create_preset(by=by, text=TEXT.replace("motd", "other")),
        lambda: services.save_revision(by=by, name="motd", text=SECOND),
        lambda: services.duplicate_preset(by=by, name="motd", new_name="other"),
        lambda: services.archive_preset(by=by, name="motd"),
        lambda: services.restore_preset(by=by, name="motd"),
    ):
        with pytest.raises(Forbidden):
            verb()
    assert (CustomPreset.objects.count(), PresetRevision.objects.count()) == (1, 1)


def test_every_save_is_a_revision_that_stays(motd: PresetRevision, ada: User) -> None:
    by = as_actor(ada)
    second, is_new = services.save_revision(by=by, name="motd", text=SECOND, base=motd.sha256, note="a better title")
    assert (is_new, second.number, selectors.find_preset("motd").title) == (True, 2, "The message of the day")
    assert [each.number for each in selectors.list_revisions(by=by, name="motd")] == [2, 1]
    assert selectors.find_revision(by=by, name="motd", number=1).source == TEXT
    lines = selectors.diff(by=by, name="motd", old=1, new=2)
    assert lines[:2] == ["--- revision 1", "+++ revision 2"]
    assert [line for line in lines if line[0] in "+-"][2:] == [
        "-title: Message of the day",
        "+title: The message of the day",
    ]
    with pytest.raises(UnknownRevision):
        selectors.find_revision(by=by, name="motd", number=3)


def test_saving_the_same_text_makes_no_revision(motd: PresetRevision, ada: User) -> None:
    same, is_new = services.save_revision(by=as_actor(ada), name="motd", text=TEXT)
    assert (is_new, same.pk, PresetRevision.objects.count()) == (False, motd.pk, 1)


@pytest.mark.parametrize("by_number", [True, False])
def test_of_two_editors_the_second_one_is_told(motd: PresetRevision, ada: User, by_number: bool) -> None:
    by, base = as_actor(ada), "1" if by_number else motd.sha256
    services.save_revision(by=by, name="motd", text=SECOND, base=base)
    with pytest.raises(PresetChanged) as caught:
        services.save_revision(by=by, name="motd", text=TEXT.replace("safe", "confirm"), base=base)
    assert caught.value.detail["number"] == 2
    assert PresetRevision.objects.count() == 2


def test_lint_errors_are_refused_with_their_place(ada: User) -> None:
    with pytest.raises(InvalidInput) as caught:
        services.create_preset(by=as_actor(ada), text=UNQUOTED)
    assert caught.value.fields["apply"][0].startswith("Line 1, column 6: TEXT is unquoted")
    finding = next(each for each in caught.value.detail["findings"] if each["code"] == "unquoted")
    assert (finding["line"], finding["column"], finding["document_line"], finding["document_column"]) == (1, 6, 15, 8)
    assert not CustomPreset.objects.exists()


def test_an_admin_can_overrule_the_lint_and_that_is_audited(ada: User) -> None:
    revision = services.create_preset(by=as_actor(ada), text=UNQUOTED, waive=True)
    assert "unquoted" in revision.waived
    assert "unquoted" in audited("preset.revised").detail["waived"]


def test_nobody_overrules_bash(ada: User) -> None:
    with pytest.raises(InvalidInput):
        services.create_preset(by=as_actor(ada), text=TEXT.replace("  : > /etc/motd", "  if then"), waive=True)


def test_windows_line_ends_are_converted_when_saving(ada: User) -> None:
    revision = services.create_preset(by=as_actor(ada), text=TEXT.replace("\n", "\r\n"))
    assert revision.source == TEXT and "\r" not in selectors.find_preset("motd").apply


def test_names_are_unique_and_stay(motd: PresetRevision, ada: User) -> None:
    by = as_actor(ada)
    for name in ("motd", "system-report"):
        with pytest.raises(PresetNameTaken):
            services.create_preset(by=by, text=TEXT.replace("name: motd", f"name: {name}"))
    with pytest.raises(InvalidInput) as reserved:
        services.create_preset(by=by, text=TEXT.replace("name: motd", "name: new"))
    assert "another name" in reserved.value.fields["name"][0]
    with pytest.raises(InvalidInput) as renamed:
        services.save_revision(by=by, name="motd", text=TEXT.replace("name: motd", "name: other"))
    assert "duplicate it" in renamed.value.fields["name"][0]


def test_built_in_presets_are_not_changed_but_duplicated(ada: User) -> None:
    by = as_actor(ada)
    with pytest.raises(PresetIsBuiltIn):
        services.save_revision(by=by, name="swap-file", text=TEXT)
    with pytest.raises(PresetIsBuiltIn):
        services.archive_preset(by=by, name="swap-file")
    revision = services.duplicate_preset(by=by, name="swap-file", new_name="my-swap")
    entry = selectors.find_entry("my-swap")
    assert (entry.origin, revision.number) == ("swap-file", 1)
    assert entry.preset.apply == selectors.find_preset("swap-file").apply


def test_export_and_import_are_the_same_text(motd: PresetRevision) -> None:
    assert services.export_yaml(selectors.find_entry("motd")) == TEXT


def test_an_archived_preset_is_put_away_and_comes_back(motd: PresetRevision, ada: User) -> None:
    by = as_actor(ada)
    services.archive_preset(by=by, name="motd")
    services.archive_preset(by=by, name="motd")
    assert Event.objects.filter(action="preset.archived").count() == 1
    assert "motd" not in [preset.name for preset in selectors.list_presets()]
    with pytest.raises(PresetArchived):
        selectors.find_preset("motd")
    with pytest.raises(PresetArchived):
        services.save_revision(by=by, name="motd", text=SECOND)
    services.restore_preset(by=by, name="motd")
    assert selectors.find_preset("motd").revision == motd.sha256


def test_an_unknown_preset_is_said_so(ada: User) -> None:
    with pytest.raises(UnknownPreset):
        services.save_revision(by=as_actor(ada), name="nothing", text=TEXT)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE presets_presetrevision SET note = 'x'",
        "UPDATE presets_presetrevision SET note = 'x', mac = ''",
        "UPDATE presets_presetrevision SET row_version = 9",
        "DELETE FROM presets_presetrevision",
    ],
)
def test_the_database_refuses_to_change_a_revision(motd: PresetRevision, statement: str) -> None:
    with pytest.raises(DatabaseError, match="is final"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.parametrize(
    "statement", ["UPDATE presets_custompreset SET name = 'x'", "DELETE FROM presets_custompreset"]
)
def test_the_database_refuses_to_rename_or_delete_a_preset(motd: PresetRevision, statement: str) -> None:
    with pytest.raises(DatabaseError, match="keeps its name"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.parametrize(("column", "value"), [("head", 1), ("archived_at", None), ("row_version", 9)])
def test_a_preset_row_that_was_edited_is_refused(motd: PresetRevision, ada: User, column: str, value: Any) -> None:
    services.save_revision(by=as_actor(ada), name="motd", text=SECOND)
    services.archive_preset(by=as_actor(ada), name="motd")
    tamper("presets_custompreset", column, value)
    with pytest.raises(RowTampered):
        selectors.find_preset("motd")


def test_a_revision_that_was_edited_in_the_database_is_not_used(motd: PresetRevision) -> None:
    tamper("presets_presetrevision", "document", motd.document.replace("printf", "touch /tmp/owned; printf"))
    with pytest.raises(RowTampered):
        selectors.find_preset("motd")
    assert "motd" not in [preset.name for preset in selectors.list_presets()]
    assert selectors.tampered_names() == ["motd"]
