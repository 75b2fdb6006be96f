"""The job list, one job, and the way from a preset to a job: targets, confirmation, run."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from hyprbox.lib import pages, searching
from hyprbox.lib.actors import Capability
from hyprbox.lib.errors import InvalidInput
from hyprbox.lib.pages import Crumb
from jobs import batches, console, ordering, selectors, services, stops, summary
from jobs.models import Job
from jobs.states import Status, Stream
from presets import selectors as presets

TABS = ("output", "script", "variables")

PAGE_SIZE = 50


@require_safe
def job_list(request: HttpRequest) -> HttpResponse:
    """All jobs, newest first; each filter is in the address."""
    actor = pages.actor_of(request)
    wanted = ordering.wanted_jobs(request.GET)
    context = _listing(request, wanted)
    if pages.is_fragment(request):
        return render(request, "jobs/_list.html", context)
    context["people"] = selectors.people(by=actor)
    context["stopped"] = stops.current()
    context["counts"] = selectors.counts_by_status(by=actor, since=timezone.now() - timedelta(hours=24))
    context["statuses"] = [(status, context["counts"][status]) for status in Status]
    return pages.show(request, "jobs/list.html", context, nav="jobs", crumbs=(Crumb("Jobs"),), topics=("jobs",))


def _listing(request: HttpRequest, wanted: dict[str, str]) -> dict[str, Any]:
    actor, now = pages.actor_of(request), timezone.now()
    with searching.limited("" if wanted["hint"] else wanted["q"], by=actor):
        page = pages.page_of(request, ordering.listed(wanted, by=actor), PAGE_SIZE)
        rows = [summary.of(job, now) for job in page]
    return {"wanted": wanted, "page": page, "rows": rows}


@require_safe
def detail(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    """One job: phases, output, script, variables, facts."""
    actor = pages.actor_of(request)
    job = selectors.job_detail(by=actor, job_id=job_id)
    context = job_context(request, job)
    if pages.is_fragment(request):
        return render(request, "jobs/_state.html", context)
    context["runs"] = [summary.of(other, timezone.now()) for other in selectors.runs_of_preset(by=actor, job=job)]
    context["stopped"] = stops.current() if job.status == Status.QUEUED else None
    crumbs = (Crumb("Jobs", reverse("jobs:list")), Crumb(str(job.pk)[:8], is_mono=True))
    # Whoever sees the output has the job's own stream, and a browser opens few connections at once.
    follows = context["stream_after"] is not None
    topics = None if follows else (f"job-{job.pk}",)
    return pages.show(request, "jobs/detail.html", context, nav="jobs", crumbs=crumbs, topics=topics)


def job_context(request: HttpRequest, job: Job) -> dict[str, Any]:
    """What the job's page shows to this person."""
    actor = pages.actor_of(request)
    can_read = actor.can(Capability.VIEW_OUTPUT)
    tab = request.GET.get("tab", "")
    tab = tab if tab in TABS else "output"
    only = request.GET.get("stream", "")
    only = only if only in Stream.values else ""
    context: dict[str, Any] = {"told": summary.of(job, timezone.now()), "job": job, "tab": tab, "only": only}
    context |= {"can_read": can_read, "stream_after": None}
    context["revision_number"] = presets.revision_number(job.preset, job.revision)
    if can_read and not pages.is_fragment(request):
        context["script"] = bytes(job.script).decode("utf-8", "replace")
        context["console"] = shown = console.read_console(by=actor, job=job, only=only)
        context["stream_after"] = None if job.is_finished or tab != "output" else shown.after
    return context


@require_safe
def batch(request: HttpRequest, batch_id: uuid.UUID) -> HttpResponse:
    """A batch: how far it is, its waves, and its jobs, the newest first."""
    actor = pages.actor_of(request)
    found = selectors.find_batch(by=actor, batch_id=batch_id)
    wanted = {**ordering.wanted_jobs(request.GET), "batch": str(found.pk)}
    context = _listing(request, wanted)
    if pages.is_fragment(request):
        return render(request, "jobs/_list.html", context)
    counts = selectors.counts_of_batch(by=actor, batch=found)
    context["stopped"] = stops.current() if counts[Status.QUEUED] else None
    context |= {"batch": found, "shown": summary.of_batch(found, counts, selectors.waves(found))}
    crumbs = (Crumb("Jobs", reverse("jobs:list")), Crumb(str(found.pk)[:8], is_mono=True))
    topics = (f"batch-{found.pk}",)
    return pages.show(request, "jobs/batch.html", context, nav="jobs", crumbs=crumbs, topics=topics)


