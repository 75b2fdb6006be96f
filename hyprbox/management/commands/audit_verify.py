"""`manage.py audit_verify`: is the audit log what was written?"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand
from django.db import DatabaseError

from audit import services
from audit.verifying import CannotTell, Report, read_checkpoints
from hyprbox.lib.actors import Actor


class Command(BaseCommand):
    help = (
        "Verify the audit log. Ends with 0 when it is intact, 1 when it was tampered with, 2 when that cannot be told."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--checkpoint", metavar="FILE", help="checkpoints that were kept elsewhere, one a line")
        parser.add_argument("--from", dest="first", metavar="N", type=int, default=1, help="begin at entry N")
        parser.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            outside = read_checkpoints(Path(options["checkpoint"])) if options["checkpoint"] else None
            report = services.verify_log(
                by=Actor.system("manage.py audit_verify"), outside=outside, first=options["first"]
            )
        except (CannotTell, DatabaseError) as error:
            report = Report(why=str(error).strip())
        self.stdout.write(json.dumps(report.as_dict()) if options["json"] else words(report))
        sys.exit({True: 0, False: 1, None: 2}[report.intact])


def words(report: Report) -> str:
    """The report for a person."""
    if report.tampering is not None:
        bad = report.tampering
        return f"TAMPERED at entry {bad.n} ({bad.kind}): {bad.why}."
    if report.intact is None:
        return f"Cannot tell: {report.why.rstrip('.')}. {report.checked:,} entries were read."
    rest = f" {report.pending} are not chained yet." if report.pending else ""
    return (
        f"Intact: {report.checked:,} entries up to {report.head} agree with {report.checkpoints} checkpoints, "
        f"the last of which is at {report.signed_to}.{rest}\nhead  {report.head_hash}"
    )
