"""A preset's page: who may try values on it."""

from __future__ import annotations

import pytest
from django.test import Client

from accounts.models import User

pytestmark = pytest.mark.django_db
PAGE, FORM = "/presets/time-sync/", 'hx-post="/presets/time-sync/"'
ELSEWHERE = "Mars/Olympus"


def test_an_operator_tries_values(client: Client, otto: User) -> None:
    client.force_login(otto)
    page = client.get(PAGE, {"TIMEZONE": ELSEWHERE}).content.decode()
    assert ELSEWHERE in page and FORM in page
    assert ELSEWHERE in client.post(PAGE, {"sent": "1", "TIMEZONE": ELSEWHERE}).content.decode()


def test_a_viewer_sees_it_with_its_defaults_and_tries_nothing(client: Client, vera: User) -> None:
    client.force_login(vera)
    page = client.get(PAGE, {"TIMEZONE": ELSEWHERE}).content.decode()
    assert ELSEWHERE not in page and FORM not in page
    assert "<fieldset" in page and "set-timezone" in page
    assert client.post(PAGE, {"sent": "1", "TIMEZONE": ELSEWHERE}).status_code == 403
