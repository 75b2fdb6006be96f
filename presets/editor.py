"""Custom presets' pages: the editor with its live review, revisions and their difference, import and export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from hyprbox.lib import pages
from hyprbox.lib.actors import Actor, Capability, require
from hyprbox.lib.errors import Conflict, HyprBoxError, InvalidInput
from hyprbox.lib.pages import Crumb
from presets import inputs, selectors, services, shelltools
from presets.api import yaml_file
from presets.documents import MAX_DOCUMENT_BYTES, PRESET_NAME
from presets.inputs import Preview
from presets.lint import ERROR, NOTE, WARNING
from presets.review import NEVER_WAIVED, Review, review

NEW_TEXT = """\
name: my-preset
title: What it does, in a few words
description: One paragraph that an operator understands.
category: baseline
risk: confirm                    # safe, confirm or dangerous
systems: []                      # such as debian-12; empty: any Linux
timeout_seconds: 900
variables:
  - name: GREETING
    type: string
    required: true
    max_length: 200
    help: What people read when they log in.
check: |                         # reads only; exit 0: already so, 1: not so yet
  [[ "$(cat /etc/motd)" == "$GREETING" ]]
apply: |
  printf '%s\\n' "$GREETING" > /etc/motd
verify: |                        # exit 0: it is so now
  [[ "$(cat /etc/motd)" == "$GREETING" ]]
"""
LOOKS: Mapping[str, tuple[str, str]] = {
    ERROR: ("crit", "status-crit"),
    WARNING: ("warn", "status-warn"),
    NOTE: ("info", "status-info"),
}


@dataclass(frozen=True, slots=True)
class Draft:
    """What is in the editor: `name` is empty for a preset that is not saved yet."""

    name: str
    text: str
    base: str = ""
    note: str = ""
    origin: str = ""
    waive: bool = False
    error: HyprBoxError | None = None

    @classmethod
    def sent(cls, request: HttpRequest, name: str) -> Draft:
        post = request.POST
        text = post.get("text", "").replace("\r\n", "\n")  # browsers send every line end of a form so
        note, origin = post.get("note", "").strip(), post.get("origin", "")
        return cls(name, text, post.get("base", ""), note, origin, post.get("waive") == "1")

    def save(self, *, by: Actor) -> str:
        """Save it, and return the preset's name. Raises `InvalidInput` and conflicts."""
        if not self.name:
            revision = services.create_preset(
                by=by, text=self.text, note=self.note, waive=self.waive, origin=self.origin
            )
            return revision.preset.name
        services.save_revision(by=by, name=self.name, text=self.text, base=self.base, note=self.note, waive=self.waive)
        return self.name


@dataclass(frozen=True, slots=True)
class Checked:
    """A draft with everything that is said about it, for the page."""

    found: Review
    preview: Preview | None

    @classmethod
    def of(cls, text: str) -> Checked:
        found = review(text)
        preview = None
        if found.preset is not None:
            preview = inputs.preview(found.preset, inputs.read_values(found.preset, {}), is_untouched=True)
        return cls(found, preview)

    @property
    def rows(self) -> list[dict[str, Any]]:
        ordered = sorted(self.found.remarks, key=lambda each: [ERROR, WARNING, NOTE].index(each.finding.severity))
        return [{"remark": each, "look": LOOKS[each.finding.severity]} for each in ordered]

    @property
    def asked(self) -> tuple[str, ...]:
        return shelltools.asked()

    @property
    def error_count(self) -> int:
        return len(self.found.errors)

    @property
    def can_be_waived(self) -> bool:
        """Whether an admin may save it all the same."""
        return bool(self.found.errors) and all(each.finding.code not in NEVER_WAIVED for each in self.found.errors)


def _editor(request: HttpRequest, draft: Draft, status: int = 200) -> HttpResponse:
    title = f"Edit {draft.name}" if draft.name else "New preset"
    context = {"draft": draft, "checked": Checked.of(draft.text), "title": title}
    crumbs = (Crumb("Presets", reverse("presets:list")), Crumb(title))
    return pages.show(request, "presets/editor.html", context, nav="presets", crumbs=crumbs, status=status)


def _save(request: HttpRequest, draft: Draft) -> HttpResponse:
    try:
        name = draft.save(by=pages.actor_of(request))
    except (InvalidInput, Conflict) as error:
        return _editor(request, replace(draft, error=error), status=error.status)
    messages.success(request, f"{name} is saved.")
    return redirect("presets:preview", name)


