"""The login form."""

from __future__ import annotations

from django import forms


class LoginForm(forms.Form):
    email = forms.CharField(max_length=254, error_messages={"required": "Enter your e-mail address."})
    password = forms.CharField(max_length=1024, strip=False, error_messages={"required": "Enter your password."})
