"""People in the Django admin."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.forms import ReadOnlyPasswordHashField
from django.db import transaction
from django.db.models import F
from django.http import HttpRequest

from accounts import services
from accounts.models import RefreshFamily, User
from audit import services as audit
from audit.actions import Action
from hyprbox.lib.actors import actor_of


class UserChangeForm(forms.ModelForm):  # type: ignore[type-arg]
    password = ReadOnlyPasswordHashField(help_text="Set a new one with manage.py create_admin, or in the profile.")

    class Meta:
        model = User
        fields = ("email", "name", "role", "is_active", "password")


class UserAddForm(forms.ModelForm):  # type: ignore[type-arg]
    password = forms.CharField(widget=forms.PasswordInput, max_length=128, strip=False)

    class Meta:
        model = User
        fields = ("email", "name", "role")

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        forms_errors = services.password_problems(password)
        if forms_errors:
            raise forms.ValidationError(forms_errors)
        return password


@admin.register(User)
class UserAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("email", "name", "role", "is_active", "last_login", "created_at")
    list_filter = ("role", "is_active")
    search_fields = ("email", "name")
    ordering = ("email",)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        kwargs["form"] = UserChangeForm if change else UserAddForm
        return super().get_form(request, obj, change=change, **kwargs)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # disable instead: history names people

    @transaction.atomic
    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        by = actor_of(request)
        if not change:
            obj.set_password(form.cleaned_data["password"])
            super().save_model(request, obj, form, change)
            audit.record(Action.USER_CREATED, by=by, target=f"user:{obj.email}", detail={"role": obj.role})
            return
        super().save_model(request, obj, form, change)
        if {"role", "is_active"} & set(form.changed_data):
            User.objects.filter(pk=obj.pk).update(token_version=F("token_version") + 1)
            RefreshFamily.objects.filter(user=obj, revoked_at=None).delete()
        detail = {name: str(form.cleaned_data[name]) for name in form.changed_data}
        audit.record(Action.USER_CHANGED, by=by, target=f"user:{obj.email}", detail=detail)
