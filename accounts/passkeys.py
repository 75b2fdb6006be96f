"""Passkeys (WebAuthn, level 2) as a second factor: what the browser is asked, and whether its answer is right."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

import webauthn
from django.conf import settings
from django.db.models.functions import Now
from webauthn.helpers import exceptions, parse_authentication_credential_json
from webauthn.helpers.options_to_json_dict import options_to_json_dict
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from accounts.models import Passkey, User
from audit import sealed
from audit import services as audit
from hyprbox.lib.errors import Conflict, InvalidInput
from hyprbox.lib.rowmac import RowTampered

MOST = 20
MAX_ANSWER = 20_000


def are_possible() -> bool:
    """Browsers tie passkeys to a name; an IP address is none."""
    try:
        ipaddress.ip_address(_rp_id())
    except ValueError:
        return True
    return False


def _rp_id() -> str:
    return urlsplit(settings.HYPRBOX_PUBLIC_URL).hostname or ""


def _origin() -> str:
    """As a browser says it: without the port that goes without saying."""
    parts = urlsplit(settings.HYPRBOX_PUBLIC_URL)
    port = {"https": 443, "http": 80}.get(parts.scheme)
    host = parts.netloc.removesuffix(f":{port}")
    return f"{parts.scheme}://{host}"


def creation_options(user: User, challenge: bytes) -> dict[str, Any]:
    """What `navigator.credentials.create` is called with; bytes are base64url."""
    options = webauthn.generate_registration_options(
        rp_id=_rp_id(),
        rp_name="HyprBox",
        user_id=user.pk.bytes,
        user_name=user.email,
        user_display_name=user.name,
        challenge=challenge,
        exclude_credentials=_known(user),
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.DISCOURAGED, user_verification=UserVerificationRequirement.PREFERRED
        ),
    )
    return options_to_json_dict(options)


def request_options(user: User, challenge: bytes) -> dict[str, Any]:
    """What `navigator.credentials.get` is called with."""
    options = webauthn.generate_authentication_options(
        rp_id=_rp_id(),
        challenge=challenge,
        allow_credentials=_known(user),
        user_verification=UserVerificationRequirement.PREFERRED,
    )
    return options_to_json_dict(options)


def _known(user: User) -> list[PublicKeyCredentialDescriptor]:
    ids = Passkey.objects.filter(user=user).values_list("credential_id", flat=True)
    return [PublicKeyCredentialDescriptor(id=bytes(one)) for one in ids]


def register(user: User, *, name: str, answer: str, challenge: bytes) -> Passkey:
    """The passkey that the browser made, stored; its audit entry follows. The user is locked."""
    if not name.strip():
        raise InvalidInput(fields={"name": ["Give the passkey a name, so that you know it again."]})
    if Passkey.objects.filter(user=user).count() >= MOST:
        raise Conflict(f"You have {MOST} passkeys. Remove one that you do not use any more.")
    try:
        verified = webauthn.verify_registration_response(
            credential=answer[:MAX_ANSWER],
            expected_challenge=challenge,
            expected_rp_id=_rp_id(),
            expected_origin=_origin(),
        )
    except exceptions.WebAuthnException as error:
        raise InvalidInput(fields={"name": ["The browser’s answer cannot be used. Try once more."]}) from error
    if Passkey.objects.filter(credential_id=verified.credential_id).exists():
        raise Conflict("This passkey is registered already.")
    return sealed.create(
        Passkey(
            user=user,
            name=name.strip(),
            credential_id=verified.credential_id,
            public_key=verified.credential_public_key,
            sign_count=verified.sign_count,
        )
    )


def is_right(user: User, answer: str, challenge: bytes) -> bool:
    """Whether one of the user's passkeys signed this challenge, here."""
    if not challenge:
        return False
    try:
        credential = parse_authentication_credential_json(answer[:MAX_ANSWER])
        row = sealed.first(Passkey.objects.filter(user=user, credential_id=credential.raw_id))
        if row is None:
            return False
        verified = webauthn.verify_authentication_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=_rp_id(),
            expected_origin=_origin(),
            credential_public_key=bytes(row.public_key),
            credential_current_sign_count=row.sign_count,
        )
    except exceptions.WebAuthnException:
        return False
    except RowTampered as error:
        audit.note_tampered(error)
        return False
    used = Passkey.objects.filter(pk=row.pk, sign_count=row.sign_count)
    return bool(used.update(sign_count=verified.new_sign_count, last_used_at=Now()))
