"""Run by `bench_integrity` in a process of its own. argv: how many rows. Prints rows and seconds as JSON."""

from __future__ import annotations

import json
import os
import sys

import django

django.setup()

from django.db import connection, transaction

from audit.models import Event
from hyprbox import integrity
from hyprbox.lib import rowmac
from hyprbox.lib.actors import Actor
from tokens.models import NodeToken


def main(rows: int) -> None:
    tokens = [
        NodeToken(name=str(number), prefix=f"{number:08d}", digest=os.urandom(32), created_by="bench")
        for number in range(rows)
    ]
    for token in tokens:
        rowmac.seal(token)
    subjects = [
        Event(
            action="token.created",
            actor_name="bench",
            canonical=b"",
            subject=rowmac.subject_of(token),
            subject_version=1,
        )
        for token in tokens
    ]
    with transaction.atomic():
        NodeToken.objects.bulk_create(tokens, batch_size=1000)
        Event.objects.bulk_create(subjects, batch_size=1000)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE audit_event, tokens_nodetoken")
    found = integrity.verify(by=Actor.system("bench"))
    if found.bad or found.checked != rows:
        raise RuntimeError(f"{len(found.bad)} of {found.checked} rows are bad")
    print(json.dumps({"checked": found.checked, "seconds": found.seconds}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
