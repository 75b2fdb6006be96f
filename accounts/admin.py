"""People in the Django admin: the same verbs as everywhere else."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.models import Group
from django.http import HttpRequest
from procrastinate.contrib.django.models import ProcrastinateJob

from accounts import passwords, people
from accounts.models import User
from hyprbox.lib.actors import actor_of
from hyprbox.lib.admin import VerbAdmin

# Roles are what counts here, and what others bring along leaves no trace in the audit log.
admin.site.unregister([Group, ProcrastinateJob])


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
class UserAdmin(VerbAdmin):
    """Nobody is deleted here, but on the page of people, where the last admin cannot be removed."""

    list_display = ("email", "name", "role", "is_active", "has_factor", "last_login", "created_at")
    list_filter = ("role", "is_active", "has_factor")
    search_fields = ("email", "name")
    ordering = ("email",)

    def audit_target(self, obj: User) -> str:
        return f"user:{obj.email}"

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        kwargs["form"] = UserAddForm if obj is None else UserChangeForm
        return super().get_form(request, obj, change=change, **kwargs)

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        given = form.cleaned_data
        if not change:
            made = people.create_user(by=actor_of(request), **given)
            obj.pk = made.pk
            return
        asked = {name: given[name] for name in form.changed_data}
        people.change_user(by=actor_of(request), user_id=obj.pk, **asked)
