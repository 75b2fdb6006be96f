"""Fills the house of its environment: payloads in every field that a page shows. Prints what it made as JSON.

`python -m tests.browser.hostile`, and with `empty` it takes away what other tests would stumble over.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hyprbox.settings")
django.setup()

from django.conf import settings
from django.db import transaction
from django.test import Client
from django.utils import timezone

from accounts import keys, people
from accounts.models import PageSession, Passkey, User
from audit import sealed
from audit import services as audit
from audit.actions import Action
from hyprbox.lib.actors import Actor
from jobs import batches, drift, output, services, stops
from jobs.models import Batch, Job, Pin
from nodes.models import Node, StatusFlip
from presets import services as presets
from tests.browser.payloads import ALL, COMPACT, ODD_EMAIL, PAYLOADS, SHORT, mark
from tests.factories import SYSTEM, as_actor, claim, make_token


def fill() -> dict[str, Any]:
    """Fill the house. What it made, for the test."""
    owner = _people()
    with_notes = _nodes()
    preset = _preset(owner)
    jobs = _jobs(owner, preset, with_notes)
    _rest(owner, with_notes, preset)
    return {"cookie": _sign_in(owner), "node": with_notes, "preset": preset, "owner": str(owner.pk), **jobs}


def _people() -> Any:
    made = []
    for number, payload in enumerate(PAYLOADS[:20]):
        email = f"{ODD_EMAIL}@evil{number}.example" if number == 0 else f"evil{number}@example.com"
        user = User(email=email, name=mark("per", payload)[:120], role="admin" if number == 0 else "viewer")
        user.set_unusable_password()
        _sealed(user)
        made.append(user)
    return made[0]


def _sealed(row: Any) -> None:
    with transaction.atomic():
        sealed.create(row)
        audit.record(Action.ROW_SEALED, by=SYSTEM, target="test", row=row)


def _nodes() -> str:
    """A node for each payload, the first with all of them in its notes."""
    now = timezone.now()
    for number, payload in enumerate(PAYLOADS):
        compact, short = COMPACT[number % len(COMPACT)], SHORT[number % len(SHORT)]
        node = Node.objects.create(
            node_id=f"evil-{number:02}",
            display_name=mark("dis", payload)[:120],
            group=mark("grp", compact)[:63],
            tags=[mark("tag", compact)[:63], "evil"],
            notes=mark("not", ALL if number == 0 else payload),
            region=mark("reg", compact)[:63],
            agent_version=mark("age", short)[:40],
            first_seen_at=now,
            last_seen_at=now,
            machine_id=mark("mac", short)[:64],
            cpu_percent=99.0,
            memory_percent=50.0,
            disk_percent=50.0,
            announced_status="CRITICAL",
            inventory={
                "hostname": mark("hos", payload), "os": mark("osn", payload), "os_version": mark("osv", payload),
                "kernel": mark("ker", payload), "architecture": mark("arc", payload), "virtualization": mark("vir", payload),
                "ip_addresses": [mark("ipa", compact)], "region": mark("reg", compact), "cpu_count": 4,
            },
            metrics={
                "disks": [{"mount": mark("mou", payload), "percent": 96.0, "total_bytes": 1}],
                "failed_units": [mark("fai", payload)], "spool_unwritable": mark("spo", payload)[:255],
            },
        )  # fmt: skip
        reason = {"code": "cpu_percent", "status": "CRITICAL", "message": mark("rea", payload)}
        StatusFlip.objects.create(node=node, at=now, before="ONLINE", after="CRITICAL", reasons=[reason])
    return "evil-00"


def _preset(owner: Any) -> str:
    printable = [each for each in PAYLOADS if each.isprintable()]
    document = {
        "name": "evil-preset",
        "title": mark("tit", '"><img src=x onerror=alert(1)><script>alert(1)</script>'),
        "description": mark("des", ALL)[:2000],
        "category": "evil",
        "risk": "safe",
        "variables": [
            {"name": "TEXT", "type": "string", "default": mark("def", ALL)[:900], "help": mark("hlp", ALL)[:500]},
            {"name": "ONE", "type": "enum", "default": mark("cho", printable[0]), "no_leading_dash": False,
             "choices": [mark("cho", each)[:200] for each in printable]},
        ],
        "check": "exit 1\n",
        "apply": "\n".join(f"# {mark('scr', each)}" for each in printable) + "\nprintf '%s\\n' \"$TEXT\" \"$ONE\"\n",
        "verify": "true\n",
        "rollback": "true\n",
    }  # fmt: skip
    by = as_actor(owner)
    presets.create_preset(by=by, text=json.dumps(document), kind="json", note=mark("rev", PAYLOADS[7]), waive=True)
    document["title"] += "!"
    presets.save_revision(
        by=by, name="evil-preset", text=json.dumps(document), kind="json", note=mark("rev", ALL)[:200], waive=True
    )
    return "evil-preset"


def _jobs(owner: Any, preset: str, node_id: str) -> dict[str, str]:
    by = as_actor(owner)
    order = services.Order(preset, {"TEXT": mark("val", ALL)[:4000]})
    batch, queued, _ = batches.queue(by=by, order=order, node_ids=[node_id, "evil-01", "evil-02"])
    Batch.objects.filter(pk=batch.pk).update(stopped_because=mark("bst", PAYLOADS[7]))
    running, ended = queued[0], queued[1]
    for job in (running, ended):
        claim(job)
        Job.objects.filter(pk=job.pk).update(
            status="RUNNING", started_at=job.claimed_at, phase="apply", lease_expires_at=job.expires_at,
            deadline_at=job.expires_at,
        )  # fmt: skip
        _write(job)
    Job.objects.filter(pk=ended.pk).update(
        status="FAILED", reason="exit", exit_code=1, finished_at=ended.claimed_at, completion_sha256="x"
    )
    return {"running": str(running.pk), "ended": str(ended.pk), "batch": str(batch.pk)}


def _write(job: Any) -> None:
    escapes = ["\x1b]8;;javascript:alert(1)\x07link\x1b]8;;\x07", "\x1b[31m<b onmouseover=alert(1)>red\x1b[0m"]
    for stream, name in (("stdout", "out"), ("stderr", "err")):
        data = "".join(f"{mark(name, each)}\n" for each in [*PAYLOADS, *escapes]).encode()
        with transaction.atomic():
            output.append(output.lock_transcript(job.pk), [output.Piece(stream, 0, data)], phase="apply")


def _rest(owner: Any, node_id: str, preset: str) -> None:
    by = as_actor(owner)
    for number, payload in enumerate(PAYLOADS):
        make_token(name=mark("tok", payload)[:120])
        with transaction.atomic():
            hostile = Actor.system(mark("act", payload))
            detail = {mark("dek", payload): mark("det", payload), "more": [payload, {payload: payload}]}
            audit.record(Action.NODE_CHANGED, by=hostile, target=mark("tar", payload), detail=detail)
        if number < 40:
            keys.create_key(by=by, name=mark("key", payload)[:120], scopes=["read"])
    people.invite(by=by, email='"QinvQ<svg/onload=alert(1)>"@evil.example', role="viewer")
    passkey = Passkey(user=owner, name=mark("pas", PAYLOADS[7]), credential_id=b"evil", public_key=b"x")
    _sealed(passkey)
    drift.create_pin(by=by, preset=preset, variables={"TEXT": mark("val", ALL)[:900]}, node_id=node_id)
    drift.create_pin(by=by, preset=preset, variables={}, tag=mark("tag", COMPACT[0])[:63])
    stops.stop(by=by, reason=mark("sto", ALL)[:300])


def _sign_in(user: Any) -> str:
    client = Client()
    client.force_login(user)
    PageSession.objects.filter(user=user).update(user_agent=mark("uag", PAYLOADS[7])[:200], ip="<b>")
    return client.cookies[settings.SESSION_COOKIE_NAME].value


def empty() -> None:
    """Take away what other tests would stumble over; what happened stays."""
    stops.resume(by=SYSTEM)
    for pin in Pin.objects.filter(preset="evil-preset"):
        drift.remove_pin(by=SYSTEM, pin_id=pin.pk)
    Job.objects.filter(preset="evil-preset", status="QUEUED").delete()
    presets.archive_preset(by=SYSTEM, name="evil-preset")
    Node.objects.filter(node_id__startswith="evil-").update(removed_at=timezone.now())
    User.objects.filter(email__contains="evil").delete()


if sys.argv[1:] == ["empty"]:
    empty()
else:
    print(json.dumps(fill()))
