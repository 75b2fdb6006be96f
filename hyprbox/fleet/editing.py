"""What people say about a node, and taking it out of the fleet."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from hyprbox.lib import pages
from hyprbox.lib.actors import Capability, actor_of, require
from hyprbox.lib.errors import InvalidInput
from hyprbox.lib.pages import Crumb
from nodes import selectors, services
from nodes.models import Node
from nodes.services import NodeChanges


class NodeForm(forms.Form):
    """Lengths and tags are judged by the verb, which says the same to every door."""

    display_name = forms.CharField(required=False)
    group = forms.CharField(required=False)
    tags = forms.CharField(required=False)
    notes = forms.CharField(required=False)

    def changes(self) -> NodeChanges:
        given = self.cleaned_data
        return NodeChanges(**{**given, "tags": given["tags"].replace(",", " ").split()})


@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: HttpRequest, node_id: str) -> HttpResponse:
    """The node's name, group, tags and notes; admins also remove it here."""
    require(pages.actor_of(request), Capability.EDIT_NODES)
    node = selectors.find_node(node_id)
    if request.method != "POST":
        said = {"display_name": node.display_name, "group": node.group, "tags": " ".join(node.tags)}
        return _page(request, node, NodeForm(initial={**said, "notes": node.notes}))
    form = NodeForm(request.POST)
    if not form.is_valid():
        return _page(request, node, form, 400)
    try:
        services.update_node(by=actor_of(request), node_id=node_id, changes=form.changes())
    except InvalidInput as error:
        for name, sentences in error.fields.items():
            form.add_error(name, sentences)
        return _page(request, node, form, 400)
    messages.success(request, f"{node_id} is changed.")
    return redirect("nodes:detail", node_id)


def _page(request: HttpRequest, node: Node, form: NodeForm, status: int = 200) -> HttpResponse:
    context: dict[str, Any] = {"node": node, "form": form, "facets": selectors.facets()}
    here = Crumb(node.node_id, reverse("nodes:detail", args=[node.node_id]), is_mono=True)
    crumbs = (Crumb("Fleet", "/"), here, Crumb("Edit"))
    return pages.show(request, "nodes/edit.html", context, nav="fleet", crumbs=crumbs, status=status)


@require_POST
def remove(request: HttpRequest, node_id: str) -> HttpResponse:
    pages.actor_of(request)
    services.remove_node(by=actor_of(request), node_id=node_id)
    messages.success(request, f"{node_id} is removed. Uninstall the agent there, too: sudo hyprnode uninstall.")
    return redirect("nodes:overview")
