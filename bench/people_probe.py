"""Run by benchmarks in a process of its own: makes viewers and prints an access token for each. argv: how many."""

from __future__ import annotations

import sys

import django

django.setup()

from accounts import jwt
from accounts.models import User
from hyprbox.lib.actors import Role

for number in range(int(sys.argv[1])):
    user = User(email=f"viewer-{number}@example.com", name=f"Viewer {number}", role=Role.VIEWER)
    user.set_unusable_password()
    user.save()
    print(jwt.access_token(user))
