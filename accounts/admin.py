"""People in the Django admin: the same verbs as everywhere else."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from accounts import passwords, people
from accounts.models import User
from hyprbox.lib.actors import actor_of
from hyprbox.lib.errors import HyprBoxError, StepUpRequired


class UserChangeForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = User
        fields = ("name", "role", "is_active")


class UserAddForm(forms.ModelForm):  # type: ignore[type-arg]
    password = forms.CharField(widget=forms.PasswordInput, max_length=128, strip=False)

    class Meta:
        model = User
        fields = ("email", "name", "role")

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        if problems := passwords.problems_of(password):
            raise forms.ValidationError(problems)
        return password


@admin.register(User)
class UserAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("email", "name", "role", "is_active", "last_login", "created_at")
    list_filter = ("role", "is_active")
    search_fields = ("email", "name")
    ordering = ("email",)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        kwargs["form"] = UserAddForm if obj is None else UserChangeForm
        return super().get_form(request, obj, change=change, **kwargs)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # on the page of people, where the last admin cannot be removed

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return super().changeform_view(request, *args, **kwargs)
        except StepUpRequired:
            raise  # the page that asks for the second factor, and then does this
        except HyprBoxError as error:
            messages.error(
                request, " ".join([error.message, *(text for texts in error.fields.values() for text in texts)])
            )
            return HttpResponseRedirect(request.get_full_path())

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        given = form.cleaned_data
        if not change:
            made = people.create_user(by=actor_of(request), **given)
            obj.pk = made.pk
            return
        asked = {name: given[name] for name in form.changed_data}
        people.change_user(by=actor_of(request), user_id=obj.pk, **asked)

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """The audit log has it; Django's own log would say less."""

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """The same."""
