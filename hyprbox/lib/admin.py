"""What the pages of the Django admin share: they call the verbs that everything else calls, and leave Django's own log alone."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import urlencode

from hyprbox.lib.errors import HyprBoxError, SecondFactorRequired, StepUpRequired


class VerbAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
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
