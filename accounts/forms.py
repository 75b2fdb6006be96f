"""The forms of the pages about people."""

from __future__ import annotations

from datetime import datetime, timedelta

from django import forms
from django.utils import timezone

from hyprbox.lib.actors import Role, Scope

KEY_LIFETIMES = (("30", "30 days"), ("90", "90 days"), ("180", "180 days"), ("365", "A year"))


def _password(missing: str) -> forms.CharField:
    return forms.CharField(max_length=1024, strip=False, error_messages={"required": missing})


class LoginForm(forms.Form):
    email = forms.CharField(max_length=254, error_messages={"required": "Enter your e-mail address."})
    password = _password("Enter your password.")


class ResetForm(forms.Form):
    email = forms.CharField(max_length=254, error_messages={"required": "Enter your e-mail address."})


class NewPasswordForm(forms.Form):
    new = _password("Choose a password.")


class InvitationForm(forms.Form):
    """Who accepts an invitation."""

    name = forms.CharField(max_length=120, error_messages={"required": "Enter your name."})
    password = _password("Choose a password.")


class InviteForm(forms.Form):
    email = forms.CharField(max_length=254, error_messages={"required": "Enter an e-mail address."})
    role = forms.ChoiceField(choices=Role.choices)


class NameForm(forms.Form):
    name = forms.CharField(max_length=120, error_messages={"required": "Enter your name."})


class EmailForm(forms.Form):
    email = forms.CharField(max_length=254, error_messages={"required": "Enter an e-mail address."})
    password = _password("Enter your password.")


class PasswordForm(forms.Form):
    current = _password("Enter your current password.")
    new = _password("Choose a new password.")


class PersonForm(forms.Form):
    """What an admin changes about someone."""

    name = forms.CharField(max_length=120, required=False)
    role = forms.ChoiceField(choices=Role.choices, required=False)


class KeyForm(forms.Form):
    name = forms.CharField(
        max_length=120, error_messages={"required": "Give the key a name, so that you know it again."}
    )
    scope = forms.ChoiceField(choices=Scope.choices)
    days = forms.ChoiceField(choices=KEY_LIFETIMES)

    def expires_at(self) -> datetime:
        return timezone.now() + timedelta(days=int(self.cleaned_data["days"]))


def add_errors(form: forms.Form, fields: dict[str, list[str]], message: str) -> None:
    """What a verb refused, beside its inputs; without any, above the button."""
    for name, sentences in fields.items():
        form.add_error(name if name in form.fields else None, sentences)
    if not fields:
        form.add_error(None, message)
