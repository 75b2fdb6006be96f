"""The editor's pages: a draft is reviewed, saved, compared, put away; what cannot be saved comes back with its text."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from accounts.models import User
from presets import selectors, services
from presets.models import PresetRevision
from presets.tests.test_custom import SECOND, TEXT, UNQUOTED, tamper
from tests.factories import as_actor


@pytest.fixture
def motd(ada: User) -> PresetRevision:
    return services.create_preset(by=as_actor(ada), text=TEXT)


@pytest.fixture
def admin(client: Client, ada: User) -> Client:
    client.force_login(ada)
    return client


def text_of(answer: Any, status: int = 200) -> str:
    assert answer.status_code == status, answer.content.decode()[:2000]
    return str(answer.content.decode())


def test_a_new_preset_begins_with_one_that_can_be_saved(admin: Client) -> None:
    page = text_of(admin.get("/presets/new/"))
    assert "Nothing to complain about" in page or "no errors" in page


def test_the_page_names_whom_it_asked(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = {"bash": "/bin/bash", "shellcheck": "/usr/bin/shellcheck"}
    monkeypatch.setattr("presets.shelltools.shutil.which", lambda name, path=None: programs.get(name))
    monkeypatch.setattr("presets.shelltools.shellcheck", lambda preset: ())
    assert "lint, bash -n, ShellCheck<" in text_of(admin.get("/presets/new/"))
    del programs["shellcheck"]
    page = text_of(admin.get("/presets/new/"))
    assert "lint, bash -n<" in page and "ShellCheck" not in page


def test_saving_leads_to_the_preview_and_the_catalogue_shows_the_origin(admin: Client) -> None:
    answer = admin.post("/presets/new/", {"text": TEXT.replace("\n", "\r\n"), "note": "the first"})
    assert answer.headers["Location"] == "/presets/motd/"
    assert selectors.find_entry("motd").source == TEXT
    page = text_of(admin.get("/presets/motd/"))
    assert "custom, revision 1" in page and "/presets/motd/edit/" in page
    catalogue = text_of(admin.get("/presets/"))
    assert "custom · 1" in catalogue and "built in" in catalogue


def test_what_cannot_be_saved_comes_back_with_its_findings(admin: Client) -> None:
    page = text_of(admin.post("/presets/new/", {"text": UNQUOTED, "note": "keep me"}), 400)
    assert "echo $TEXT" in page and "keep me" in page
    assert 'data-line="15"' in page and "TEXT is unquoted" in page
    assert "Save in spite of the lint" in page
    assert admin.post("/presets/new/", {"text": UNQUOTED, "waive": "1"}).status_code == 302


def test_the_live_review_answers_with_findings_and_script(admin: Client) -> None:
    page = text_of(admin.post("/presets/review/", {"text": UNQUOTED}, headers={"HX-Request": "true"}))
    assert "TEXT is unquoted" in page and "hb_apply" in page and 'id="foot" hx-swap-oob="true"' in page
    broken = text_of(admin.post("/presets/review/", {"text": "name: ["}, headers={"HX-Request": "true"}))
    assert "not valid YAML" in broken and "disabled" in broken


def test_of_two_editors_the_second_keeps_the_text_and_is_told(admin: Client, motd: PresetRevision) -> None:
    page = text_of(admin.get("/presets/motd/edit/"))
    assert f'name="base" value="{motd.sha256}"' in page
    assert admin.post("/presets/motd/edit/", {"text": SECOND, "base": motd.sha256}).status_code == 302
    mine = TEXT.replace("risk: safe", "risk: confirm")
    page = text_of(admin.post("/presets/motd/edit/", {"text": mine, "base": motd.sha256}), 409)
    assert "Somebody else saved this preset" in page and "risk: confirm" in page
    assert selectors.find_preset("motd").risk == "safe"


def test_revisions_are_listed_compared_and_edited_again(admin: Client, motd: PresetRevision) -> None:
    admin.post("/presets/motd/edit/", {"text": SECOND, "base": motd.sha256, "note": "clearer"})
    page = text_of(admin.get("/presets/motd/revisions/"))
    assert "clearer" in page and '<span class="l add">+title: The message of the day</span>' in page
    assert "title: Message of the day" in text_of(admin.get("/presets/motd/edit/?revision=1"))
    assert text_of(admin.get("/presets/motd/export/")) == SECOND
    assert admin.get("/presets/motd/revisions/?new=9").status_code == 404


def test_duplicating_and_importing_open_the_editor(admin: Client) -> None:
    page = text_of(admin.get("/presets/new/?from=swap-file"))
    assert "name: swap-file-copy" in page
    page = text_of(admin.post("/presets/import/", {"file": SimpleUploadedFile("motd.yaml", TEXT.encode())}))
    assert "a comment that outlives saving" in page
    assert not PresetRevision.objects.exists()
    assert admin.post("/presets/import/").status_code == 400


def test_an_imported_file_is_read_as_it_is_or_refused(admin: Client) -> None:
    windows = SimpleUploadedFile("motd.yaml", TEXT.replace("\n", "\r\n").encode())
    assert "Windows line ends (CRLF) were converted to LF" in text_of(admin.post("/presets/import/", {"file": windows}))
    for text, words in ((b"name: caf\xe9\n", "not UTF-8: byte 10"), (b"name: a\0b\n", "NUL byte")):
        answer = admin.post("/presets/import/", {"file": SimpleUploadedFile("motd.yaml", text)})
        assert (answer.status_code, words in answer.content.decode()) == (400, True)


def test_an_archived_preset_is_out_of_the_way_and_comes_back(admin: Client, motd: PresetRevision) -> None:
    admin.post("/presets/motd/archive/")
    assert "Message of the day" not in text_of(admin.get("/presets/"))
    assert "Message of the day" in text_of(admin.get("/presets/?archived=1"))
    assert admin.get("/presets/motd/").status_code == 409
    assert "Restore" in text_of(admin.get("/presets/motd/revisions/"))
    assert admin.post("/presets/motd/restore/").headers["Location"] == "/presets/motd/"


def test_a_tampered_preset_is_reported_and_not_shown(admin: Client, motd: PresetRevision) -> None:
    tamper("presets_presetrevision", "document", motd.document.replace("printf", "evil; printf"))
    page = text_of(admin.get("/presets/"))
    assert "Changed behind HyprBox’s back" in page and "motd" in page
    assert admin.get("/presets/motd/").status_code == 409


@pytest.mark.parametrize("person", ["otto", "vera"])
def test_who_is_no_admin_reads_only(client: Client, motd: PresetRevision, person: str, request: Any) -> None:
    client.force_login(request.getfixturevalue(person))
    paths = ["/presets/new/", "/presets/motd/edit/"]
    assert [client.get(path).status_code for path in paths] == [403, 403]
    posts = ["/presets/new/", "/presets/review/", "/presets/import/", "/presets/motd/edit/", "/presets/motd/archive/"]
    assert [client.post(path, {"text": TEXT}).status_code for path in posts] == [403] * 5
    assert "New preset" not in text_of(client.get("/presets/"))
    assert text_of(client.get("/presets/motd/revisions/"))
