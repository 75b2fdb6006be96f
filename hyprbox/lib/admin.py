"""What the pages of the Django admin share: they call the verbs that everything else calls, and leave Django's own log alone."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import SEARCH_VAR
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.http import urlencode

from hyprbox.lib import searching
from hyprbox.lib.actors import actor_of
from hyprbox.lib.errors import HyprBoxError, InvalidInput, SecondFactorRequired, StepUpRequired

MAX_CHARACTERS = 100
MAX_WORDS = 5


class BoundedSearch(admin.ModelAdmin):  # type: ignore[type-arg]
    """A search is bounded in length and time, and counted, as everywhere else. Django would make conditions of each word."""

    finds_whole_values = False  # by an index, so that few letters are enough

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        words = request.GET.get(SEARCH_VAR, "")
        if why := self._too_much(words):
            messages.error(request, why)
            rest = request.GET.copy()
            del rest[SEARCH_VAR]
            return HttpResponseRedirect(f"{request.path}{'?' + rest.urlencode() if rest else ''}")
        if request.method == "POST":  # one of the actions, on what was found
            return super().changelist_view(request, extra_context)
        with searching.limited(words, by=actor_of(request)):
            response = super().changelist_view(request, extra_context)
            return response.render() if isinstance(response, TemplateResponse) else response

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Raises `InvalidInput`: there is another way here than the list, which completes what one types."""
        if why := self._too_much(search_term):
            raise InvalidInput(why)
        return super().get_search_results(request, queryset, search_term)

    def _too_much(self, words: str) -> str:
        if len(words) > MAX_CHARACTERS or len(words.split()) > MAX_WORDS:
            return f"Search for at most {MAX_WORDS} words of {MAX_CHARACTERS} characters together."
        return searching.HINT if not self.finds_whole_values and searching.is_too_short(words) else ""


class VerbAdmin(BoundedSearch):
    """`audit_target` is how the audit log calls an object: its history is there."""

    def audit_target(self, obj: Any) -> str:
        raise NotImplementedError

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return super().changeform_view(request, *args, **kwargs)
        except (StepUpRequired, SecondFactorRequired):
            raise  # the page that asks for the second factor, and then does this
        except HyprBoxError as error:
            messages.error(request, told(error))
            return HttpResponseRedirect(request.get_full_path())

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        obj = self.get_object(request, object_id)
        if obj is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined, no-any-return]
        return HttpResponseRedirect(f"{reverse('audit:list')}?{urlencode({'target': self.audit_target(obj)})}")

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """The audit log has it; Django's own log would say less."""

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """The same."""


def told(error: HyprBoxError) -> str:
    """The error in one line."""
    return " ".join([error.message, *(text for texts in error.fields.values() for text in texts)])
