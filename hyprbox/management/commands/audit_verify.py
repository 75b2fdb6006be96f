"""`manage.py audit_verify`: is the audit log what was written?"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand
from django.db import DatabaseError

from audit import segments, services
from audit.verifying import CannotTell, Report, read_checkpoints
from hyprbox.lib.actors import Actor
from hyprbox.lib.signing import SigningKeyUnusable


class Command(BaseCommand):
    help = (
        "Verify the audit log. Ends with 0 when it is intact, 1 when it was tampered with, 2 when that cannot be told."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--checkpoint", metavar="FILE", help="checkpoints that were kept elsewhere, one a line")
        parser.add_argument(
            "--segment", metavar="FILE", action="append", default=[], help="a file of `audit_prune`, as well"
        )
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
        bad = self._check_segments(options["segment"])
        self.stdout.write(json.dumps(report.as_dict()) if options["json"] else words(report))
        sys.exit(1 if bad else {True: 0, False: 1, None: 2}[report.intact])

    def _check_segments(self, paths: list[str]) -> int:
        """How many files are not the segments that the log speaks of."""
        bad = 0
        for path in paths:
            try:
                segment = segments.check_file(Path(path))
                self.stderr.write(f"{path}: entries {segment.first} to {segment.last} as they were written.")
            except (segments.BadSegment, SigningKeyUnusable, DatabaseError) as error:
                bad += 1
                self.stderr.write(str(error).strip())
        return bad


def words(report: Report) -> str:
    """The report for a person."""
    if report.tampering is not None:
        bad = report.tampering
        return f"TAMPERED at entry {bad.n} ({bad.kind}): {bad.why}."
    if report.intact is None:
        return f"Cannot tell: {report.why.rstrip('.')}. {report.checked:,} entries were read."
    rest = f" Entries up to {report.sealed_to} were pruned, as a signed statement says." if report.sealed_to else ""
    rest += f" {report.pending} are not chained yet." if report.pending else ""
    return (
        f"Intact: {report.checked:,} entries up to {report.head} agree with {report.checkpoints} checkpoints, "
        f"the last of which is at {report.signed_to}.{rest}\nhead  {report.head_hash}"
    )