@require_POST
def batch_cancel(request: HttpRequest, batch_id: uuid.UUID) -> HttpResponse:
    batches.cancel_rest(by=pages.actor_of(request), batch_id=batch_id)
    return redirect("jobs:batch", batch_id)


@require_POST
def batch_retry(request: HttpRequest, batch_id: uuid.UUID) -> HttpResponse:
    by, confirm = pages.actor_of(request), request.POST.get("confirm", "").strip()
    try:
        made, _ = batches.retry_failed(by=by, batch_id=batch_id, confirm=confirm)
    except InvalidInput as error:
        messages.error(request, " ".join(sentence for found in error.fields.values() for sentence in found))
        return redirect("jobs:batch", batch_id)
    return redirect("jobs:batch", made.pk)


@require_POST
def stop(request: HttpRequest) -> HttpResponse:
    stops.stop(by=pages.actor_of(request), reason=request.POST.get("reason", "").replace("\0", "").strip()[:300])
    return redirect("jobs:list")


@require_POST
def resume(request: HttpRequest) -> HttpResponse:
    stops.resume(by=pages.actor_of(request))
    return redirect("jobs:list")


@require_POST
def cancel(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    services.request_cancel(by=pages.actor_of(request), job_id=job_id, force=request.POST.get("force") == "1")
    return redirect("jobs:detail", job_id)


@require_POST
def retry(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    job = services.retry_job(by=pages.actor_of(request), job_id=job_id)
    return redirect("jobs:detail", job.pk)


def flow_step(request: HttpRequest, name: str, step: int) -> HttpResponse:
    """A step of the flow: back to the form while a value is wrong, else targets or the confirmation."""
    draft = ordering.Draft.of(request.POST, name=name, by=pages.actor_of(request))
    if not draft.preview.is_valid:
        return _flow_page(request, "presets/preview.html", draft, step=1, status=400)
    if step == 3 and draft.problem:
        return _flow_page(request, "jobs/targets.html", draft, step=2, status=400)
    template = "jobs/targets.html" if step == 2 else "jobs/confirm.html"
    return _flow_page(request, template, draft, step=step)


@require_http_methods(["GET", "HEAD", "POST"])
def targets(request: HttpRequest, name: str) -> HttpResponse:
    pages.actor_of(request)
    if request.method != "POST":
        return redirect("presets:preview", name)
    return flow_step(request, name, 2)


@require_http_methods(["GET", "HEAD", "POST"])
def confirm(request: HttpRequest, name: str) -> HttpResponse:
    pages.actor_of(request)
    if request.method != "POST":
        return redirect("presets:preview", name)
    return flow_step(request, name, 3)


@require_POST
def run(request: HttpRequest, name: str) -> HttpResponse:
    """Queue the job, or one for each node; what the browser checked is checked again."""
    actor = pages.actor_of(request)
    draft = ordering.Draft.of(request.POST, name=name, by=actor)
    try:
        return redirect(draft.queue(by=actor))
    except InvalidInput as error:
        template, step = draft.blame(error)
        return _flow_page(request, template, draft, step=step, status=400, error=error)


def _flow_page(
    request: HttpRequest,
    template: str,
    draft: ordering.Draft,
    *,
    step: int,
    status: int = 200,
    error: InvalidInput | None = None,
) -> HttpResponse:
    preset = draft.preset
    context = {
        "draft": draft,
        "preset": preset,
        "preview": draft.preview,
        "nodes": draft.node_ids,
        "step": step,
        "error": error,
    }
    context["show_problem"] = status == 400 and step == 2
    crumbs = (Crumb("Presets", reverse("presets:list")), Crumb(preset.title))
    return pages.show(request, template, context, nav="presets", crumbs=crumbs, status=status)
