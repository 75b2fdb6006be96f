"""Run by benchmarks in a process of its own: makes viewers and prints an access token for each. argv: how many."""

from __future__ import annotations

import sys

import django

django.setup()

from django.db import transaction

from accounts import jwt
from accounts.models import User
from audit import sealed
from audit import services as audit
from audit.actions import Action
from hyprbox.lib.actors import Actor, Role

for number in range(int(sys.argv[1])):
    user = User(email=f"viewer-{number}@example.com", name=f"Viewer {number}", role=Role.VIEWER)
    user.set_unusable_password()
    with transaction.atomic():
        sealed.create(user)
        audit.record(Action.USER_CREATED, by=Actor.system("bench"), target=f"user:{user.email}", row=user)
    print(jwt.access_token(user))
