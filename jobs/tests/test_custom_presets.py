"""Jobs of custom presets: what was queued stays, and what was tampered with is not signed."""

from __future__ import annotations

import pytest
from django.test import Client

from accounts.models import User
from audit.models import Event
from hyprbox.lib.rowmac import RowTampered
from jobs import services as jobs
from jobs.models import Job
from nodes.models import Node
from presets import selectors, services
from presets.errors import PresetArchived
from presets.models import PresetRevision
from presets.tests.test_custom import SECOND, TEXT, tamper
from tests.factories import as_actor


@pytest.fixture
def motd(ada: User) -> PresetRevision:
    return services.create_preset(by=as_actor(ada), text=TEXT)


def test_a_queued_job_stays_as_it_is_when_its_preset_changes(motd: PresetRevision, ada: User, web_1: Node) -> None:
    by = as_actor(ada)
    job, _ = jobs.queue_job(by=by, order=jobs.Order("motd", {"TEXT": "x"}), node_id="web-1")
    services.save_revision(by=by, name="motd", text=SECOND)
    again = Job.objects.get(pk=job.pk)
    assert (again.revision, bytes(again.script), again.payload) == (motd.sha256, bytes(job.script), job.payload)
    assert selectors.revision_number("motd", job.revision) == 1


def test_a_preset_that_was_edited_in_the_database_runs_nowhere(motd: PresetRevision, ada: User, web_1: Node) -> None:
    tamper("presets_presetrevision", "document", motd.document.replace("printf", "touch /tmp/owned; printf"))
    with pytest.raises(RowTampered):
        jobs.queue_job(by=as_actor(ada), order=jobs.Order("motd", {"TEXT": "x"}), node_id="web-1")
    assert not Job.objects.exists()
    (event,) = Event.objects.filter(action="row.tampered")
    assert (event.target, event.actor_name) == ("preset:motd", ada.email)


def test_an_archived_preset_is_not_queued(motd: PresetRevision, ada: User, web_1: Node) -> None:
    services.archive_preset(by=as_actor(ada), name="motd")
    with pytest.raises(PresetArchived):
        jobs.queue_job(by=as_actor(ada), order=jobs.Order("motd", {"TEXT": "x"}), node_id="web-1")
    assert not Job.objects.exists()


def test_a_jobs_page_names_the_revision_it_was_made_from(
    motd: PresetRevision, ada: User, web_1: Node, client: Client
) -> None:
    job, _ = jobs.queue_job(by=as_actor(ada), order=jobs.Order("motd", {"TEXT": "x"}), node_id="web-1")
    services.save_revision(by=as_actor(ada), name="motd", text=SECOND)
    client.force_login(ada)
    assert 'href="/presets/motd/revisions/?new=1">revision 1</a>' in client.get(f"/jobs/{job.pk}/").content.decode()