@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    """An empty editor; with `?from=NAME` one that begins with another preset's text."""
    require(pages.actor_of(request), Capability.MANAGE_PRESETS)
    if request.method == "POST":
        return _save(request, Draft.sent(request, ""))
    origin = request.GET.get("from", "")
    if not origin:
        return _editor(request, Draft("", NEW_TEXT))
    entry = selectors.find_entry(origin)
    return _editor(request, Draft("", services.renamed(entry, f"{origin[:58]}-copy"), origin=origin))


@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: HttpRequest, name: str) -> HttpResponse:
    """The revision in use, or with `?revision=N` an older one, to be saved as the next."""
    actor = pages.actor_of(request)
    require(actor, Capability.MANAGE_PRESETS)
    if request.method == "POST":
        return _save(request, Draft.sent(request, name))
    row = selectors.find_custom(name)
    head, wanted = selectors.revision_of(row, row.head), request.GET.get("revision", "")
    source = head if not wanted.isdecimal() else selectors.find_revision(by=actor, name=name, number=int(wanted[:9]))
    return _editor(request, Draft(name, source.source, base=head.sha256))


@require_POST
def import_file(request: HttpRequest) -> HttpResponse:
    """A file into the editor: nothing is saved before a person has looked at it."""
    require(pages.actor_of(request), Capability.MANAGE_PRESETS)
    upload = request.FILES.get("file")
    if upload is None or upload.size is None or upload.size > MAX_DOCUMENT_BYTES:
        raise InvalidInput(f"Choose a YAML file of at most {MAX_DOCUMENT_BYTES // 1024**2} MiB.")
    try:
        text = upload.read().decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"This file is not UTF-8: byte {error.start + 1:,} is of no character. Save it as UTF-8, then import it."
        ) from None
    if "\0" in text:
        raise InvalidInput("This file has a NUL byte in it, which no script can have. Take it out, then import it.")
    return _editor(request, Draft("", text))


@require_POST
def live_review(request: HttpRequest) -> HttpResponse:
    """What is said about the text as it stands, and the script that it would give."""
    require(pages.actor_of(request), Capability.MANAGE_PRESETS)
    name = request.POST.get("name", "")
    draft = Draft.sent(request, name if PRESET_NAME.fullmatch(name) else "")
    return render(request, "presets/_review.html", {"draft": draft, "checked": Checked.of(draft.text), "oob": True})


@require_safe
def revisions(request: HttpRequest, name: str) -> HttpResponse:
    """Every saved state, and what two of them differ in; without a choice the newest and the one before it."""
    actor = pages.actor_of(request)
    rows = selectors.list_revisions(by=actor, name=name)
    entry = selectors.find_entry(name)
    new_number = _number(request, "new", entry.number)
    old_number = _number(request, "old", max(new_number - 1, 1))
    lines = selectors.diff(by=actor, name=name, old=old_number, new=new_number)
    context = {"entry": entry, "preset": entry.preset, "rows": rows, "old": old_number, "new": new_number}
    context["lines"] = [(_KINDS.get(line[:1], ""), line) for line in lines[2:]]
    crumbs = (Crumb("Presets", reverse("presets:list")), Crumb(entry.preset.title), Crumb("Revisions"))
    return pages.show(request, "presets/revisions.html", context, nav="presets", crumbs=crumbs)


_KINDS = {"+": "add", "-": "del", "@": "hunk"}


def _number(request: HttpRequest, key: str, default: int) -> int:
    text = request.GET.get(key, "")
    return int(text[:9]) if text.isascii() and text.isdecimal() else default


@require_safe
def export(request: HttpRequest, name: str) -> HttpResponse:
    pages.actor_of(request)
    return yaml_file(name, services.export_yaml(selectors.find_entry(name)))


@require_POST
def archive(request: HttpRequest, name: str) -> HttpResponse:
    services.archive_preset(by=pages.actor_of(request), name=name)
    messages.success(request, f"{name} is archived. Its revisions and its jobs stay.")
    return redirect("presets:list")


@require_POST
def restore(request: HttpRequest, name: str) -> HttpResponse:
    services.restore_preset(by=pages.actor_of(request), name=name)
    messages.success(request, f"{name} can be used again.")
    return redirect("presets:preview", name)
