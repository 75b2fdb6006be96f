"""`manage.py preset list|lint|sync`: presets, for whoever has a shell on the host, and for CI of a folder of them.

Exit codes: 0 all is well, 1 a preset has errors (or, with --strict, warnings), 2 nothing could be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.core.serializers.json import DjangoJSONEncoder

from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import HyprBoxError
from presets import selectors, services
from presets.errors import PresetArchived
from presets.lint import ERROR, WARNING
from presets.review import Review, review

_BY = Actor.system("manage.py preset")
_KINDS = {".yaml": "yaml", ".yml": "yaml", ".json": "json"}


class Command(BaseCommand):
    help = "List presets, lint files, or bring a folder of presets into HyprBox."
    requires_system_checks: list[str] = []  # linting files needs no database

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|lint|sync")
        listing = verbs.add_parser("list", help="every preset, and where it comes from")
        listing.add_argument("--archived", action="store_true", help="those that are put away as well")
        lint = verbs.add_parser(
            "lint", help="check files, or all .yaml, .yml and .json of a folder; - reads YAML from stdin"
        )
        lint.add_argument("path", nargs="+")
        lint.add_argument("--strict", action="store_true", help="warnings count as errors")
        sync = verbs.add_parser("sync", help="make each file of a folder a custom preset, or its next revision")
        sync.add_argument("folder")
        sync.add_argument("--note", default="", help="what each new revision says of itself")
        sync.add_argument("--archive", action="store_true", help="archive custom presets that have no file there")
        sync.add_argument("--dry-run", action="store_true", help="only say what would be done")
        for each in (listing, lint, sync):
            each.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        code = getattr(self, f"_{options['verb']}")(options)
        if code:
            sys.exit(code)

    # list

    def _list(self, options: dict[str, Any]) -> int:
        entries = selectors.list_entries(archived=options["archived"])
        if options["json"]:
            return self._print_json([_facts(entry) for entry in entries])
        for entry in entries:
            state = "archived" if entry.is_archived else "built in" if entry.is_builtin else f"revision {entry.number}"
            preset = entry.preset
            self.stdout.write(f"{preset.name:28}{preset.risk:11}{state:14}{preset.revision[:12]}  {preset.title}")
        for name in selectors.tampered_names():
            self.stderr.write(f"{name}: its row was changed by something else than HyprBox, so it is not used.")
        return 0

    # lint

    def _lint(self, options: dict[str, Any]) -> int:
        checked = [(name, review(text, kind=kind)) for name, text, kind in _texts(options["path"])]
        failing = {ERROR, WARNING} if options["strict"] else {ERROR}
        if options["json"]:
            self._print_json([_report(name, found) for name, found in checked])
        else:
            for name, found in checked:
                self._print_review(name, found)
        return int(any(each.finding.severity in failing for _, found in checked for each in found.remarks))

    def _print_review(self, name: str, found: Review) -> None:
        for remark in found.remarks:
            finding = remark.finding
            place = f"{name}:{remark.line}:{remark.column}" if remark.line else name
            part = f"{finding.part}: " if finding.part else ""
            self.stdout.write(f"{place}: {finding.severity}: {part}{finding.message} [{finding.code}]")
        if not found.errors:
            self.stdout.write(f"{name}: {found.preset.name if found.preset else ''} is fine.")

    # sync

    def _sync(self, options: dict[str, Any]) -> int:
        done: list[dict[str, Any]] = []
        for name, text, kind in _texts([options["folder"]]):
            done.append({"file": name, **self._sync_one(text, kind, options)})
        if options["archive"] and not any(each["result"] == "refused" for each in done):
            done += self._archive_others({each["preset"] for each in done}, options)
        if options["json"]:
            self._print_json(done)
        else:
            for each in done:
                where = f" ({each['file']})" if each["file"] else ""
                self.stdout.write(f"{each['preset'] or each['file']}: {each['result']}{where}")
                for sentence in each.get("why", []):
                    self.stderr.write(f"  {sentence}")
        return int(any(each["result"] == "refused" for each in done))

    def _sync_one(self, text: bytes, kind: str, options: dict[str, Any]) -> dict[str, Any]:
        found = review(text, kind=kind)
        if found.preset is None or found.errors:
            name = found.preset.name if found.preset else ""
            return {"preset": name, "result": "refused", "why": [each.sentence for each in found.errors]}
        name = found.preset.name
        known = {entry.preset.name: entry for entry in selectors.list_entries(archived=True) if not entry.is_builtin}
        if options["dry_run"]:
            is_same = name in known and known[name].preset.revision == found.preset.revision
            return {"preset": name, "result": "unchanged" if is_same else "changed" if name in known else "created"}
        try:
            return {"preset": name, "result": self._write(name, text, kind, name in known, options["note"])}
        except HyprBoxError as error:
            sentences = [sentence for each in error.fields.values() for sentence in each]
            return {"preset": name, "result": "refused", "why": sentences or [error.message]}

    def _write(self, name: str, text: bytes, kind: str, is_known: bool, note: str) -> str:
        if not is_known:
            services.create_preset(by=_BY, text=text, kind=kind, note=note)
            return "created"
        try:
            _, is_new = services.save_revision(by=_BY, name=name, text=text, kind=kind, note=note)
        except PresetArchived:
            services.restore_preset(by=_BY, name=name)
            _, is_new = services.save_revision(by=_BY, name=name, text=text, kind=kind, note=note)
        return "changed" if is_new else "unchanged"

    def _archive_others(self, kept: set[str], options: dict[str, Any]) -> list[dict[str, Any]]:
        custom = [entry.preset.name for entry in selectors.list_entries() if not entry.is_builtin]
        gone = [name for name in custom if name not in kept]
        for name in [] if options["dry_run"] else gone:
            services.archive_preset(by=_BY, name=name)
        return [{"file": "", "preset": name, "result": "archived"} for name in gone]

    def _print_json(self, value: Any) -> int:
        self.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, cls=DjangoJSONEncoder))
        return 0


def _texts(paths: list[str]) -> list[tuple[str, bytes, str]]:
    """(name, bytes, kind) of each file; a folder stands for its presets. Raises `CommandError` with exit code 2."""
    found: list[tuple[str, bytes, str]] = []
    for given in paths:
        if given == "-":
            found.append(("stdin", sys.stdin.buffer.read(), "yaml"))
            continue
        path = Path(given)
        files = sorted(each for each in path.iterdir() if each.suffix in _KINDS) if path.is_dir() else [path]
        if not files:
            raise CommandError(f"{given} holds no .yaml, .yml or .json file.", returncode=2)
        for file in files:
            try:
                found.append((str(file), file.read_bytes(), _KINDS.get(file.suffix, "yaml")))
            except OSError as error:
                raise CommandError(f"{file} cannot be read: {error.strerror}.", returncode=2) from error
    return found


def _facts(entry: selectors.Entry) -> dict[str, Any]:
    preset = entry.preset
    names = ("name", "title", "category", "risk", "revision")
    facts = {name: getattr(preset, name) for name in names}
    return {**facts, "parts": list(preset.parts), "builtin": entry.is_builtin, "number": entry.number or None,
            "archived": entry.is_archived}  # fmt: skip


def _report(name: str, found: Review) -> dict[str, Any]:
    return {
        "file": name,
        "preset": found.preset.name if found.preset else None,
        "errors": len(found.errors),
        "findings": [remark.as_dict() for remark in found.remarks],
    }
